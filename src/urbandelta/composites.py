"""What a report shows of a cube: cloud-free composites, a pixel's history, the list of acquisitions.

Everything is read block by block and shrunk to display size on the way, so a city costs no more memory than a
village.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Stream
from urbandelta.types import BoolArray, FloatArray, TimeArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = [
    "Acquisitions",
    "Composite",
    "Pair",
    "PixelSeries",
    "Stretch",
    "acquisitions_of",
    "before_and_after",
    "display_bands",
    "fit_stretch",
    "median_of_run",
    "pixel_series",
    "shrink",
    "stretch",
    "title_of",
]

READ_BYTES = 96 * 2**20
SPANS_DAYS = (91, 182, 365)
"""A composite starts with three months and widens while more than 1 % of its pixels have no valid value."""
MID_GREY = 0.4
VISIBLE = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Composite:
    """Per-pixel median of the valid values of a span of time, at display size."""

    values: FloatArray
    """(y, x, band), NaN where no acquisition was valid."""
    start: np.datetime64
    end: np.datetime64
    acquisitions: int


@dataclass(frozen=True, eq=False)
class Pair:
    """The first and the last composite of one stream."""

    stream: Stream
    kind: Literal["true colour", "false colour", "radar"]
    before: Composite
    after: Composite


@dataclass(frozen=True, eq=False)
class PixelSeries:
    """One pixel through time in one stream; invalid acquisitions are left out."""

    stream: Stream
    times: TimeArray
    values: dict[str, FloatArray] = field(default_factory=dict)
    """Band -> (time,)."""


@dataclass(frozen=True, eq=False)
class Acquisitions:
    """When one stream saw the scene, with which satellite, and how much of it was valid."""

    stream: Stream
    times: TimeArray
    platforms: tuple[str, ...]
    valid_fraction: FloatArray


def title_of(stream: Stream) -> str:
    """Name of a stream for readers: "Radar, ascending", "Optical"."""
    kind = {"sar": "Radar", "optical": "Optical"}[stream.kind]
    return f"{kind}, {stream.orbit_state}" if stream.orbit_state else kind


def acquisitions_of(cube: Cube) -> list[Acquisitions]:
    """The acquisitions of each stream, in the era's order; no pixel is read."""
    found = []
    for name in cube.streams:
        data = cube.acquisitions(name)
        platforms = tuple(str(platform) or "unknown" for platform in data["platform"].values)
        valid = np.asarray(data["valid_fraction"].values, np.float32)
        found.append(Acquisitions(cube.era.stream(name), cube.times(name), platforms, valid))
    return found


def pixel_series(cube: Cube, row: int, column: int) -> list[PixelSeries]:
    """History of one pixel in every stream of the cube, valid values only."""
    series = []
    for name in cube.streams:
        y, x = slice(row, row + 1), slice(column, column + 1)
        values, mask = cube.read(name, slice(None), y, x)
        valid = (mask[:, 0, 0] == 0) & np.isfinite(values[:, 0, 0]).all(axis=-1)
        bands = {band: values[valid, 0, 0, k] for k, band in enumerate(cube.bands(name))}
        series.append(PixelSeries(cube.era.stream(name), cube.times(name)[valid], bands))
    return series


def before_and_after(cube: Cube, start: np.datetime64, end: np.datetime64, *, factor: int = 1) -> Pair | None:
    """The first and the last composite inside `[start, end]`: optical if the cube has it, else radar.

    Parameters
    ----------
    cube : Cube
    start, end : datetime64
        Usually what the windows span.
    factor : int
        Shrink by this many pixels a side (mean).

    Returns
    -------
    Pair or None
        None if no stream has acquisitions in both halves of that time.
    """
    for stream in sorted((cube.era.stream(name) for name in cube.streams), key=lambda s: s.kind != "optical"):
        bands, kind = display_bands(stream, cube.bands(stream.name))
        times = cube.times(stream.name)
        inside = np.flatnonzero((times >= start) & (times <= end))
        if not inside.size or not bands:
            continue
        # Each half of the time feeds one composite only: two that share acquisitions would hide a change.
        early = times[inside] <= start + (end - start) // 2
        if early.all() or not early.any():
            continue
        first = _widening_composite(cube, stream, bands, inside[early], factor)
        last = _widening_composite(cube, stream, bands, inside[~early][::-1], factor)
        if np.isfinite(first.values).any() and np.isfinite(last.values).any():
            return Pair(stream, kind, first, last)
    return None


def display_bands(
    stream: Stream, stored: tuple[str, ...]
) -> tuple[tuple[str, ...], Literal["true colour", "false colour", "radar"]]:
    """Which stored bands stand for red, green and blue on a screen; one band means grey."""
    if stream.kind == "sar":
        return stored[:1], "radar"
    visible = tuple(stream.roles[role] for role in VISIBLE if role in stream.roles)
    if len(visible) == len(VISIBLE) and set(visible) <= set(stored):
        return visible, "true colour"
    return (stored[:3] if len(stored) >= 3 else stored[:1]), "false colour"


