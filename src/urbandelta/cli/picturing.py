"""Commands that make pictures of scores: `timelapse` and `picture`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    import xarray as xr

    from urbandelta.store import Cube

__all__ = ["picture", "timelapse"]

Scores = Annotated[str, typer.Argument(metavar="SCORES", help="Score store that `predict` or `update` wrote.")]
CubeOption = Annotated[
    str | None, typer.Option("--cube", metavar="CUBE", help="Cube of the scores; by default the one they name.")
]
Threshold = Annotated[float, typer.Option(help="A score that is at least this counts as change.")]


class Each(StrEnum):
    """What gets a frame of its own."""

    month = "month"
    window = "window"


def timelapse(
    scores: Scores,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .gif, .webp or .mp4 file; replaced.")],
    cube: CubeOption = None,
    every: Annotated[Each, typer.Option(help="A frame for each calendar month, or for each window.")] = Each.month,
    size: Annotated[int, typer.Option(help="Longer side of each of the two maps in pixels.")] = 480,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 4.0,
    threshold: Threshold = 0.5,
    as_json: AsJson = False,
) -> None:
    """Write a moving picture: the scene in true colour beside the score, through time."""
    from urbandelta.repository import icechunk_errors
    from urbandelta.timelapse import write_timelapse

    with progress_bar("frames") as progress, icechunk_errors(scores):
        opened, pictures = _open(scores, cube)
        done = write_timelapse(
            opened,
            out,
            cube=pictures,
            every=every.value,
            size=size,
            fps=fps,
            threshold=threshold,
            progress=progress,
        )
    if as_json:
        print_json({**vars(done), "path": str(done.path)})
        return
    typer.echo(f"{done.path}: {done.frames} frames of {done.width} x {done.height} px, {done.bytes / 1e6:.1f} MB")


def _open(scores: str, cube: str | None) -> tuple[xr.Dataset, Cube | None]:
    """Scores, and the cube that is given or that they name; None if that one is gone."""
    from urbandelta.report import cube_for
    from urbandelta.scores import open_scores

    opened = open_scores(scores)
    return opened, cube_for(opened, cube)


class Kind(StrEnum):
    """What a picture shows."""

    overlay = "overlay"
    series = "series"
    pixel = "pixel"


class PlateEach(StrEnum):
    """What gets a small picture of its own."""

    month = "month"
    window = "window"
    acquisition = "acquisition"


def picture(
    scores: Scores,
    out: Annotated[Path, typer.Option("--out", metavar="PNG", help="The picture to write; replaced.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="overlay: highest score in red over the scene. series: small pictures through time. "
            "pixel: one pixel's score, radar and indices through time."
        ),
    ] = Kind.overlay,
    at: Annotated[
        str | None, typer.Option(metavar="LON,LAT", help="Of a pixel, in degrees [the highest score].")
    ] = None,
    every: Annotated[
        PlateEach, typer.Option(help="Of a series: a picture for each month, window or clear acquisition.")
    ] = PlateEach.month,
    size: Annotated[
        int | None, typer.Option(help="Longer side of a map in pixels [1000, in a series 170]; of a pixel, the width.")
    ] = None,
    cube: CubeOption = None,
    threshold: Threshold = 0.5,
    as_json: AsJson = False,
) -> None:
    """Write a still picture of scores as PNG."""
    from urbandelta.errors import ProductError
    from urbandelta.pixel_plot import draw_pixel, strongest_pixel
    from urbandelta.plates import check_size, draw_overlay, draw_series, pixel_at, write_png
    from urbandelta.products import grid_of, score_maps
    from urbandelta.repository import icechunk_errors

    if at is not None and kind is not Kind.pixel:
        raise typer.BadParameter("only a pixel has a place; use --kind pixel", param_hint="--at")
    with icechunk_errors(scores):
        opened, pictures = _open(scores, cube)
        if kind is Kind.overlay:
            if pictures is None:
                raise ProductError(f"{scores}: its cube is not at hand; give it with --cube")
            content = draw_overlay(opened, pictures, size=size or 1000, threshold=threshold)
        elif kind is Kind.series:
            content = draw_series(opened, pictures, every=every.value, size=size or 170)
        else:
            check_size(size or 1200)
            place = (
                strongest_pixel(score_maps(opened).maximum) if at is None else pixel_at(grid_of(opened), _lonlat(at))
            )
            content = draw_pixel(opened, pictures, *place, width=size or 1200, threshold=threshold)
    written = write_png(out, content)
    if as_json:
        print_json({"path": str(out), "bytes": written})
        return
    typer.echo(out)


def _lonlat(text: str) -> tuple[float, float]:
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not LON,LAT in degrees, such as 5.4366,50.6682", param_hint="--at"
        ) from error
    return lon, lat
