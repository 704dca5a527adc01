"""One picture of a scene for a README: before, after, and the highest score, side by side."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from urbandelta.cartography import MapFrame
from urbandelta.cog import write_whole
from urbandelta.composites import before_and_after, shrink, stretch
from urbandelta.errors import ProductError
from urbandelta.figures import SCORE_COLOURS
from urbandelta.narrative import plain_date
from urbandelta.products import NO_DATE, score_maps
from urbandelta.report import read_truth, truth_beside
from urbandelta.scores import open_scores
from urbandelta.store import open_cube
from urbandelta.types import BoolArray

__all__ = ["write_picture"]

WIDTH_PX = 1200
PANEL_PX = 384
DPI = 100
MOST_BYTES = 300_000


def write_picture(scores_url: str, cube_url: str, path: str | os.PathLike[str]) -> int:
    """Write a PNG, 1200 px wide: before | after | highest score, with the outline of the truth if it is known.

    Parameters
    ----------
    scores_url, cube_url : str
        The truth is taken from `CUBE.truth.tif` beside the cube, if there is one.
    path : path
        An existing file is replaced.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    ProductError
        If the cube has no acquisitions in both halves of the time of the scores, or the file cannot be written.
    """
    scores, cube = open_scores(scores_url), open_cube(cube_url)
    factor = -(-max(cube.grid.shape) // PANEL_PX)
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    pair = before_and_after(cube, start, end, factor=factor)
    if pair is None:
        raise ProductError(
            f"{cube_url}: too few acquisitions between {plain_date(start)} and {plain_date(end)} to show"
        )
    where = truth_beside(cube_url)
    truth = read_truth(where, cube.grid) != NO_DATE if where is not None else None
    aspect = MapFrame(cube.grid).aspect
    maximum = shrink(score_maps(scores).maximum, factor, how="max")
    images = stretch(pair)
    height = (WIDTH_PX - 2 * 12) / 3 / aspect
    figure = Figure(figsize=(WIDTH_PX / DPI, (height + 34) / DPI), dpi=DPI, facecolor="white")
    panels = [(f"Before: {plain_date(pair.before.start)} to {plain_date(pair.before.end)}", images[0])]
    panels += [(f"After: {plain_date(pair.after.start)} to {plain_date(pair.after.end)}", images[1])]
    for column, (title, image) in enumerate(panels):
        _panel(figure, column, title, height).imshow(image, aspect="auto", interpolation="nearest")
    what = "Highest change score" + (" (outline: truth)" if truth is not None else "")
    axis = _panel(figure, 2, what, height)
    axis.imshow(maximum, aspect="auto", cmap=SCORE_COLOURS, vmin=0, vmax=1, interpolation="nearest")
    if truth is not None and truth.any():
        _outline(axis, truth, maximum.shape)
    return _write_png(figure, Path(path))


def _panel(figure: Figure, column: int, title: str, height: float) -> Axes:
    width = (WIDTH_PX - 2 * 12) / 3
    box = ((width + 12) * column / WIDTH_PX, 0, width / WIDTH_PX, height / (height + 34))
    axis = figure.add_axes(box)
    axis.set_axis_off()
    axis.set_title(title, loc="left", fontsize=12, pad=7, color="#1c2226")
    return axis


def _outline(axis: Axes, truth: BoolArray, shape: tuple[int, ...]) -> None:
    """Draw the border of the true changes over a picture of `shape` pixels of the same area."""
    # A contour of nearest-neighbour enlarged truth follows pixel edges instead of cutting their corners.
    enlarged = np.pad(truth.repeat(4, axis=0).repeat(4, axis=1), 1).astype(np.float32)
    scale = [size / (4 * full) for size, full in zip(shape, truth.shape, strict=True)]
    y, x = ((np.arange(size) - 0.5) * s - 0.5 for size, s in zip(enlarged.shape, scale, strict=True))
    axis.contour(x, y, enlarged, levels=[0.5], colors="black", linewidths=2.4, alpha=0.5)
    axis.contour(x, y, enlarged, levels=[0.5], colors="white", linewidths=1.1)
    axis.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))  # the padding had widened them


def _write_png(figure: Figure, path: Path) -> int:
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB")
    picture.save(buffer, "PNG", optimize=True)
    if buffer.tell() > MOST_BYTES:  # noisy scenes compress badly; 256 colours keep a repository light
        buffer = io.BytesIO()
        picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    write_whole(path, buffer.getvalue())
    return buffer.tell()