def _widening_composite(
    cube: Cube, stream: Stream, bands: tuple[str, ...], order: npt.NDArray[np.intp], factor: int
) -> Composite:
    """Composite of the acquisitions at the head of `order`, over as short a span as leaves few holes."""
    times = cube.times(stream.name)
    for days in SPANS_DAYS:
        near = order[np.abs(times[order] - times[order[0]]) <= np.timedelta64(days, "D")]
        run = slice(int(near.min()), int(near.max()) + 1)
        values = median_of_run(cube, stream.name, bands, run, factor)
        if np.isfinite(values).all(axis=-1).mean() >= 0.99 or near.size == order.size:
            break
    return Composite(values, times[run.start], times[run.stop - 1], int(near.size))


def median_of_run(cube: Cube, name: str, bands: tuple[str, ...], run: slice, factor: int) -> FloatArray:
    """Median over time of the valid values of some bands, (y, x, band), shrunk by `factor`."""
    stored = cube.bands(name)
    index = [stored.index(band) for band in bands]
    parts = []
    for rows in _row_blocks(cube, len(stored) * (run.stop - run.start), factor):
        values, mask = cube.read(name, run, rows, slice(0, cube.grid.width))
        chosen = np.where((mask == 0)[..., None], values[..., index], np.nan)
        parts.append(shrink(nan_median(chosen), factor))
    return np.concatenate(parts)


def _row_blocks(cube: Cube, layers: int, factor: int) -> Iterator[slice]:
    rows = max(READ_BYTES // (4 * layers * cube.grid.width) // factor, 1) * factor
    for start in range(0, cube.grid.height, rows):
        yield slice(start, min(start + rows, cube.grid.height))


def nan_median(values: FloatArray) -> FloatArray:
    """Median over the first axis without NaN; NaN where all are NaN (and no warning about it)."""
    ordered = np.sort(values, axis=0)  # NaN sorts last
    count = np.isfinite(ordered).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    pick = [np.take_along_axis(ordered, np.minimum(k, len(values) - 1)[None], axis=0)[0] for k in (low, high)]
    return np.where(count > 0, (pick[0] + pick[1]) / 2, np.nan).astype(np.float32)


def shrink(values: FloatArray, factor: int, *, how: Literal["mean", "max"] = "mean") -> FloatArray:
    """Shrink (y, x, ...) by whole pixels a side, ignoring NaN; edge blocks may be partial.

    `max` keeps a lone high score visible on a small map; `mean` is for pictures.
    """
    if factor == 1:
        return values
    height, width = (-(-size // factor) * factor for size in values.shape[:2])
    rest = values.shape[2:]
    padded = np.full((height, width, *rest), np.nan, np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    cells = padded.reshape(height // factor, factor, width // factor, factor, *rest)
    if how == "max":
        return np.asarray(np.fmax.reduce(np.fmax.reduce(cells, axis=3), axis=1), np.float32)
    known: BoolArray = np.isfinite(cells)
    count = known.sum(axis=(1, 3))
    total = np.where(known, cells, 0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Stretch:
    """How values become colours: cut at `low` and `high` (band,), then one gamma; radar in decibels."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    gamma: float
    decibels: bool

    def rgba(self, values: FloatArray) -> npt.NDArray[np.uint8]:
        """Colours (y, x, 4) of values (y, x, band) of three bands, or of one as grey; transparent where one is NaN."""
        shown = _decibels(values) if self.decibels else values
        known = np.isfinite(shown).all(axis=-1)
        width = np.maximum(self.high - self.low, 1e-9)
        scaled = np.clip((np.nan_to_num(shown) - self.low) / width, 0, 1) ** self.gamma
        rgb = np.broadcast_to(scaled, (*scaled.shape[:2], 3)) if scaled.shape[-1] == 1 else scaled
        return np.dstack([(255 * rgb).round(), 255 * known]).astype(np.uint8)


def fit_stretch(images: Sequence[FloatArray], *, radar: bool) -> Stretch:
    """One stretch for several images (y, x, band), so that equal ground looks equal.

    Each band is cut at its 1st and 98th percentile over all of them; one gamma then lifts the median to a mid grey, or
    a few white roofs would leave fields in the dark.
    """
    shown = [_decibels(values) if radar else values for values in images]
    stacked = np.concatenate([values.reshape(-1, values.shape[-1]) for values in shown])
    stacked = stacked[np.isfinite(stacked).all(axis=-1)]
    if not stacked.size:
        stacked = np.zeros((1, images[0].shape[-1]), np.float32)
    low, high = np.percentile(stacked, (1, 98), axis=0)
    middle = float(np.median(np.clip((stacked - low) / np.maximum(high - low, 1e-9), 0, 1)))
    gamma = float(np.clip(np.log(MID_GREY) / np.log(np.clip(middle, 0.02, 0.98)), 0.4, 1.2))
    return Stretch(low, high, gamma, radar)


def stretch(pair: Pair) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Both composites as RGBA (y, x, 4) under one common stretch."""
    common = fit_stretch([pair.before.values, pair.after.values], radar=pair.kind == "radar")
    return common.rgba(pair.before.values), common.rgba(pair.after.values)


def _decibels(values: FloatArray) -> FloatArray:
    return np.asarray(10 * np.log10(np.where(values > 0, values, np.nan)), np.float32)
