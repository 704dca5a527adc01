"""Districts: polygons with a name, brought to a grid."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio.features
import shapely
from shapely.geometry.base import BaseGeometry

from urbandelta.errors import AoiError
from urbandelta.grid import Grid
from urbandelta.types import BoolArray

__all__ = ["District", "Patch", "burn", "read_districts"]

_NAME_FIELDS = ("name", "district", "label", "title", "id")
_EDGE_POINTS = 64


@dataclass(frozen=True, eq=False)
class Patch:
    """A district's pixels: rows and columns of the smallest box around them, and which of the box are inside."""

    rows: slice
    columns: slice
    inside: BoolArray

    def of(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The pixels (pixel,) of an image (y, x) that lie inside."""
        return image[self.rows, self.columns][self.inside]


@dataclass(frozen=True, eq=False)
class District:
    """A named area, in the CRS of a grid."""

    name: str
    geometry: BaseGeometry
    values: dict[str, Any]
    """The other fields of the file."""

    def patch(self, grid: Grid) -> Patch:
        """The pixels whose centre lies inside; an empty patch if none does."""
        rows, columns = _box(self.geometry, grid)
        inside = burn(self.geometry, grid, rows, columns)
        return Patch(rows, columns, inside)


def burn(geometry: BaseGeometry, grid: Grid, rows: slice, columns: slice) -> BoolArray:
    """Which pixels of some rows and columns of a grid have their centre inside a geometry (y, x)."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width or geometry.is_empty:
        return np.zeros((height, width), np.bool_)
    a, b, c, d, e, f = grid.transform
    x, y = c + a * columns.start + b * rows.start, f + d * columns.start + e * rows.start
    mask: BoolArray = rasterio.features.geometry_mask(
        [geometry], out_shape=(height, width), transform=rasterio.Affine(a, b, x, d, e, y), invert=True
    )
    return mask


def _box(geometry: BaseGeometry, grid: Grid) -> tuple[slice, slice]:
    """Rows and columns of the grid that a geometry may touch."""
    west, south, east, north = geometry.bounds
    corners = [~grid.affine @ (x, y) for x, y in ((west, south), (west, north), (east, south), (east, north))]
    spans = []
    for axis, size in ((1, grid.height), (0, grid.width)):
        values = [corner[axis] for corner in corners]
        low = min(max(math.floor(min(values)), 0), size)
        spans.append(slice(low, max(min(math.ceil(max(values)), size), low)))
    return spans[0], spans[1]


def read_districts(path: str | os.PathLike[str], grid: Grid, *, name_field: str | None = None) -> list[District]:
    """Read districts from a GeoJSON, Shapefile or GeoPackage in any CRS.

    Parameters
    ----------
    path : path
    grid : Grid
        To whose CRS they are brought.
    name_field : str, optional
        Field with their names; by default the first of name, district, label, title, id that is there, else a number.

    Raises
    ------
    AoiError
        If the file is missing, unreadable, without CRS or polygons, or has no such field.
    """
    path = Path(path)
    if not path.exists():
        raise AoiError(f"{path}: no such file")
    # Half a second of start-up that no other command needs.
    import geopandas
    from pyogrio.errors import DataSourceError

    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, shapely.errors.GEOSException, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AoiError(f"{path}: not a readable GeoJSON, Shapefile or GeoPackage ({reason})") from error
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.crs is None:
        raise AoiError(f"{path}: holds no polygons with a CRS; give a file of districts with one")
    fields = [str(name) for name in frame.columns if name != frame.geometry.name]
    field = _name_field(path, fields, name_field)
    transformer = pyproj.Transformer.from_crs(frame.crs, grid.crs, always_xy=True)
    names: dict[str, int] = {}
    found = []
    for number, (_, row) in enumerate(frame.iterrows(), start=1):
        shape = row[frame.geometry.name]
        if shape is None or shape.is_empty or shape.geom_type not in ("Polygon", "MultiPolygon"):
            continue
        said = str(row[field]).strip() if field and row[field] is not None else ""
        name = said or f"district {number}"
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name} ({names[name]})"
        moved = shapely.transform(_dense(shapely.make_valid(shape)), transformer.transform, interleaved=False)
        found.append(District(name, moved, {key: row[key] for key in fields}))
    if not found:
        raise AoiError(f"{path}: holds no polygons; give a file of districts")
    return found


def _name_field(path: Path, fields: list[str], wanted: str | None) -> str | None:
    if wanted is None:
        lower = {field.lower(): field for field in reversed(fields)}
        return next((lower[name] for name in _NAME_FIELDS if name in lower), None)
    if wanted not in fields:
        raise AoiError(f"{path}: has no field {wanted!r}; it has {', '.join(fields) or 'none'}")
    return wanted


def _dense(geometry: BaseGeometry) -> BaseGeometry:
    """Points on the edges: a straight edge of the file may be curved on the grid."""
    west, south, east, north = geometry.bounds
    longest = max(east - west, north - south)
    return shapely.segmentize(geometry, longest / _EDGE_POINTS) if longest > 0 else geometry
