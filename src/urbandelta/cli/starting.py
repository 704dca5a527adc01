"""`urbandelta init`: a commented monitor file to start from."""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json

__all__ = ["init"]


def init(
    monitor: Annotated[Path, typer.Argument(metavar="MONITOR", help="The YAML file to write.")],
    *,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option("--bbox", metavar="W S E N", help="Area: west, south, east, north in degrees."),
    ] = None,
    aoi: Annotated[
        Path | None, typer.Option("--aoi", metavar="FILE", help="Area: GeoJSON, Shapefile or GeoPackage of polygons.")
    ] = None,
    era: Annotated[str, typer.Option(help="s12 or ers12ls5.")] = "s12",
    archive: Annotated[
        str | None,
        typer.Option(help="planetary-computer, earth-search, copernicus, or none: scenes are imported by hand."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The monitor's and its store's [the file's].")] = None,
    start: Annotated[
        str | None, typer.Option(metavar="DATE", help="First day [two years back, or the era's begin].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented monitor file that can be used as it is; one that is there is never overwritten."""
    from urbandelta.eras import era_named
    from urbandelta.starting import BY_HAND, DEFAULT_ARCHIVE, write_initial

    if (bbox is None) == (aoi is None):
        raise typer.BadParameter("give the area: either --bbox W S E N or --aoi FILE")
    closed = era_named(era).span[1] is not None
    loaded = write_initial(
        monitor,
        name=name or re.sub(r"[^A-Za-z0-9._-]+", "-", monitor.stem).strip("-._") or "monitor",
        bbox=bbox,
        aoi_file=None if aoi is None else os.path.relpath(aoi.absolute(), monitor.absolute().parent),
        era=era,
        archive=archive or (BY_HAND if closed else DEFAULT_ARCHIVE),
        start=_day(start),
        today=dt.datetime.now(dt.UTC).date(),
    )
    grid = loaded.make_grid()
    if as_json:
        print_json(
            {
                "monitor": str(monitor),
                "name": loaded.name,
                "shape": grid.shape,
                "crs": grid.crs,
                "cube": loaded.cube_url,
                "scores": loaded.scores_url,
            }
        )
        return
    typer.echo(f"{monitor}: {loaded.name}, {grid.height} x {grid.width} px of {grid.pixel_size[0]:g} m")
    path = shlex.quote(str(monitor))
    typer.echo(f"next: urbandelta plan {path} (what there is), then urbandelta update {path}", err=True)


def _day(text: str | None) -> dt.date | None:
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("write the date as YYYY-MM-DD", param_hint="--start") from error
