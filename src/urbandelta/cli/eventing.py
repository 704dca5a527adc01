"""`urbandelta events`: objects of change from scores, as a table, as files, and as a feed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.progress import AsJson, print_json

if TYPE_CHECKING:
    from urbandelta.events import Event

__all__ = ["events"]


def events(
    scores: Annotated[str, typer.Argument(metavar="SCORES", help="Score store that `predict` or `update` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER|FILE",
            help="Folder for events.gpkg, events.parquet and events.geojson, or one file that ends so.",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="gpkg, geoparquet or geojson; may be repeated [all].")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Scores of at least this make an event.")] = 0.5,
    low: Annotated[float, typer.Option(help="Pixels and windows of at least this belong to it.")] = 0.3,
    min_area: Annotated[float, typer.Option(help="Smallest area, square metres.")] = 400.0,
    min_pixels: Annotated[int, typer.Option(help="Smallest area, pixels.")] = 8,
    min_days: Annotated[
        float | None, typer.Option(help="Days over which windows must flag an event to confirm it [half a window].")
    ] = None,
    min_windows: Annotated[int, typer.Option(help="Settled windows that must flag it to confirm it.")] = 2,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only events that had not ended before this day, YYYY-MM-DD.")
    ] = None,
    feed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append what is new or changed since the feed's last line (JSON lines)."),
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="Run this with the feed's new lines as JSON on its standard input.")
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Post the feed's new lines to the address in this variable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find events: connected pixels whose scores stay high over overlapping windows.

    Prints them, or writes them with --out; files that hold the same already are left alone. Identifiers stay the same
    when later windows are added.
    """
    from urbandelta.event_feed import update_feed
    from urbandelta.event_files import FORMATS, provenance_of_events, write_event_file, write_events
    from urbandelta.events import EventOptions, find_events
    from urbandelta.notifying import post_webhook, run_command
    from urbandelta.products import grid_of
    from urbandelta.repository import icechunk_errors
    from urbandelta.scored_cube import scored_cube
    from urbandelta.scores import open_scores

    if (command or webhook) and feed is None:
        raise typer.BadParameter("--command and --webhook tell the new lines of a feed; give --feed FILE too")
    if out is not None and out.suffix and formats:
        raise typer.BadParameter("--format is for a folder; the ending of a file tells its format")
    first_day = _day(since)
    options = EventOptions(
        threshold=threshold,
        low=low,
        min_area_m2=min_area,
        min_pixels=min_pixels,
        min_days=min_days,
        min_windows=min_windows,
    )
    # Scores are read when their values are needed, so a lost or damaged file shows only then.
    with icechunk_errors(scores):
        data = open_scores(scores)
        found = find_events(data, options, cube=scored_cube(data))
    grid = grid_of(data)
    shown = [event for event in found if first_day is None or event.last_date >= first_day]
    paths: list[Path] = []
    if out is not None:
        provenance = provenance_of_events(data, options)
        if out.suffix:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_event_file(shown, out, grid=grid, provenance=provenance)
            paths = [out]
        else:
            paths = write_events(shown, out, formats=formats or FORMATS, grid=grid, provenance=provenance)
    # The feed follows all events: one that ended before `since` is not withdrawn.
    lines = [] if feed is None else update_feed(feed, found, grid=grid)
    if command:
        run_command(command, lines)
    if webhook:
        post_webhook(webhook, lines)
    stages = Counter(event.stage for event in shown)
    if as_json:
        summary: dict[str, Any] = {
            "events": len(shown),
            "stages": dict(sorted(stages.items())),
            "area_m2": round(sum(event.area_m2 for event in shown), 1),
            "files": [str(path) for path in paths],
            "feed": [line.to_json() for line in lines],
        }
        print_json(summary if out is not None else {**summary, "list": [_row(event) for event in shown]})
        return
    for path in paths:
        typer.echo(path)
    if out is None:
        _print_table(shown)
    counts = ", ".join(f"{count} {stage}" for stage, count in sorted(stages.items()))
    typer.echo(f"{len(shown)} events" + (f": {counts}" if counts else ""), err=True)
    if feed is not None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(line.kind for line in lines).items()))
        typer.echo(f"{feed}: {kinds or 'nothing new'}", err=True)


def _day(since: str | None) -> Any:
    import numpy as np

    if since is None:
        return None
    try:
        return np.datetime64(since, "D")
    except ValueError as error:
        raise typer.BadParameter(f"--since {since!r} is not a date; write it as YYYY-MM-DD") from error


def _row(event: Event) -> dict[str, Any]:
    from urbandelta.event_files import PROPERTIES

    return {item.name: item.of(event) for item in PROPERTIES}


def _print_table(shown: list[Event]) -> None:
    typer.echo(f"{'id':16}  {'status':16}  {'began':10}  {'90 % interval':21}  {'ended':10}  {'ha':>7}  mean")
    for event in shown:
        status = f"{event.stage} {event.confidence}"
        between = f"{event.first_low}/{event.first_high}"
        typer.echo(
            f"{event.id}  {status:16}  {event.first_date}  {between}  {event.last_date}  "
            f"{event.area_m2 / 10_000:7.2f}  {event.mean:.2f}"
        )
