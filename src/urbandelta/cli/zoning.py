"""`urbandelta zonal`: statistics per district."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json

__all__ = ["zonal"]


def zonal(
    scores: Annotated[str, typer.Argument(metavar="SCORES", help="Score store that `predict` or `update` wrote.")],
    districts: Annotated[Path, typer.Argument(metavar="DISTRICTS", help="GeoJSON, Shapefile or GeoPackage.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the tables; made if absent.")],
    name_field: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Field with the districts' names [name, district, label ...].")
    ] = None,
    cube: Annotated[
        str | None, typer.Option(metavar="CUBE", help="Cube of the scores; by default the one they name.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Scores of at least this count as change.")] = 0.5,
    index_threshold: Annotated[
        float, typer.Option(help="Ground whose optical index exceeds this counts as built-up.")
    ] = 0.1,
    built_up_field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="Field with the built-up share (0..1) at the beginning, in place of the index."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a table per district: changed area, events, observations, built-up share, land consumption rate.

    districts.csv has a row a district, districts_months.csv a row a district and month, districts.json the same with
    notes on how it was made, districts.png a plot.
    """
    from urbandelta.events import EventOptions
    from urbandelta.report import cube_for
    from urbandelta.repository import icechunk_errors
    from urbandelta.scores import open_scores
    from urbandelta.zonal import write_zonal

    options = EventOptions(threshold=threshold, low=min(EventOptions().low, threshold))
    with icechunk_errors(scores):
        opened = open_scores(scores)
        table, paths = write_zonal(
            opened,
            districts,
            out,
            name_field=name_field,
            cube=cube_for(opened, cube),
            options=options,
            index_threshold=index_threshold,
            built_up_field=built_up_field,
        )
    if as_json:
        rows = [asdict(row) for row in table.rows]
        print_json({"districts": rows, "notes": list(table.notes), "files": [str(path) for path in paths]})
        return
    for path in paths:
        typer.echo(path)
    for note in table.notes:
        typer.echo(f"note: {note}", err=True)
