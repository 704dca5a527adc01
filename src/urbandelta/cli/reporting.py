"""Commands that show results: `export` writes GeoTIFFs, `report` one HTML page."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    import xarray as xr

    from urbandelta.products import ExportReport, Which
    from urbandelta.types import Progress

__all__ = ["export", "report"]


class Each(StrEnum):
    """What gets a file of its own."""

    window = "window"
    month = "month"


class Format(StrEnum):
    """Kind of file of an export."""

    geotiff = "geotiff"
    zarr = "zarr"


_WHICH: dict[Each | None, Which] = {None: "maps", Each.window: "windows", Each.month: "monthly"}

Scores = Annotated[str, typer.Argument(metavar="SCORES", help="Score store that `predict` wrote.")]
Threshold = Annotated[float, typer.Option(help="A score that is at least this counts as change, in (0, 1].")]


def export(
    scores: Scores,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the GeoTIFFs; made if absent.")],
    each: Annotated[Each | None, typer.Option(help="One map a window or a month, not the summary maps.")] = None,
    whole_set: Annotated[
        bool, typer.Option("--set", help="The set that a monitor keeps, in DIR/rasters, and its STAC in DIR/stac.")
    ] = False,
    fmt: Annotated[
        Format, typer.Option("--format", help="geotiff, or zarr: scores and maps as one plain Zarr store, DIR itself.")
    ] = Format.geotiff,
    threshold: Threshold = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that hold another result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write maps of change as cloud-optimised GeoTIFFs, or scores and maps as one Zarr store.

    Without --each or --set: highest score, window of the highest score, number of windows at or above the threshold,
    first and last date (int32 days since 1970-01-01, -1 none). Running it again writes nothing new and says so.
    """
    from urbandelta.products import export_cogs
    from urbandelta.repository import icechunk_errors
    from urbandelta.scored_cube import scored_cube
    from urbandelta.scores import open_scores

    if whole_set and (each is not None or overwrite):
        raise typer.BadParameter("takes neither --each nor --overwrite", param_hint="--set")
    if fmt is Format.zarr and (whole_set or each is not None):
        raise typer.BadParameter(
            "zarr holds all scores and maps; takes neither --each nor --set", param_hint="--format"
        )
    # Scores are read when their values are needed, so a lost or damaged file shows only then.
    with progress_bar("maps") as progress, icechunk_errors(scores):
        opened = open_scores(scores)
        if fmt is Format.zarr:
            done = _export_zarr(opened, to, threshold, overwrite, progress)
        elif whole_set:
            done = _export_set(opened, to, threshold, progress)
        else:
            cube = scored_cube(opened) if each is None else None
            done = export_cogs(
                opened, to, which=_WHICH[each], threshold=threshold, cube=cube, overwrite=overwrite, progress=progress
            )
    if as_json:
        print_json({"written": [str(path) for path in done.written], "kept": [str(path) for path in done.kept]})
        return
    for path in done.written:
        typer.echo(path)
    if done.kept:
        which = "1 file holds" if len(done.kept) == 1 else f"{len(done.kept)} files hold"
        typer.echo(f"{which} the same already and were left alone", err=True)


def _export_set(scores: xr.Dataset, to: Path, threshold: float, progress: Progress) -> ExportReport:
    from urbandelta.events import EventOptions
    from urbandelta.products import ExportReport
    from urbandelta.rasters import write_rasters
    from urbandelta.scored_cube import scored_cube
    from urbandelta.stac_items import write_stac

    options = EventOptions(threshold=threshold, low=min(EventOptions().low, threshold))
    rasters = write_rasters(scores, to / "rasters", options=options, cube=scored_cube(scores), progress=progress)
    described = write_stac(scores, to / "rasters", to / "stac", name=to.absolute().name)
    return ExportReport(rasters.written + described.written, rasters.kept + described.kept)


def _export_zarr(scores: xr.Dataset, to: Path, threshold: float, overwrite: bool, progress: Progress) -> ExportReport:
    from urbandelta.events import EventOptions
    from urbandelta.scored_cube import scored_cube
    from urbandelta.zarr_export import write_zarr

    options = EventOptions(threshold=threshold, low=min(EventOptions().low, threshold))
    cube = scored_cube(scores)
    return write_zarr(scores, to, options=options, cube=cube, overwrite=overwrite, progress=progress)


def report(
    scores: Scores,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="HTML file to write; replaced if present.")],
    cube: Annotated[
        str | None, typer.Option(metavar="CUBE", help="Cube of the scores; by default the one they name.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="TIF", help="True change dates; by default CUBE.truth.tif, if it exists."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Name of the scene.")] = None,
    threshold: Threshold = 0.5,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page: what changed, where, when, from which data, how sure."""
    from urbandelta.report import write_report
    from urbandelta.repository import icechunk_errors

    command = shlex.join(["urbandelta", *sys.argv[1:]])
    with icechunk_errors(scores):
        done = write_report(scores, out, cube_url=cube, truth=truth, title=title, threshold=threshold, command=command)
    if as_json:
        print_json({**vars(done), "path": str(done.path)})
        return
    typer.echo(done.path)
