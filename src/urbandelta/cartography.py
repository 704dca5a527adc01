"""What a map needs around it: ground distances, areas, tick marks, a scale bar, the position in degrees.

Distances and areas are geodesic (on the CRS's own ellipsoid), so a grid in degrees gets the same scale bar as one in
metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyproj

from urbandelta.grid import Grid

__all__ = ["MapFrame", "Tick", "round_length"]


@dataclass(frozen=True)
class Tick:
    """A mark on the frame of a map: where, in per cent from the left or the top, and what it says."""

    percent: float
    label: str


@dataclass(frozen=True)
class MapFrame:
    """Ground measures of a grid."""

    grid: Grid

    @cached_property
    def _to_degrees(self) -> pyproj.Transformer:
        return pyproj.Transformer.from_crs(self.grid.crs, "EPSG:4326", always_xy=True)

    @cached_property
    def _geod(self) -> pyproj.Geod:
        return pyproj.CRS.from_user_input(self.grid.crs).get_geod() or pyproj.Geod(ellps="WGS84")

    def lonlat(self, row: float, column: float) -> tuple[float, float]:
        """Longitude and latitude in degrees of a pixel centre (fractional indices allowed)."""
        a, _, c, _, e, f = self.grid.transform
        lon, lat = self._to_degrees.transform(c + a * (column + 0.5), f + e * (row + 0.5))
        return float(lon), float(lat)

    def _metres(self, start: tuple[float, float], end: tuple[float, float]) -> float:
        return float(self._geod.inv(*self.lonlat(*start), *self.lonlat(*end))[2])

    @cached_property
    def width_m(self) -> float:
        """Ground width in metres along the middle row, from pixel edge to pixel edge."""
        row = (self.grid.height - 1) / 2
        return self._metres((row, -0.5), (row, self.grid.width - 0.5))

    @cached_property
    def height_m(self) -> float:
        """Ground height in metres along the middle column, from pixel edge to pixel edge."""
        column = (self.grid.width - 1) / 2
        return self._metres((-0.5, column), (self.grid.height - 0.5, column))

    @property
    def aspect(self) -> float:
        """Width over height on the ground; a map in degrees must be drawn narrower than its pixel counts say."""
        return self.width_m / self.height_m

    @cached_property
    def row_area_ha(self) -> npt.NDArray[np.float64]:
        """Geodesic area in hectares of one pixel of each row (of its middle column), shape (y,)."""
        # The area changes smoothly along the rows: a few exact ones and interpolation keep a 5000-row grid fast.
        rows = np.unique(np.linspace(0, self.grid.height - 1, min(self.grid.height, 33)).round())
        areas = [self._pixel_area_m2(float(row)) / 10_000 for row in rows]
        return np.interp(np.arange(self.grid.height), rows, areas)

    def _pixel_area_m2(self, row: float) -> float:
        column = (self.grid.width - 1) / 2
        corners = [
            self.lonlat(row + dy, column + dx) for dy, dx in ((0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5))
        ]
        lon, lat = zip(*corners, strict=True)
        return abs(float(self._geod.polygon_area_perimeter(lon, lat)[0]))

    @property
    def scale_bar(self) -> tuple[float, str]:
        """Length of a scale bar in per cent of the map's width (at most about a third), and its label."""
        metres = round_length(self.width_m / 3)
        label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        return 100 * metres / self.width_m, label

    @property
    def x_ticks(self) -> list[Tick]:
        """Marks along the lower edge, in the grid's own coordinates."""
        west, _, east, _ = self.grid.bounds
        return [Tick(100 * (v - west) / (east - west), self._label(v, "W", "E")) for v in _round_values(west, east)]

    @property
    def y_ticks(self) -> list[Tick]:
        """Marks along the left edge, in the grid's own coordinates."""
        _, south, _, north = self.grid.bounds
        return [
            Tick(100 * (north - v) / (north - south), self._label(v, "S", "N")) for v in _round_values(south, north)
        ]

    def _label(self, value: float, negative: str, positive: str) -> str:
        if self.grid.is_geographic:
            return f"{abs(value):.6g}°{negative if value < 0 else positive}"
        return f"{value:,.10g}".replace(",", "\u202f")  # narrow no-break space between thousands

    def place(self, row: float, column: float) -> str:
        """Where in the map a pixel lies, in words: "north-east", "centre" ..."""
        vertical = ("north", "", "south")[min(int(3 * (row + 0.5) / self.grid.height), 2)]
        horizontal = ("west", "", "east")[min(int(3 * (column + 0.5) / self.grid.width), 2)]
        return "-".join(word for word in (vertical, horizontal) if word) or "centre"


def round_length(limit: float) -> float:
    """Largest of 1, 2, 5 times a power of ten that is at most `limit` (which must be positive)."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9))


def _round_values(low: float, high: float) -> list[float]:
    """Two to four round values within a range, none at its very ends, where a label would be cut."""
    span = high - low
    step = round_length(span / 2)
    margin = 0.06 * span
    first = math.ceil((low + margin) / step)
    values = [k * step for k in range(first, first + 6) if k * step <= high - margin]
    return [float(f"{value:.12g}") for value in values]
