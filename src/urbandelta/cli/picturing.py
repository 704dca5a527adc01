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

__all__ = ["timelapse"]

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
