"""Commands about scenes at a distance: `fetch` brings them, `doctor` looks at what is needed for it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.cli.predicting import PlanOptions
    from urbandelta.fetch_plan import FetchPlan, StreamPlan
    from urbandelta.fetching import FetchReport
    from urbandelta.monitor import Monitor

MonitorArgument = Annotated[Path, typer.Argument(metavar="MONITOR", help="The monitor's YAML file.")]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="Leave out acquisitions from this moment on.")]
Streams = Annotated[list[str] | None, typer.Option("--stream", metavar="NAME", help="Only this stream; repeatable.")]

_MARKS = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}
_SHOWN = 20


def fetch_command(
    monitor: MonitorArgument,
    *,
    until: Until = None,
    stream: Streams = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Acquisitions read at the same time [chosen by memory].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be fetched and fetch nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring every acquisition of a monitor's area and period from its source into its cube."""
    from urbandelta.fetch_plan import plan_fetch
    from urbandelta.fetching import fetch
    from urbandelta.monitor import load_monitor
    from urbandelta.sources.item_facts import parse_time

    loaded = load_monitor(monitor)
    end = _moment(until, parse_time)
    if dry_run:
        plan = plan_fetch(loaded, until=end, streams=stream)
        print_plan(plan, as_json=as_json)
        raise typer.Exit(1 if plan.failures else 0)
    with progress_bar(f"fetch {loaded.name}") as progress:
        report = fetch(loaded, until=end, streams=stream, workers=workers, progress=progress)
    if as_json:
        print_json(_as_data(report))
    else:
        typer.echo(_summary(loaded.cube_url, report))
    if not report.complete:
        _tell_missing(report, _retry(monitor, until, stream))
        raise typer.Exit(1)


