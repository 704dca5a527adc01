"""Web Mercator tiles over a projected grid: which pixel of the grid each pixel of a tile shows.

Transforming all 65,536 pixels of a tile costs 20-30 ms. A projection is smooth over a tile, so a lattice of points is
transformed and interpolated between; only the part of the tile that the grid can touch is looked at, since a UTM zone
means nothing on the other side of the globe.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyproj

from urbandelta.grid import Grid
from urbandelta.web.cache import ByteCache

TILE_PX = 256
MOST_ZOOM = 22
EARTH_M = 2 * math.pi * 6_378_137.0
"""Width of the Web Mercator world in its own metres."""
_LATTICE = 17
_KNOWN_BYTES = 20 * 2**20
_EDGE_POINTS = 64

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TilePixels:
    """The part of a tile that a grid may cover, and the grid's pixel under each of its pixels."""

    top: int
    left: int
    rows: Ints
    """(y, x); outside the grid where negative or beyond its height."""
    columns: Ints
    level: int
    """Halvings of the grid's resolution that the tile has use for, at least 0."""


class TileGrid:
    """Tiles over one grid. Safe to use from several threads."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._known: ByteCache[TilePixels | None] = ByteCache(_KNOWN_BYTES, _bytes_of)
        self._local = threading.local()
        west, south, east, north = grid.bounds
        x, y = _ring(west, south, east, north)
        mercator = pyproj.Transformer.from_crs(grid.crs, "EPSG:3857", always_xy=True).transform(x, y)
        degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)
        self.mercator_bounds = _bounds(*mercator)
        self.bounds = _bounds(*degrees)
        """(west, south, east, north) in degrees."""
        self.outline: list[list[float]] = [
            [round(float(a), 7), round(float(b), 7)] for a, b in zip(*degrees, strict=True)
        ]
        self.native_zoom = self._native_zoom()

    def pixels(self, z: int, x: int, y: int) -> TilePixels | None:
        """Pixels of the grid under tile `z/x/y`; None where they do not meet. Raises ValueError for no such tile."""
        # The same for all months, and asked for once a month.
        return self._known.get((z, x, y), lambda: self._pixels(z, x, y))

    def _pixels(self, z: int, x: int, y: int) -> TilePixels | None:
        if not 0 <= z <= MOST_ZOOM:
            raise ValueError(f"no zoom {z}; zooms are 0 to {MOST_ZOOM}")
        if not (0 <= x < 2**z and 0 <= y < 2**z):
            raise ValueError(f"no tile {x}, {y} at zoom {z}; both are 0 to {2**z - 1}")
        step = EARTH_M / TILE_PX / 2**z
        origin_x, origin_y = x * TILE_PX * step - EARTH_M / 2, EARTH_M / 2 - y * TILE_PX * step
        west, south, east, north = self.mercator_bounds
        left, right = _clip((west - origin_x) / step, (east - origin_x) / step)
        top, bottom = _clip((origin_y - north) / step, (origin_y - south) / step)
        if left >= right or top >= bottom:
            return None
        at_x, weight_x = _lattice(left, right)
        at_y, weight_y = _lattice(top, bottom)
        mesh_x, mesh_y = np.meshgrid(origin_x + at_x * step, origin_y - at_y * step)
        inside_x, inside_y = self._to_grid(mesh_x, mesh_y)
        if not (np.isfinite(inside_x).all() and np.isfinite(inside_y).all()):
            return None
        a, _, c, _, e, f = self.grid.transform
        columns = weight_y @ ((inside_x - c) / a) @ weight_x.T
        rows = weight_y @ ((inside_y - f) / e) @ weight_x.T
        grid_pixels = step * self._shrinkage / self.grid.pixel_size[1]
        level = max(math.floor(math.log2(grid_pixels) + 1e-9), 0)
        return TilePixels(top, left, np.floor(rows).astype(np.int32), np.floor(columns).astype(np.int32), level)

    def locate(self, longitude: float, latitude: float) -> tuple[int, int] | None:
        """(row, column) of the grid's pixel at a place in degrees; None outside the grid."""
        x, y = self._transformer("EPSG:4326").transform(longitude, latitude)
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        a, _, c, _, e, f = self.grid.transform
        row, column = math.floor((y - f) / e), math.floor((x - c) / a)
        inside = 0 <= row < self.grid.height and 0 <= column < self.grid.width
        return (row, column) if inside else None

    def degrees(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """(longitudes, latitudes) of places in the grid's CRS."""
        found = self._transformer("EPSG:4326").transform(x, y, direction="INVERSE")
        return np.asarray(found[0]), np.asarray(found[1])

    def from_degrees(self, longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
        """Places in the grid's CRS of longitudes and latitudes."""
        found = self._transformer("EPSG:4326").transform(longitude, latitude)
        return np.asarray(found[0]), np.asarray(found[1])

    def to_degrees(self, x: float, y: float) -> tuple[float, float]:
        """(longitude, latitude) of a place in the grid's CRS."""
        longitude, latitude = self._transformer("EPSG:4326").transform(x, y, direction="INVERSE")
        return float(longitude), float(latitude)

    def pixel_corners(self, row: int, column: int) -> list[list[float]]:
        """Closed ring of a pixel's corners in degrees."""
        a, _, c, _, e, f = self.grid.transform
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1), (column, row)]
        return [[round(v, 8) for v in self.to_degrees(c + a * i, f + e * j)] for i, j in corners]

    def window_of(self, west: float, south: float, east: float, north: float) -> tuple[slice, slice] | None:
        """Rows and columns of the grid that a box in degrees covers; None where they do not meet."""
        # The box is cut to the grid's first: its far corners may lie where the projection does not reach.
        w, s, e, n = self.bounds
        west, south, east, north = max(west, w), max(south, s), min(east, e), min(north, n)
        if west >= east or south >= north:
            return None
        ring_x, ring_y = _ring(west, south, east, north)
        x, y = self._transformer("EPSG:4326").transform(ring_x, ring_y)
        a, _, c, _, e_size, f = self.grid.transform
        columns, rows = (np.asarray(x) - c) / a, (np.asarray(y) - f) / e_size
        top, bottom = max(math.floor(rows.min()), 0), min(math.ceil(rows.max()), self.grid.height)
        left, right = max(math.floor(columns.min()), 0), min(math.ceil(columns.max()), self.grid.width)
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None

    @property
    def _shrinkage(self) -> float:
        """Grid units per Web Mercator metre at the middle of the grid."""
        west, south, east, north = self.mercator_bounds
        g_west, g_south, g_east, g_north = self.grid.bounds
        return math.sqrt((g_east - g_west) / (east - west) * (g_north - g_south) / (north - south))

    def _native_zoom(self) -> int:
        pixel = min(self.grid.pixel_size) / self._shrinkage
        return min(max(math.ceil(math.log2(EARTH_M / TILE_PX / pixel)), 0), MOST_ZOOM - 1)

    def _to_grid(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        found = self._transformer("EPSG:3857").transform(x, y)
        return np.asarray(found[0]), np.asarray(found[1])

    def _transformer(self, source: str) -> pyproj.Transformer:
        # A transformer belongs to the thread that made it.
        known: dict[str, pyproj.Transformer] = self._local.__dict__.setdefault("known", {})
        if source not in known:
            known[source] = pyproj.Transformer.from_crs(source, self.grid.crs, always_xy=True)
        return known[source]


def _bytes_of(pixels: TilePixels | None) -> int:
    return 0 if pixels is None else pixels.rows.nbytes + pixels.columns.nbytes


def _clip(low: float, high: float) -> tuple[int, int]:
    return max(math.floor(low), 0), min(math.ceil(high), TILE_PX)


def _lattice(start: int, stop: int) -> tuple[Floats, Floats]:
    """Positions of lattice points among the pixel centres start..stop, and the weights (pixel, point) between them."""
    centres: Floats = np.arange(start, stop, dtype=np.float64) + 0.5
    count = min(_LATTICE, centres.size)
    if count == 1:
        return centres, np.ones((1, 1))
    points = np.linspace(centres[0], centres[-1], count)
    at = (centres - points[0]) / (points[1] - points[0])
    low = np.minimum(at.astype(np.intp), count - 2)
    weights = np.zeros((centres.size, count))
    index = np.arange(centres.size)
    weights[index, low], weights[index, low + 1] = 1 - (at - low), at - low
    return points, weights


def _ring(west: float, south: float, east: float, north: float) -> tuple[Floats, Floats]:
    """Closed ring of points along the edges of a box."""
    corners_x = np.array([west, east, east, west, west])
    corners_y = np.array([south, south, north, north, south])
    at = np.linspace(0, 4, 4 * _EDGE_POINTS + 1)
    sides = np.arange(5.0)
    return np.interp(at, sides, corners_x), np.interp(at, sides, corners_y)


def _bounds(x: Floats, y: Floats) -> tuple[float, float, float, float]:
    return float(np.min(x)), float(np.min(y)), float(np.max(x)), float(np.max(y))
