"""A raster of dates of change, read block by block on a cube's grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window as RasterWindow

from urbandelta.errors import GridError, LabelError, SourceError
from urbandelta.grid import Grid

_TOLERANCE_PX = 0.01
_HASHED_ROWS = 256


@dataclass(frozen=True)
class DateRaster:
    """Days since 1970-01-01 on which change began, -1 where there was none; made by `open`."""

    path: str
    sha256: str

    @classmethod
    def open(cls, path: str | Path, grid: Grid) -> DateRaster:
        """Check that a raster holds dates on a grid.

        Raises
        ------
        LabelError
            If it cannot be read, lies on another grid, or does not hold whole numbers.
        """
        try:
            found = Grid.from_raster(path)
        except (SourceError, GridError) as error:
            raise LabelError(str(error)) from error
        pixel = max(abs(size) for size in grid.pixel_size)
        offsets = np.subtract(found.bounds, grid.bounds)
        if found.shape != grid.shape or found.crs != grid.crs or np.abs(offsets).max() > _TOLERANCE_PX * pixel:
            raise LabelError(
                f"{path}: lies on another grid ({found}) than the cube ({grid}); warp it onto the cube's grid"
            )
        digest = hashlib.sha256()
        with rasterio.open(path) as source:
            if source.count != 1 or np.dtype(source.dtypes[0]).kind not in "iu":
                raise LabelError(
                    f"{path}: has {source.count} bands of {source.dtypes[0]}; dates are one band of whole numbers, "
                    "days since 1970-01-01, -1 where nothing changed"
                )
            for row in range(0, grid.height, _HASHED_ROWS):
                part = RasterWindow(0, row, grid.width, min(_HASHED_ROWS, grid.height - row))
                digest.update(_days(source.read(1, window=part)).tobytes())
        return cls(str(path), digest.hexdigest())

    def read(self, y: slice, x: slice) -> npt.NDArray[np.int32]:
        """Days (y, x) of a region."""
        with rasterio.open(self.path) as source:
            part = RasterWindow(x.start, y.start, x.stop - x.start, y.stop - y.start)
            return _days(source.read(1, window=part))


def _days(values: Any) -> npt.NDArray[np.int32]:
    return np.asarray(values).astype(np.int32)
