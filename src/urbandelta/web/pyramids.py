"""Bricks of pixels at halving resolutions: what tiles are cut from, whatever the pixels come from.

A pyramid hands out bricks of uint8; bricks are what is cached, because neighbouring tiles, and all months of a slider
under one tile, share them. At level k a brick of n pixels covers n * 2**k pixels of the grid a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from urbandelta.web.cache import ByteCache
from urbandelta.web.mercator import TILE_PX, TilePixels

OUTSIDE = 255
"""Index of pixels beyond the grid."""
UNKNOWN = 254
"""Index of pixels of the grid without a value."""
LEVELS = 254
"""Values take the indices 0 to 253."""

Bytes = npt.NDArray[np.uint8]
Bricks = ByteCache[Bytes]


class Pyramid(Protocol):
    """Pixels at halving resolutions. `key` tells its content from that of any other pyramid."""

    @property
    def key(self) -> Hashable:
        """Changes with the content."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width at level 0."""
        ...

    @property
    def brick_px(self) -> int:
        """Side of a brick: as much as is decoded at once anyway."""
        ...

    @property
    def most_level(self) -> int:
        """Coarsest level that it can give."""
        ...

    def read(self, level: int, rows: slice, columns: slice) -> Bytes:
        """Pixels (y, x) or (y, x, 4) of a level; the slices lie inside that level's image."""
        ...


def level_shape(shape: tuple[int, int], level: int) -> tuple[int, int]:
    """Height and width of an image after `level` halvings, rounded up."""
    return -(-shape[0] // 2**level), -(-shape[1] // 2**level)


def most_level(shape: tuple[int, int]) -> int:
    """Level at which the longer side has about 64 pixels."""
    return max(math.ceil(math.log2(max(*shape, 1) / 64)), 0)


def size_of(array: Bytes) -> int:
    """Bytes of an array."""
    return array.nbytes


def quantise(values: npt.NDArray[np.floating], low: float, high: float) -> Bytes:
    """Values as indices 0..253 from `low` to `high`, UNKNOWN where NaN."""
    scaled = (values - low) * ((LEVELS - 1) / max(high - low, 1e-12))
    unknown = ~np.isfinite(scaled)
    if unknown.any():
        scaled[unknown] = 0
    np.clip(scaled, 0, LEVELS - 1, out=scaled)
    index: Bytes = np.rint(scaled, out=scaled).astype(np.uint8)
    index[unknown] = UNKNOWN
    return index


def sample(pyramid: Pyramid, bricks: Bricks, where: TilePixels) -> Bytes:
    """The pixels of a pyramid under a tile, nearest: (256, 256), or (256, 256, 4) for colours.

    Pixels beyond the grid are OUTSIDE, or transparent.
    """
    level = min(where.level, pyramid.most_level)
    height, width = pyramid.shape
    inside = (where.rows >= 0) & (where.rows < height) & (where.columns >= 0) & (where.columns < width)
    if not inside.any():
        return _empty(TILE_PX, TILE_PX, (), OUTSIDE)
    everywhere = bool(inside.all())
    rows, columns = (where.rows, where.columns) if everywhere else (where.rows[inside], where.columns[inside])
    rows, columns = rows >> level, columns >> level
    top, left = int(rows.min()), int(columns.min())
    mosaic = _mosaic(pyramid, bricks, level, slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
    tile = _empty(TILE_PX, TILE_PX, mosaic.shape[2:], 0 if mosaic.ndim == 3 else OUTSIDE)
    part = tile[where.top : where.top + inside.shape[0], where.left : where.left + inside.shape[1]]
    picked = np.take(mosaic.reshape(-1, *mosaic.shape[2:]), (rows - top) * mosaic.shape[1] + (columns - left), axis=0)
    if everywhere:
        part[...] = picked
    else:
        part[inside] = picked
    return tile


def _mosaic(pyramid: Pyramid, bricks: Bricks, level: int, rows: slice, columns: slice) -> Bytes:
    height, width = level_shape(pyramid.shape, level)
    side = pyramid.brick_px
    mosaic: Bytes | None = None
    for i in range(rows.start // side, (rows.stop - 1) // side + 1):
        for j in range(columns.start // side, (columns.stop - 1) // side + 1):
            y, x = i * side, j * side
            span_y, span_x = slice(y, min(y + side, height)), slice(x, min(x + side, width))
            brick = bricks.get((pyramid.key, level, i, j), _reader(pyramid, level, span_y, span_x))
            if mosaic is None:
                shape = (rows.stop - rows.start, columns.stop - columns.start, *brick.shape[2:])
                mosaic = np.empty(shape, np.uint8)
            low_y, high_y = max(rows.start, span_y.start), min(rows.stop, span_y.stop)
            low_x, high_x = max(columns.start, span_x.start), min(columns.stop, span_x.stop)
            mosaic[low_y - rows.start : high_y - rows.start, low_x - columns.start : high_x - columns.start] = brick[
                low_y - y : high_y - y, low_x - x : high_x - x
            ]
    assert mosaic is not None  # rows and columns are never empty
    return mosaic


def _reader(pyramid: Pyramid, level: int, rows: slice, columns: slice) -> Callable[[], Bytes]:
    return lambda: pyramid.read(level, rows, columns)


def _empty(height: int, width: int, rest: tuple[int, ...], value: int) -> Bytes:
    return np.full((height, width, *rest), value, np.uint8)
