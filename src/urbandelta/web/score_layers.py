"""Pyramids of scores, from cloud-optimised GeoTIFFs or straight from the score store."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from rasterio.windows import Window

from urbandelta.composites import shrink
from urbandelta.errors import StoreError
from urbandelta.types import FloatArray
from urbandelta.web.month_maps import BLOCK_PX, MonthMaps
from urbandelta.web.pyramids import UNKNOWN, Bytes, Pyramid, most_level, quantise

GDAL_CACHE_BYTES = 32 * 2**20
"""GDAL would take a twentieth of the machine's memory for decoded blocks; bricks are cached behind it anyway."""
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
    """Highest score of some months of a score store, as indices."""

    maps: MonthMaps
    months: tuple[int, ...]
    """Positions among the months of `maps`."""

    @property
    def key(self) -> Hashable:
        """Store, snapshot, and months."""
        return ("scores", self.maps.snapshot, self.months)

    @property
    def brick_px(self) -> int:
        """A block of `maps`."""
        return BLOCK_PX

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the scores."""
        return self.maps.shape

    @property
    def most_level(self) -> int:
        """Down to about 64 pixels a side."""
        return most_level(self.shape)

    def read(self, level: int, rows: slice, columns: slice) -> Bytes:
        """Indices (y, x) of a level."""
        first, *rest = (self.maps.read(month, level, rows, columns) for month in self.months)
        best = first + _ABOVE_UNKNOWN
        for index in rest:
            np.maximum(best, index + _ABOVE_UNKNOWN, out=best)
        return best - _ABOVE_UNKNOWN

    def values(self, level: int, rows: slice, columns: slice) -> FloatArray:
        """Scores (y, x) of a level: of each month the mean of a cell, of these the highest."""
        factor = 2**level
        y = slice(rows.start * factor, min(rows.stop * factor, self.shape[0]))
        x = slice(columns.start * factor, min(columns.stop * factor, self.shape[1]))
        best = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        for values in self.maps.values(self.months, y, x):
            np.fmax(best, shrink(values, factor), out=best)
        return best
