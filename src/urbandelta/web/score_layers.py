"""Pyramids of scores, from cloud-optimised GeoTIFFs or straight from the score store."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from rasterio.windows import Window

from urbandelta.composites import shrink
from urbandelta.errors import StoreError
from urbandelta.types import FloatArray
from urbandelta.web.cache import ByteCache
from urbandelta.web.pyramids import LEVELS, UNKNOWN, Bytes, Pyramid, level_shape, quantise

GDAL_CACHE_BYTES = 32 * 2**20
"""GDAL would take a twentieth of the machine's memory for decoded blocks; bricks are cached behind it anyway."""
THUMBNAIL_LEVEL = 3
"""From this level on, pixels come from thumbnails of the whole area, made once for each run of windows."""
_BLOCK_PX = 512
_ABOVE_UNKNOWN = np.uint8(256 - UNKNOWN)
"""Added to indices with wrap-around it makes UNKNOWN the lowest, so that the highest of several is what is known."""


class ScorePyramid(Pyramid, Protocol):
    """A pyramid that also hands out the values behind its indices."""

    def values(self, level: int, rows: slice, columns: slice) -> FloatArray:
        """Values (y, x) of a level, NaN where there is none."""
        ...


@dataclass(frozen=True)
class CogPyramid:
    """One band of a GeoTIFF as indices 0..253 from `low` to `high`; coarser levels by its overviews."""

    path: Path
    shape: tuple[int, int]
    low: float = 0.0
    high: float = 1.0

    @property
    def key(self) -> Hashable:
        """Path, time of change, and size of the file."""
        return (*self.identity, self.low, self.high)

    @property
    def brick_px(self) -> int:
        """A block of the file: any part of it costs the decoding of all of it."""
        return 512

    @property
    def identity(self) -> tuple[str, int, int]:
        """Changes when the file is written anew."""
        stat = self.path.stat()
        return str(self.path), stat.st_mtime_ns, stat.st_size

    @property
    def most_level(self) -> int:
        """Down to about 64 pixels a side."""
        return most_level(self.shape)

    def read(self, level: int, rows: slice, columns: slice) -> Bytes:
        """Indices (y, x) of a level."""
        return quantise(self.values(level, rows, columns), self.low, self.high)

    def values(self, level: int, rows: slice, columns: slice) -> FloatArray:
        """Values (y, x) of a level, NaN where there is none."""
        factor = 2**level
        top, left = rows.start * factor, columns.start * factor
        window = Window(
            left, top, min(columns.stop * factor, self.shape[1]) - left, min(rows.stop * factor, self.shape[0]) - top
        )
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        try:
            with (
                rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
                rasterio.open(self.path) as source,
            ):
                raw = source.read(1, window=window, out_shape=shape)
                nodata, scale, offset = source.nodata, source.scales[0], source.offsets[0]
        except rasterio.errors.RasterioError as error:
            raise StoreError(f"{self.path.name}: cannot be read ({error}); make the products again") from error
        values: FloatArray = raw.astype(np.float32)
        if nodata is not None and not math.isnan(nodata):
            values[raw == nodata] = np.nan
        if (scale, offset) != (1.0, 0.0):
            values = values * np.float32(scale) + np.float32(offset)
        return values


