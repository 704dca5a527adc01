"""Still pictures of scores: red over the scene, a plate of small pictures through time, one pixel's history."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from urbandelta.canvas import MUTED, Canvas, panel_size, red_over, score_colours
from urbandelta.cartography import MapFrame
from urbandelta.cog import write_whole
from urbandelta.composites import before_and_after, shrink, stretch
from urbandelta.errors import ConfigError, ProductError
from urbandelta.grid import Grid
from urbandelta.moments import Moment, acquisition_moments, month_moments, sights, window_moments
from urbandelta.narrative import plain_date
from urbandelta.products import grid_of, score_maps

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["PlateEvery", "draw_overlay", "draw_series", "pixel_at", "write_png"]

PlateEvery: TypeAlias = Literal["month", "window", "acquisition"]
MARGIN, GAP = 20, 14
MOST_CELLS = 24
CELL_TEXT = 46
SIZES = (64, 4096)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One moment of a plate, ready to be drawn."""

    moment: Moment
    scene: npt.NDArray[np.uint8] | None


def draw_overlay(scores: xr.Dataset, cube: Cube, *, size: int = 1000, threshold: float = 0.5) -> bytes:
    """PNG of the highest score in red over the scene as it looked at the end.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    cube : Cube
        The cube of the scores.
    size : int
        Longer side of the map in pixels.
    threshold : float
        Pixels of at least this are outlined.

    Raises
    ------
    ProductError
        If the cube has too few acquisitions in the time of the scores.
    ConfigError
        If the size is out of range.
    """
    check_size(size)
    grid = grid_of(scores)
    frame, factor = MapFrame(grid), max(-(-max(grid.shape) // size), 1)
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    pair = before_and_after(cube, start, end, factor=factor)
    if pair is None:
        raise ProductError(
            f"{cube.url}: too few acquisitions between {plain_date(start)} and {plain_date(end)} to show"
        )
    maximum = shrink(score_maps(scores, threshold=threshold).maximum, factor, how="max")
    width, height = panel_size(frame, size)
    canvas = Canvas(max(width, 420) + 2 * MARGIN, height + 130)
    canvas.text(MARGIN, 38, "Highest change score", size=20, bold=True)
    canvas.text(MARGIN, 60, f"of all windows from {plain_date(start)} to {plain_date(end)}", size=13, colour=MUTED)
    canvas.map(MARGIN, 74, width, height, red_over(stretch(pair)[1], maximum))
    canvas.outline(MARGIN, 74, width, height, np.nan_to_num(maximum) >= threshold)
    canvas.scale_bar(MARGIN + 14, 74 + height - 14, width, frame)
    below = f"Over {pair.kind} of {plain_date(pair.after.start)} to {plain_date(pair.after.end)}"
    canvas.text(MARGIN, 74 + height + 24, below, size=12, colour=MUTED)
    _red_legend(canvas, MARGIN, 74 + height + 36, threshold)
    return png(canvas)


def _red_legend(canvas: Canvas, x: int, y: int, threshold: float) -> None:
    """How red stands for a score, on a mid grey."""
    grey = np.full((1, 160, 4), 255, np.uint8)
    grey[..., :3] = 120
    canvas.map(x, y, 160, 10, red_over(grey, np.linspace(0, 1, 160, dtype=np.float32)[None]))
    canvas.text(x + 168, y + 10, f"score 0 to 1; outlined: at least {threshold:g}", size=11, colour=MUTED)


def draw_series(
    scores: xr.Dataset, cube: Cube | None, *, every: PlateEvery = "month", size: int = 170, cells: int = MOST_CELLS
) -> bytes:
    """PNG of small pictures through time: the scene above, the score below it.

    Parameters
    ----------
    scores : xarray.Dataset
    cube : Cube, optional
        Without it only scores are shown.
    every : {"month", "window", "acquisition"}
        What gets a picture. An acquisition (with at least half of its pixels valid) shows the nearest window's score.
    size : int
        Longer side of a small picture in pixels.
    cells : int
        Most pictures; of more, so many are chosen evenly.

    Raises
    ------
    ConfigError
        If the size is out of range, or acquisitions are asked for without a cube.
    ProductError
        If there is nothing to show.
    """
    check_size(size)
    grid = grid_of(scores)
    frame, factor = MapFrame(grid), max(-(-max(grid.shape) // size), 1)
    listed = list(_moments(scores, cube, every, factor))
    if not listed:
        raise ProductError(f"nothing to show: no {every} lies in the time of the scores; try --every month")
    chosen = [
        listed[k] for k in np.unique(np.linspace(0, len(listed) - 1, min(len(listed), cells)).round().astype(int))
    ]
    title, seen = sights(cube, chosen, factor, carry=every != "acquisition") if cube is not None else ("", [])
    drawn = [_Cell(moment=m, scene=seen[k].rgba if seen else None) for k, m in enumerate(chosen)]
    width, height = panel_size(frame, size)
    columns = min(len(drawn), max(1, math.ceil(math.sqrt(len(drawn) * 1.6 * (2 if seen else 1) * height / width))))
    rows = -(-len(drawn) // columns)
    tall = height * (2 if seen else 1) + (4 if seen else 0) + CELL_TEXT
    canvas = Canvas(max(columns * (width + GAP) - GAP + 2 * MARGIN, 460), 96 + rows * tall + 60)
    canvas.text(MARGIN, 38, f"Change score by {every}", size=20, bold=True)
    how = f"{title} above, score below" if seen else "Highest score"
    few = f"; {len(chosen)} of {len(listed)}, evenly chosen" if len(chosen) < len(listed) else ""
    canvas.text(MARGIN, 60, f"{how}{few}", size=13, colour=MUTED)
    for number, cell in enumerate(drawn):
        x = MARGIN + number % columns * (width + GAP)
        y = 96 + number // columns * tall
        canvas.text(x, y, cell.moment.label, size=12, bold=True)
        y += 6
        if cell.scene is not None:
            canvas.map(x, y, width, height, cell.scene)
            y += height + 4
        canvas.map(x, y, width, height, score_colours(cell.moment.score))
        if number == 0:
            canvas.scale_bar(x + 8, y + height - 8, width, frame)
    canvas.colour_bar(canvas.image.width - MARGIN - 160, canvas.image.height - 48, 160, threshold=0.5)
    return png(canvas)


def _moments(scores: xr.Dataset, cube: Cube | None, every: PlateEvery, factor: int) -> Iterable[Moment]:
    if every == "month":
        return month_moments(scores, factor)
    if every == "window":
        return window_moments(scores, factor)
    if cube is None:
        raise ConfigError("pictures by acquisition need the cube; give it with --cube")
    return acquisition_moments(scores, cube, factor)


def pixel_at(grid: Grid, lonlat: Sequence[float]) -> tuple[int, int]:
    """Row and column of the pixel at a longitude and latitude in degrees.

    Raises
    ------
    ConfigError
        If it lies outside the grid.
    """
    lon, lat = lonlat
    x, y = pyproj.Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True).transform(lon, lat)
    if math.isfinite(x) and math.isfinite(y):
        column, row = (math.floor(v) for v in ~grid.affine @ (x, y))
        if 0 <= row < grid.height and 0 <= column < grid.width:
            return row, column
    frame = MapFrame(grid)
    west, north = frame.lonlat(0, 0)
    east, south = frame.lonlat(grid.height - 1, grid.width - 1)
    raise ConfigError(
        f"{lon:g}, {lat:g} lies outside the scores, which span about {west:.4f} to {east:.4f} in longitude and "
        f"{south:.4f} to {north:.4f} in latitude; give LON,LAT in degrees"
    )


def check_size(size: int) -> None:
    """Raise `ConfigError` unless a picture's side is of sensible size."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(f"size {size} is out of range; give {SIZES[0]} to {SIZES[1]} pixels")


def png(canvas: Canvas) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    canvas.image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], content: bytes) -> int:
    """Write a picture; an existing file is replaced. Returns its bytes.

    Raises
    ------
    ConfigError
        If the name does not end in .png.
    ProductError
        If the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ConfigError(f"{target}: the picture is a PNG; end its name in .png")
    write_whole(target, content)
    return len(content)