def doctor_command(
    target: Annotated[
        str | None, typer.Argument(metavar="[MONITOR|CUBE]", help="A monitor's YAML file, or a cube.")
    ] = None,
    *,
    plan: Annotated[
        bool, typer.Option("--plan/--no-plan", help="Ask the archive for its items, to hold free disk against them.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Look at installation, credentials, archive, disk and cube; exit 1 where something is broken."""
    from urbandelta.doctor import diagnose
    from urbandelta.monitor import load_monitor

    if target is not None and is_monitor(target):
        checks = diagnose(monitor=load_monitor(Path(target)), plan=plan)
    else:
        checks = diagnose(cube=target)
    broken = [check for check in checks if check.health == "broken"]
    if as_json:
        print_json({"healthy": not broken, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        for check in checks:
            typer.echo(f"{_MARKS[check.health]}  {check.subject}: {check.detail}")
        typer.echo(f"{len(broken)} of {len(checks)} broken" if broken else f"{len(checks)} looked at, nothing broken")
    if broken:
        raise typer.Exit(1)


def is_monitor(target: str) -> bool:
    """Whether an argument names a monitor's file rather than a cube."""
    return Path(target).suffix.lower() in (".yaml", ".yml") and not Path(target).is_dir()


def plan_monitor(monitor: Path, *, until: str | None, options: PlanOptions, as_json: bool) -> None:
    """Print what a fetch of a monitor would bring, and what a prediction over its cube costs, if there is one."""
    from urbandelta.fetch_plan import plan_fetch
    from urbandelta.monitor import load_monitor
    from urbandelta.sources.item_facts import parse_time

    loaded = load_monitor(monitor)
    plan = plan_fetch(loaded, until=_moment(until, parse_time))
    document, lines = _prediction(loaded, options)
    if as_json:
        print_json({"fetch": plan_data(plan), "predict": document})
    else:
        print_plan(plan, as_json=False)
        for line in lines:
            typer.echo(line)
    if plan.failures:
        raise typer.Exit(1)


def _prediction(monitor: Monitor, options: PlanOptions) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Cost of scoring what the cube holds now; None where it cannot be scored yet, which a fetch may change."""
    from urbandelta.cli.predicting import prediction_cost
    from urbandelta.errors import UrbandeltaError
    from urbandelta.fetching import cube_of

    if cube_of(monitor) is None:
        return None, ("no cube yet: what a prediction costs is known after the fetch",)
    settings = monitor.predict
    keywords = options.keywords() | {
        "stride": settings.stride,
        "tile": settings.tile,
        "halo": settings.halo,
        "engine": settings.engine,
        "mask_rule": settings.mask_rule,
        "precision": settings.precision,
        "substitutions": settings.substitute,
        "accepted": settings.accept,
    }
    weights = options.weights or monitor.weights_path
    try:
        document, lines = prediction_cost(monitor.cube_url, weights, workers=options.workers, **keywords)
    except UrbandeltaError as error:
        reason = " ".join(str(error).split())
        return {"cannot": reason}, (f"the cube as it is cannot be scored: {reason}",)
    return document, ("prediction over the cube as it is:", *(f"  {line}" for line in lines))


def print_plan(plan: FetchPlan, *, as_json: bool) -> None:
    """A fetch plan for people or programs."""
    if as_json:
        print_json(plan_data(plan))
        return
    for stream in plan.streams:
        _print_stream(stream)
    transfer = "an unknown number of bytes" if plan.transfer_bytes is None else size(plan.transfer_bytes)
    typer.echo(
        f"{plan.start} to {plan.end}, {plan.shape[0]} x {plan.shape[1]} px: {plan.new} acquisitions to fetch, about "
        f"{transfer} to transfer and {size(plan.stored_bytes)} to store"
    )


def plan_data(plan: FetchPlan) -> dict[str, Any]:
    """A fetch plan as plain values."""
    return {
        **dataclasses.asdict(plan),
        "new": plan.new,
        "transfer_bytes": plan.transfer_bytes,
        "stored_bytes": plan.stored_bytes,
    }


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _print_stream(stream: StreamPlan) -> None:
    if stream.failure:
        typer.echo(f"{stream.stream}: {stream.failure}")
        return
    others = (
        (stream.stored, "stored"),
        (stream.noted, "in the ledger"),
        (stream.late, "of passes that are stored already"),
        (stream.unusable, "unusable"),
        (stream.superseded, "older processings"),
    )
    besides = "".join(f", {count} {what}" for count, what in others if count)
    typer.echo(f"{stream.stream} ({stream.where}): {stream.new} to fetch of {stream.total}{besides}")
    orbits = ", ".join(
        f"{'unknown' if orbit == '-1' else orbit} ({count})" for orbit, count in stream.relative_orbits.items()
    )
    if orbits:
        typer.echo(f"  relative orbits {orbits}")
    for span in stream.platforms:
        typer.echo(f"  {span.platform or 'unknown satellite'}: {span.count}, {span.first} to {span.last}")
    years: dict[str, list[str]] = {}
    for month, count in stream.months.items():
        years.setdefault(month[:4], []).append(f"{month[5:]}:{count}")
    for year, counts in years.items():
        typer.echo(f"  {year}  {' '.join(counts)}")
    if stream.gaps:
        typer.echo(f"  no acquisition in {', '.join(stream.gaps)}")
    for note in stream.notes:
        typer.echo(f"  {note}")


def _summary(cube: str, report: FetchReport) -> str:
    added = ", ".join(f"{count} to {stream}" for stream, count in report.added.items()) or "none"
    others = (
        (report.skipped, "known already"),
        (report.empty, "empty over the area"),
        (report.refused, "refused"),
        (report.late, "late"),
    )
    besides = "".join(f"; {count} {what}" for count, what in others if count)
    return f"{cube}: acquisitions added: {added}{besides}; snapshot {report.snapshot or 'none'}"


def _as_data(report: FetchReport) -> dict[str, Any]:
    return {**dataclasses.asdict(report), "complete": report.complete}


def _tell_missing(report: FetchReport, retry: str) -> None:
    print(f"urbandelta: error: {len(report.missing)} could not be had; everything else is stored", file=sys.stderr)
    for item in report.missing[:_SHOWN]:
        print(f"  {item.stream} {item.time} {item.item_id}: {' '.join(item.reason.split())}", file=sys.stderr)
    if len(report.missing) > _SHOWN:
        print(f"  and {len(report.missing) - _SHOWN} more (--json lists all)", file=sys.stderr)
    print(f"to fetch what is missing: {retry}", file=sys.stderr)


def _retry(monitor: Path, until: str | None, streams: list[str] | None) -> str:
    words = ["urbandelta", "fetch", str(monitor)]
    words += ["--until", until] if until else []
    words += [word for stream in streams or [] for word in ("--stream", stream)]
    return shlex.join(words)


def _moment(text: str | None, parse: Any) -> Any:
    from urbandelta.errors import ConfigError

    if text is None:
        return None
    try:
        return parse(text)
    except ValueError:
        raise ConfigError(f"--until {text!r}: expected a date such as 2021-06-30, or 2021-06-30T12:00Z") from None