@dataclass(frozen=True, eq=False)
class StorePyramid:
    """Highest score of some windows of a score store, as indices."""

    scores: xr.Dataset
    members: tuple[int, ...]
    thumbnails: ByteCache[Bytes]
    """Kept apart from `slabs`: they take seconds to make."""
    slabs: ByteCache[Bytes]

    @property
    def key(self) -> Hashable:
        """Store, snapshot, and windows."""
        return ("scores", self.scores.attrs["snapshot"], self.members)

    @property
    def brick_px(self) -> int:
        """A few chunks of the store."""
        return 256

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the scores."""
        return self.scores.sizes["y"], self.scores.sizes["x"]

    @property
    def most_level(self) -> int:
        """Down to about 64 pixels a side."""
        return most_level(self.shape)

    def read(self, level: int, rows: slice, columns: slice) -> Bytes:
        """Indices (y, x) of a level."""
        if level >= THUMBNAIL_LEVEL:
            return quantise(self._from_thumbnails(level, rows, columns), 0.0, 1.0)
        best = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        for slab, members in self._slabs():
            key = ("slab", self.scores.attrs["snapshot"], slab.start, level, rows.start, columns.start)
            indices = self.slabs.get(key, partial(self._indices, slab, level, rows, columns))
            for member in members:
                np.maximum(best, indices[member - slab.start] + _ABOVE_UNKNOWN, out=best)
        return best - _ABOVE_UNKNOWN

    def values(self, level: int, rows: slice, columns: slice) -> FloatArray:
        """Scores (y, x) of a level: of each window the mean of a cell, of these the highest."""
        if level >= THUMBNAIL_LEVEL:
            return self._from_thumbnails(level, rows, columns)
        factor = 2**level
        y = slice(rows.start * factor, min(rows.stop * factor, self.shape[0]))
        x = slice(columns.start * factor, min(columns.stop * factor, self.shape[1]))
        best = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        for slab, members in self._slabs():
            values = self._values(slab, y, x)
            for member in members:
                np.fmax(best, shrink(values[member - slab.start], factor), out=best)
        return best

    def _from_thumbnails(self, level: int, rows: slice, columns: slice) -> FloatArray:
        best: FloatArray | None = None
        for slab, members in self._slabs():
            key = ("thumbnails", self.scores.attrs["snapshot"], slab.start)
            whole = (slice(0, size) for size in level_shape(self.shape, THUMBNAIL_LEVEL))
            small = self.thumbnails.get(key, partial(self._indices, slab, THUMBNAIL_LEVEL, *whole))
            for member in members:
                index = small[member - slab.start]
                one = np.where(index == UNKNOWN, np.nan, index / np.float32(LEVELS - 1)).astype(np.float32)
                best = one if best is None else np.fmax(best, one)
        assert best is not None  # a month holds at least one window
        return shrink(best, 2 ** (level - THUMBNAIL_LEVEL))[rows, columns]

    def _indices(self, slab: slice, level: int, rows: slice, columns: slice) -> Bytes:
        """Each window of a slab (window, y, x): the months after the one that is asked for are decoded with it."""
        shape = (slab.stop - slab.start, rows.stop - rows.start, columns.stop - columns.start)
        found = np.empty(shape, np.uint8)
        factor = 2**level
        step = _BLOCK_PX // factor
        for top in range(rows.start, rows.stop, step):
            for left in range(columns.start, columns.stop, step):
                y = slice(top * factor, min((top + step) * factor, rows.stop * factor))
                x = slice(left * factor, min((left + step) * factor, columns.stop * factor))
                small = quantise(_means(self._values(slab, y, x), factor), 0.0, 1.0)
                i, j = top - rows.start, left - columns.start
                found[:, i : i + small.shape[1], j : j + small.shape[2]] = small
        return found

    def _slabs(self) -> list[tuple[slice, Sequence[int]]]:
        """Runs of windows that share chunks, with the members in each: a chunk is decoded once for all of them."""
        step = int(self.scores["score"].encoding.get("preferred_chunks", {}).get("window", 1))
        count = self.scores.sizes["window"]
        slabs: list[tuple[slice, Sequence[int]]] = []
        for number in sorted({member // step for member in self.members}):
            slab = slice(number * step, min((number + 1) * step, count))
            slabs.append((slab, [member for member in self.members if slab.start <= member < slab.stop]))
        return slabs

    def _values(self, windows: slice, y: slice, x: slice) -> FloatArray:
        return np.asarray(self.scores["score"][windows, y, x].values, np.float32)


def _means(values: FloatArray, factor: int) -> FloatArray:
    """Mean of each cell of `factor` pixels a side of several maps (window, y, x), ignoring NaN."""
    count, height, width = values.shape
    if factor == 1:
        return values
    if height % factor or width % factor or not np.isfinite(values).all():
        return np.stack([shrink(one, factor) for one in values])
    # Nearly all blocks are known throughout. Rows first: short sums along the last axis are dear.
    rows = values.reshape(count, height // factor, factor, width).sum(axis=2)
    cells = rows.reshape(count, height // factor, width // factor, factor).sum(axis=3)
    return np.asarray(cells / np.float32(factor * factor), np.float32)


def most_level(shape: tuple[int, int]) -> int:
    """Level at which the longer side has about 64 pixels."""
    return max(math.ceil(math.log2(max(*shape, 1) / 64)), 0)


def size_of(array: npt.NDArray[np.uint8]) -> int:
    """Bytes of an array."""
    return array.nbytes
