"""How high the sun stood over each pixel of a scene: one angle, one computed for each pixel, or a band that says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import pyproj

from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.toa import Float64Array, sun_position
from urbandelta.types import Array

SunMode: TypeAlias = Literal["scene", "pixel"]
"""One elevation for the scene as its metadata state it, or one for each pixel."""

# The sun's elevation is so smooth that straight lines between nodes 2 km apart are right to 1e-6 degrees. Nodes are
# counted from the corner of the file, so that the same pixel gets the same angle whatever block it is read in.
_NODE_PIXELS = 64
_HUNDREDTHS = 0.01
_RIGHT_ANGLE = 90.0


class Sun(Protocol):
    """Something that knows the sun's elevation over a window of a raster."""

    def elevation(self, grid: Grid, rows: slice, columns: slice) -> float | Array:
        """Degrees above the horizon: one number, or an array (y, x) of the window."""

    @property
    def origin(self) -> str:
        """Where the angle comes from, for provenance."""


class Zenith(Protocol):
    """A solar zenith band (as `sources.base.Layer`): whole hundredths of degrees."""

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""

    @property
    def origin(self) -> str:
        """Its file."""

    def read(self, rows: slice, columns: slice) -> tuple[Array, Array | None]:
        """Stored numbers of a window, and which are masked."""


@dataclass(frozen=True)
class SceneSun:
    """One elevation for the whole scene, degrees."""

    degrees: float
    origin: str = "SUN_ELEVATION of the scene's centre"

    def elevation(self, _grid: Grid, _rows: slice, _columns: slice) -> float:
        """The same everywhere."""
        return self.degrees


@dataclass(frozen=True)
class ComputedSun:
    """The elevation that the sun had at one moment over each pixel, by the Almanac's formula (0.01 degrees)."""

    time: np.datetime64
    origin: str = "computed for each pixel from the time of the scene's centre"

    def elevation(self, grid: Grid, rows: slice, columns: slice) -> Float64Array:
        """Degrees, shape (y, x) of the window."""
        node_y, node_x = _nodes(rows), _nodes(columns)
        a, _, c, _, e, f = grid.transform
        x, y = np.meshgrid(c + (node_x + 0.5) * a, f + (node_y + 0.5) * e)
        transformer = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
        longitude, latitude = transformer.transform(x, y)
        if not np.isfinite(longitude).all() or not np.isfinite(latitude).all():
            raise SourceError(f"pixels of {grid} lie outside their CRS; is the CRS of the file right?")
        height, _ = sun_position(self.time, longitude, latitude)
        along_x = _between(height, (np.arange(columns.start, columns.stop) - node_x[0]) / _NODE_PIXELS)
        return _between(along_x.T, (np.arange(rows.start, rows.stop) - node_y[0]) / _NODE_PIXELS).T


@dataclass(frozen=True)
class ZenithBandSun:
    """The solar zenith band that comes with Collection 2."""

    band: Zenith

    @property
    def origin(self) -> str:
        """The file."""
        return f"solar zenith band {self.band.origin}"

    def elevation(self, grid: Grid, rows: slice, columns: slice) -> Float64Array:
        """Degrees, shape (y, x) of the window; NaN where the band has no angle."""
        if self.band.grid != grid:
            raise SourceError(f"{self.band.origin}: lies on {self.band.grid}, the band on {grid}; use --sun scene")
        stored, masked = self.band.read(rows, columns)
        degrees: Float64Array = _RIGHT_ANGLE - stored.astype(np.float64) * _HUNDREDTHS
        # Zenith 0 is what fill has; the sun stands exactly overhead nowhere that Landsat passes at ten in the morning.
        missing = stored == 0 if masked is None else masked | (stored == 0)
        degrees[missing] = np.nan
        return degrees


def _nodes(span: slice) -> Float64Array:
    first = span.start // _NODE_PIXELS
    last = max((span.stop - 1) // _NODE_PIXELS, first) + 1
    return np.arange(first, last + 1, dtype=np.float64) * _NODE_PIXELS


def _between(values: Float64Array, position: Float64Array) -> Float64Array:
    """Values (y, node) at positions counted in nodes, by straight lines."""
    left = np.floor(position).astype(np.intp)
    share = position - left
    between: Float64Array = values[:, left] * (1 - share) + values[:, left + 1] * share
    return between
