"""Areas of interest: a bounding box or a vector file becomes polygons in longitude and latitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyproj
import rasterio.features
import shapely
from shapely.geometry.base import BaseGeometry

from urbandelta.errors import AoiError
from urbandelta.types import BoolArray

if TYPE_CHECKING:
    from urbandelta.grid import Grid

_EDGE_POINTS = 64


@dataclass(frozen=True)
class Aoi:
    """An area of interest: one Polygon or MultiPolygon in EPSG:4326 (longitude, latitude) and a name for messages."""

    geometry: BaseGeometry
    name: str

    def __post_init__(self) -> None:
        if self.geometry.geom_type not in ("Polygon", "MultiPolygon") or self.geometry.is_empty:
            raise AoiError(f"{self.name}: is an empty area or no polygon ({self.geometry.geom_type})")
        if not self.geometry.area > 0:
            raise AoiError(f"{self.name}: has no area; give polygons or a box of more than a point or a line")
        west, south, east, north = self.geometry.bounds
        if not (west >= -180 and south >= -90 and east <= 180 and north <= 90):
            raise AoiError(
                f"{self.name}: bounds {west:g}, {south:g}, {east:g}, {north:g} are no longitudes (-180..180) and "
                "latitudes (-90..90); the order is west, south, east, north in degrees"
            )

    def inside(self, grid: Grid) -> BoolArray:
        """Which pixels of a grid have their centre inside the area, shape (y, x)."""
        transformer = pyproj.Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
        shape = shapely.transform(_dense(self.geometry), transformer.transform, interleaved=False)
        mask: BoolArray = rasterio.features.geometry_mask(
            [shape], out_shape=grid.shape, transform=grid.affine, invert=True
        )
        return mask


def read_aoi(source: str | Path | Sequence[float]) -> Aoi:
    """Read an area of interest.

    Parameters
    ----------
    source : path or sequence of 4 floats
        A GeoJSON, Shapefile or GeoPackage with any number of polygons in any CRS, or a box
        (west, south, east, north) in degrees.

    Raises
    ------
    AoiError
        If the box is malformed, or the file is missing, unreadable, empty, without CRS, or holds no polygons.
    """
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    return _from_box(source)


def _from_box(box: Sequence[float]) -> Aoi:
    try:
        west, south, east, north = (float(value) for value in box)
    except (TypeError, ValueError):
        raise AoiError(f"a bounding box is four numbers (west, south, east, north), not {box!r}") from None
    name = f"bounding box {west:g}, {south:g}, {east:g}, {north:g}"
    if not all(map(math.isfinite, (west, south, east, north))):
        raise AoiError(f"{name}: holds a number that is not finite")
    if west >= east or south >= north:
        raise AoiError(f"{name}: is empty or inverted; the order is west, south, east, north, in degrees")
    return Aoi(shapely.box(west, south, east, north), name)


def _read_file(path: Path) -> Aoi:
    if not path.exists():
        raise AoiError(f"{path}: no such file")
    # Half a second of start-up that no other command needs.
    import geopandas
    from pyogrio.errors import DataSourceError

    try:
        # Shapes only: names in another encoding than the file says are nobody's concern here.
        frame = geopandas.read_file(path, columns=[])
    except (DataSourceError, shapely.errors.GEOSException, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AoiError(f"{path}: not a readable GeoJSON, Shapefile or GeoPackage ({reason})") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise AoiError(f"{path}: holds a table without geometry; give a file of polygons")
    shapes = [shape for shape in frame.geometry if shape is not None and not shape.is_empty]
    if not shapes:
        raise AoiError(f"{path}: holds no features; give at least one polygon")
    others = {shape.geom_type for shape in shapes} - {"Polygon", "MultiPolygon"}
    if others:
        raise AoiError(f"{path}: holds {', '.join(sorted(others))} features; keep polygons only")
    if frame.crs is None:
        raise AoiError(f"{path}: has no CRS (a Shapefile needs its .prj file beside it); assign one and try again")
    union = shapely.union_all([shapely.make_valid(shape) for shape in shapes])
    transformer = pyproj.Transformer.from_crs(frame.crs, "EPSG:4326", always_xy=True)
    # Points on the edges first: a straight edge of the file is curved in degrees.
    degrees = shapely.transform(_dense(union), transformer.transform, interleaved=False)
    return Aoi(_polygons(degrees), path.stem)


def _dense(geometry: BaseGeometry) -> BaseGeometry:
    west, south, east, north = geometry.bounds
    longest = max(east - west, north - south)
    return shapely.segmentize(geometry, longest / _EDGE_POINTS) if longest > 0 else geometry


def _polygons(geometry: BaseGeometry) -> BaseGeometry:
    """Only the polygons: mending a self-crossing outline can leave points and lines beside them."""
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"]
    multis = [part for part in shapely.get_parts(geometry) if part.geom_type == "MultiPolygon"]
    nested = [polygon for multi in multis for polygon in multi.geoms]
    found = parts + nested
    return found[0] if len(found) == 1 else shapely.MultiPolygon(found)
