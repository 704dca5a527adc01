"""Areas of interest, pixel grids, and the index arithmetic of tiles, halos and blocks.

An anchored grid has its pixel edges at whole multiples of the pixel size from the origin of the CRS, so that two
areas that touch or overlap share their pixels exactly. Grids of imported data are kept as they are.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
import rasterio.features
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from shapely.geometry.base import BaseGeometry

from urbandelta.aoi import Aoi, read_aoi
from urbandelta.errors import AoiError, GridError, SourceError

__all__ = ["Aoi", "Block", "Grid", "Tile", "blocks", "read_aoi", "tiles"]

# Bounds that went through a projection and back miss their pixel edge by rounding (about 1e-5 px); without this slack
# an area whose edges lie on pixel edges would gain a row or a column.
_SNAP_PIXELS = 1e-3
_EDGE_POINTS = 64
MOST_PIXELS = 10_000_000
"""Pixels along an axis, at most; more is a slip of the pixel size (the Earth's girth is 4,000,000 px of 10 m)."""


@dataclass(frozen=True)
class Grid:
    """North-up pixels of one size in one CRS.

    `crs` is an EPSG string where there is one, else WKT; `transform` holds a, b, c, d, e, f of the affine transform
    from (column, row) of pixel corners to CRS coordinates. Equal grids have identical pixels.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise GridError(f"a grid needs at least one pixel, not {self.height} x {self.width} (height x width)")
        if len(self.transform) != 6 or not all(math.isfinite(value) for value in self.transform):
            raise GridError(f"grid transform {self.transform} is not six finite numbers a, b, c, d, e, f")
        if max(self.height, self.width) > MOST_PIXELS:
            raise GridError(
                f"a grid of {self.height} x {self.width} px is larger than {MOST_PIXELS} along an axis; "
                "check its pixel size and its area"
            )
        a, b, _, d, e, _ = self.transform
        if b != 0 or d != 0 or a <= 0 or e >= 0:
            raise GridError(
                f"grid transform {self.transform} is rotated, flipped or empty; warp the data to north-up first"
            )
        object.__setattr__(self, "crs", normal_crs(self.crs))
        object.__setattr__(self, "transform", tuple(float(value) for value in self.transform))

    @classmethod
    def for_aoi(cls, aoi: Aoi, *, pixel_m: float, crs: str | None = None) -> Grid:
        """Smallest anchored grid that covers an area.

        Parameters
        ----------
        aoi : Aoi
        pixel_m : float
            Pixel size in metres; pixel edges lie at its whole multiples.
        crs : str, optional
            A projected CRS in metres; by default the UTM zone of the area's centroid.

        Raises
        ------
        GridError
            If `crs` is unknown, geographic or not in metres, or `pixel_m` is not positive.
        AoiError
            If the area has no UTM zone (beyond 84 N or 80 S) or cannot be projected to `crs`.
        """
        if not (math.isfinite(pixel_m) and pixel_m > 0):
            raise GridError(f"pixel size must be a positive number of metres, not {pixel_m}")
        name = normal_crs(crs) if crs is not None else _utm_zone(aoi)
        _require_metres(name)
        west, south, east, north = _project(aoi.geometry, name, aoi.name).bounds
        left, right = _snap(west, east, pixel_m)
        bottom, top = _snap(south, north, pixel_m)
        transform = (pixel_m, 0.0, left * pixel_m, 0.0, -pixel_m, top * pixel_m)
        return cls(name, transform, top - bottom, right - left)

    @classmethod
    def from_bounds(cls, bounds: tuple[float, float, float, float], crs: str, shape: tuple[int, int]) -> Grid:
        """Exact grid of imported data: `bounds` (west, south, east, north) cut into `shape` (height, width) pixels."""
        west, south, east, north = (float(value) for value in bounds)
        if not (west < east and south < north):
            raise GridError(f"bounds {tuple(bounds)} are empty or inverted; the order is west, south, east, north")
        height, width = shape
        if height < 1 or width < 1:
            raise GridError(f"a grid needs at least one pixel, not {height} x {width} (height x width)")
        transform = ((east - west) / width, 0.0, west, 0.0, (south - north) / height, north)
        return cls(crs, transform, height, width)

    @classmethod
    def from_raster(cls, path: str | Path) -> Grid:
        """Grid of a georeferenced raster file."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path) as source:
                    crs, transform, shape = source.crs, source.transform, source.shape
        except RasterioIOError as error:
            raise SourceError(f"{path}: not a readable raster ({_first_line(error)})") from error
        if crs is None:
            raise GridError(f"{path}: has no CRS; assign one with gdal_edit -a_srs")
        return cls(crs.to_wkt(), tuple(transform)[:6], *shape)

    @classmethod
    def from_json(cls, text: str) -> Grid:
        """The grid that `to_json` wrote, exactly."""
        try:
            data = json.loads(text)
            return cls(str(data["crs"]), tuple(data["transform"]), int(data["height"]), int(data["width"]))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, GridError):
                raise
            raise GridError(f"not a grid as Grid.to_json writes it: {text[:80]!r}") from error

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal grid (floats are written so that they read back exactly)."""
        data: dict[str, Any] = {
            "crs": self.crs,
            "transform": list(self.transform),
            "height": self.height,
            "width": self.width,
        }
        return json.dumps(data)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def pixel_size(self) -> tuple[float, float]:
        """(height, width) of a pixel in units of the CRS, both positive."""
        return -self.transform[4], self.transform[0]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the outer pixel edges."""
        a, _, c, _, e, f = self.transform
        return c, _edge(f, e, self.height), _edge(c, a, self.width), f

    @property
    def x(self) -> npt.NDArray[np.float64]:
        """Pixel centres from west to east, shape (width,)."""
        return _centres(self.transform[2], self.transform[0], self.width)

    @property
    def y(self) -> npt.NDArray[np.float64]:
        """Pixel centres from north to south, shape (height,)."""
        return _centres(self.transform[5], self.transform[4], self.height)

    @property
    def affine(self) -> Affine:
        """The transform as an `affine.Affine`."""
        return Affine(*self.transform)

    @property
    def geobox(self) -> GeoBox:
        """The grid as odc-geo knows it."""
        return GeoBox(self.shape, self.affine, self.crs)

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are degrees."""
        return bool(pyproj.CRS(self.crs).is_geographic)

    def __str__(self) -> str:
        height, width = self.pixel_size
        crs = self.crs if self.crs.startswith("EPSG:") else pyproj.CRS(self.crs).name
        return f"{self.height} x {self.width} px of {height:g} x {width:g} in {crs} at {self.bounds}"


def normal_crs(crs: str) -> str:
    """The EPSG string of a CRS where there is one, else its WKT; raises `GridError` for an unknown CRS."""
    try:
        parsed = pyproj.CRS.from_user_input(crs)
    except CRSError as error:
        raise GridError(f"unknown CRS {str(crs)[:60]!r}; give one such as EPSG:32631") from error
    code = parsed.to_epsg()
    return f"EPSG:{code}" if code is not None else str(parsed.to_wkt())


@dataclass(frozen=True)
class Tile:
    """One piece of network input: `core` (y, x) are the output pixels it answers for, `patch` those it reads."""

    core: tuple[slice, slice]
    patch: tuple[slice, slice]


@dataclass(frozen=True)
class Block:
    """Neighbouring tiles that are read and committed together.

    `core` and `patch` (y, x) bound the cores and the patches of the tiles.
    """

    tiles: tuple[Tile, ...]
    core: tuple[slice, slice]
    patch: tuple[slice, slice]


def tiles(shape: tuple[int, int], *, tile: int, halo: int) -> list[list[Tile]]:
    """Cut a grid into tiles, as rows from the top-left corner.

    Cores partition the grid in steps of `tile`; those of the last row and column may be smaller. All patches have the
    size `min(tile + 2 * halo, grid)` per axis and lie inside the grid: at its edges they shift inwards.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the grid in pixels.
    tile, halo : int
        Size of a core and width of the margin around it, in pixels.

    Raises
    ------
    GridError
        If `tile` or the grid is smaller than 1 pixel or `halo` is negative.
    """
    rows, columns = (_spans(size, tile=tile, halo=halo) for size in shape)
    return [
        [Tile(core=(core_y, core_x), patch=(patch_y, patch_x)) for core_x, patch_x in columns]
        for core_y, patch_y in rows
    ]


def blocks(shape: tuple[int, int], *, tile: int, halo: int, block: int = 128) -> list[Block]:
    """Group the tiles of a grid into blocks of `ceil(block / tile)` tiles per axis, row by row."""
    if block < 1:
        raise GridError(f"block must be at least 1 pixel, not {block}")
    rows = tiles(shape, tile=tile, halo=halo)
    per_axis = math.ceil(block / tile)
    return [
        _block(tuple(tile for row in rows[top : top + per_axis] for tile in row[left : left + per_axis]))
        for top in range(0, len(rows), per_axis)
        for left in range(0, len(rows[0]), per_axis)
    ]


def mirrored(start: int, length: int, size: int) -> npt.NDArray[np.intp]:
    """Indices of `length` pixels from `start` along an axis of `size`, mirrored at its ends (edge pixels twice)."""
    index = np.arange(start, start + length) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _spans(size: int, *, tile: int, halo: int) -> list[tuple[slice, slice]]:
    if size < 1 or tile < 1 or halo < 0:
        raise GridError(f"cannot cut {size} pixels into tiles of {tile} with a halo of {halo}")
    patch = min(tile + 2 * halo, size)
    starts = [min(max(core - halo, 0), size - patch) for core in range(0, size, tile)]
    return [
        (slice(core, min(core + tile, size)), slice(start, start + patch))
        for core, start in zip(range(0, size, tile), starts, strict=True)
    ]


def _block(members: tuple[Tile, ...]) -> Block:
    return Block(
        tiles=members,
        core=(_hull([tile.core[0] for tile in members]), _hull([tile.core[1] for tile in members])),
        patch=(_hull([tile.patch[0] for tile in members]), _hull([tile.patch[1] for tile in members])),
    )


def _hull(slices: list[slice]) -> slice:
    return slice(min(part.start for part in slices), max(part.stop for part in slices))


def _multiple(origin: float, step: float) -> int | None:
    """The whole number k with k * step == origin, if there is one."""
    k = round(origin / step)
    return k if k * step == origin else None


def _edge(origin: float, step: float, count: int) -> float:
    k = _multiple(origin, step)
    return origin + count * step if k is None else (k + count) * step


def _centres(origin: float, step: float, count: int) -> npt.NDArray[np.float64]:
    # Counted from the origin of the CRS, anchored grids get the same bits for a shared pixel whatever their corner.
    k = _multiple(origin, step)
    index = np.arange(count, dtype=np.float64) + 0.5
    return origin + index * step if k is None else (k + index) * step


def _snap(low: float, high: float, pixel: float) -> tuple[int, int]:
    start = math.floor(low / pixel + _SNAP_PIXELS)
    return start, max(math.ceil(high / pixel - _SNAP_PIXELS), start + 1)


def _utm_zone(aoi: Aoi) -> str:
    centre = aoi.geometry.centroid
    if not -80 <= centre.y <= 84:
        raise AoiError(f"{aoi.name}: latitude {centre.y:.2f} has no UTM zone; give a projected CRS")
    zone = min(int((centre.x + 180) // 6) + 1, 60)
    return f"EPSG:{(32600 if centre.y >= 0 else 32700) + zone}"


def _require_metres(crs: str) -> None:
    parsed = pyproj.CRS(crs)
    if not parsed.is_projected:
        raise GridError(f"{crs[:60]} is not a projected CRS; anchored grids need one in metres, such as UTM")
    if any(axis.unit_conversion_factor != 1 for axis in parsed.axis_info[:2]):
        raise GridError(f"{parsed.name} is not in metres; anchored grids need a projected CRS in metres, such as UTM")


def _project(geometry: BaseGeometry, crs: str, name: str) -> BaseGeometry:
    west, south, east, north = geometry.bounds
    # Straight edges in degrees are curved in the projection: without points on them the corners alone set the bounds.
    dense = shapely.segmentize(geometry, max(east - west, north - south) / _EDGE_POINTS)
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    projected = shapely.transform(dense, transformer.transform, interleaved=False)
    if not np.isfinite(shapely.get_coordinates(projected)).all():
        raise AoiError(f"{name}: lies outside the range of {crs[:60]}; choose a CRS that covers it")
    return projected


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
