"""From the pixels of a file onto the pixels of the cube.

In one CRS, nearest is index arithmetic: each target pixel takes the source pixel that its centre lies in. Equal
pixels are therefore copied bit by bit, and 20 m or 60 m bands repeat exactly. Only interpolation and other CRSs are
warped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling as WarpMethod
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import reproject, transform_bounds

from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.sources.choices import Resampling
from urbandelta.types import Array, BoolArray

# Edges that should coincide differ by rounding of the coordinates; a centre that close to an edge belongs to the pixel
# on its right, so that ties do not depend on the last bit.
_EDGE_SLACK_PIXELS = 1e-4
# What a cubic kernel reaches beyond the target, in source pixels, and what a curved edge may bulge between points.
_MARGIN_PIXELS = 4


def covering_window(source: Grid, target: Grid) -> tuple[slice, slice] | None:
    """Rows and columns of `source` that `target` needs, with a margin for kernels; None if they do not overlap."""
    west, south, east, north = _bounds_in(target, source.crs)
    a, _, c, _, e, f = source.transform
    left, right = (west - c) / a, (east - c) / a
    top, bottom = (north - f) / e, (south - f) / e
    # When the target is coarser, a kernel reaches as far as its own pixels.
    margin_x = _MARGIN_PIXELS + int(np.ceil(2 * (right - left) / target.width))
    margin_y = _MARGIN_PIXELS + int(np.ceil(2 * (bottom - top) / target.height))
    slack = _EDGE_SLACK_PIXELS
    if right <= slack or bottom <= slack or left >= source.width - slack or top >= source.height - slack:
        return None
    rows = slice(max(int(np.floor(top)) - margin_y, 0), min(int(np.ceil(bottom)) + margin_y, source.height))
    columns = slice(max(int(np.floor(left)) - margin_x, 0), min(int(np.ceil(right)) + margin_x, source.width))
    return rows, columns


def crop(grid: Grid, rows: slice, columns: slice) -> Grid:
    """The part of a grid, as a grid."""
    a, _, c, _, e, f = grid.transform
    transform = (a, 0.0, c + columns.start * a, 0.0, e, f + rows.start * e)
    return Grid(grid.crs, transform, rows.stop - rows.start, columns.stop - columns.start)


def union(grids: list[Grid]) -> Grid:
    """Smallest grid on the pixels of the finest of `grids` that covers all of them.

    Raises
    ------
    SourceError
        If they lie in different CRSs.
    """
    if len({grid.crs for grid in grids}) > 1:
        found = ", ".join(sorted({grid.crs[:40] for grid in grids}))
        raise SourceError(
            f"files lie in several CRSs ({found}); give the cube's grid with --bbox, --aoi or --grid-from"
        )
    finest = min(grids, key=lambda grid: grid.pixel_size[0] * grid.pixel_size[1])
    a, _, c, _, e, f = finest.transform
    edges = [grid.bounds for grid in grids]
    left = _floor((min(edge[0] for edge in edges) - c) / a)
    right = _ceil((max(edge[2] for edge in edges) - c) / a)
    top = _floor((max(edge[3] for edge in edges) - f) / e)
    bottom = _ceil((min(edge[1] for edge in edges) - f) / e)
    return Grid(finest.crs, (a, 0.0, c + left * a, 0.0, e, f + top * e), bottom - top, right - left)


def onto_grid(
    values: Array, invalid: BoolArray, source: Grid, target: Grid, *, resampling: Resampling = "nearest"
) -> tuple[Array, BoolArray]:
    """Resample one band onto a grid.

    Parameters
    ----------
    values, invalid : ndarray, shape (y, x) of `source`
        Invalid pixels take no part in interpolation.
    source, target : Grid
    resampling : {"nearest", "bilinear", "average", "cubic"}

    Returns
    -------
    values, invalid : ndarray, shape (y, x) of `target`
        Same type as given; pixels outside the source are invalid and NaN (floats) or 0 (integers).
    """
    if source == target:
        return values, invalid
    if resampling == "nearest":
        nearest = _by_index if source.crs == target.crs else _by_warp
        return nearest(values, invalid, source, target)
    return _interpolated(values, invalid, source, target, resampling)


def _by_index(values: Array, invalid: BoolArray, source: Grid, target: Grid) -> tuple[Array, BoolArray]:
    a, _, c, _, e, f = source.transform
    rows, row_inside = _indices((target.y - f) / e, source.height)
    columns, column_inside = _indices((target.x - c) / a, source.width)
    picked = _pick(values, rows, columns)
    hidden = _pick(invalid, rows, columns)
    if not (row_inside.all() and column_inside.all()):
        outside = ~(row_inside[:, None] & column_inside[None, :])
        picked = np.where(outside, _fill(values.dtype), picked).astype(values.dtype, copy=False)
        hidden = hidden | outside
    return picked, hidden


def _pick(values: Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Array:
    """The given rows and columns; a view where they follow one another, as on grids that are only shifted."""
    for axis, index in enumerate((rows, columns)):
        first, size = int(index[0]), index.size
        if np.array_equal(index, np.arange(first, first + size)):
            values = values[first : first + size] if axis == 0 else values[:, first : first + size]
        else:
            # An axis at a time: a quarter of what indexing both at once takes.
            values = values.take(index, axis=axis)
    return values


def _indices(position: npt.NDArray[np.float64], size: int) -> tuple[npt.NDArray[np.intp], BoolArray]:
    index = np.floor(position + _EDGE_SLACK_PIXELS).astype(np.intp)
    inside = (index >= 0) & (index < size)
    return np.clip(index, 0, size - 1), inside


def _by_warp(values: Array, invalid: BoolArray, source: Grid, target: Grid) -> tuple[Array, BoolArray]:
    # Positions, not values, go through the warp: every type is moved bit by bit, and values and mask cannot disagree.
    if values.size >= 2**31:
        raise SourceError(f"{values.shape} pixels at once are too many to warp; choose a smaller area")
    position = np.arange(values.size, dtype=np.int32).reshape(values.shape)
    moved = np.full(target.shape, -1, np.int32)
    _warp(position, moved, source, target, WarpMethod.nearest, nodata=-1)
    outside = moved < 0
    index = np.where(outside, 0, moved)
    picked = values.reshape(-1)[index]
    picked[outside] = _fill(values.dtype)
    return picked, invalid.reshape(-1)[index] | outside


def _interpolated(
    values: Array, invalid: BoolArray, source: Grid, target: Grid, resampling: Resampling
) -> tuple[Array, BoolArray]:
    kind = np.float64 if values.dtype.itemsize > 2 and values.dtype.kind in "iu" else np.float32
    numbers = np.where(invalid, np.nan, values).astype(kind)
    moved = np.full(target.shape, np.nan, kind)
    _warp(numbers, moved, source, target, WarpMethod[resampling], nodata=np.nan)
    missing = ~np.isfinite(moved)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        moved = np.clip(np.rint(np.where(missing, 0, moved)), limits.min, limits.max)
    return moved.astype(values.dtype), missing


def _warp(data: Array, out: Array, source: Grid, target: Grid, method: WarpMethod, *, nodata: float) -> None:
    try:
        reproject(
            data,
            out,
            src_transform=source.affine,
            src_crs=source.crs,
            src_nodata=nodata,
            dst_transform=target.affine,
            dst_crs=target.crs,
            dst_nodata=nodata,
            resampling=method,
            tolerance=0.0,
            num_threads=1,
        )
    except (RasterioError, CRSError) as error:
        raise SourceError(f"cannot warp from {source.crs[:40]} to {target.crs[:40]} ({error})") from error


def _bounds_in(grid: Grid, crs: str) -> tuple[float, float, float, float]:
    if grid.crs == crs:
        return grid.bounds
    try:
        west, south, east, north = transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=41)
    except (RasterioError, CRSError) as error:
        raise SourceError(f"the cube's area cannot be projected to {crs[:40]} ({error}); is the CRS right?") from error
    if not np.isfinite([west, south, east, north]).all():
        raise SourceError(f"the cube's area lies outside {crs[:40]}; is the CRS of the file right?")
    return west, south, east, north


def _fill(dtype: np.dtype[np.generic]) -> float:
    return np.nan if dtype.kind == "f" else 0


def _floor(value: float) -> int:
    return int(np.floor(value + _EDGE_SLACK_PIXELS))


def _ceil(value: float) -> int:
    return int(np.ceil(value - _EDGE_SLACK_PIXELS))
