"""`urbandelta update`: whatever is new in a monitor, and nothing else."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.updating import UpdateSummary

_SHOWN = 20


def update_command(
    monitor: Annotated[Path, typer.Argument(metavar="MONITOR", help="The monitor's YAML file.")],
    *,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Leave out acquisitions from this moment on.")
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch/--no-fetch", help="Ask the source, or work with what the cube holds.")
    ] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads of the scoring [all usable cores].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be fetched, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do whatever is new in a monitor: fetch, score, find events, write maps, page and feed.

    Running it again changes nothing. Killed at any moment, the same command goes on. Exit code 1 where scenes are
    missing or somebody could not be told; everything else is done then.
    """
    from urbandelta.monitor import load_monitor

    loaded = load_monitor(monitor)
    if dry_run:
        from urbandelta.cli.fetching import print_plan
        from urbandelta.fetch_plan import plan_fetch

        print_plan(plan_fetch(loaded, until=until), as_json=as_json)
        return
    from urbandelta.updating import update

    done = update(loaded, until=until, fetch=fetch, workers=workers, bar=progress_bar)
    if as_json:
        print_json(_data(done))
    else:
        for line in _lines(done):
            typer.echo(line)
    if not done.complete:
        retry = shlex.join(["urbandelta", "update", str(monitor), *(["--until", until] if until else [])])
        for item in done.missing[:_SHOWN]:
            typer.echo(f"missing: {item.stream} {item.item_id}: {item.reason}", err=True)
        if len(done.missing) > _SHOWN:
            typer.echo(f"missing: {len(done.missing) - _SHOWN} more", err=True)
        for problem in done.problems:
            typer.echo(f"failed: {problem}", err=True)
        typer.echo(f"try again: {retry}", err=True)
        raise typer.Exit(1)


def _data(done: UpdateSummary) -> dict[str, object]:
    return {
        **{item.name: getattr(done, item.name) for item in dataclasses.fields(done)},
        "missing": [dataclasses.asdict(item) for item in done.missing],
    }


def _lines(done: UpdateSummary) -> list[str]:
    if done.nothing_new and done.complete and not done.waiting:
        return [f"{done.name}: nothing new"]
    added = ", ".join(f"{count} {name}" for name, count in done.added.items()) or "none"
    lines = [f"{done.name}: new acquisitions: {added}"]
    if done.empty or done.refused:
        lines.append(f"  left out: {done.empty} without a pixel here, {done.refused} refused (see ledger.jsonl)")
    if done.waiting:
        return [*lines, f"  nothing to score yet: {done.waiting}"]
    lines.append(f"  windows: {done.scored} scored now, {done.windows} in all, {done.provisional} of them provisional")
    stages = ", ".join(f"{count} {stage}" for stage, count in done.stages.items())
    lines.append(f"  events: {done.events}{f' ({stages})' if stages else ''}")
    if done.news:
        lines.append("  news: " + ", ".join(f"{count} {kind}" for kind, count in done.news.items()))
    if done.written:
        lines.append(f"  written: {len(done.written)} files")
    if done.manifest:
        lines.append(f"  manifest: {done.manifest}")
    return lines
