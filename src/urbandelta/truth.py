"""Truth on a grid: what changed, where that is known, and when, from rasters, polygons or points.

A pixel of truth is changed, unchanged or unknown; unknown is never counted as unchanged. A change may carry a date or
a span of dates (a year, the time between two images). All dates are int32 days since 1970-01-01, -1 for none.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyproj
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from urbandelta.aoi import read_aoi
from urbandelta.errors import AoiError, GridError, TruthError
from urbandelta.grid import Grid, Tile
from urbandelta.products import NO_DATE, DaysArray, days_of
from urbandelta.types import Array, BoolArray

__all__ = ["Truth", "TruthOptions", "read_truth", "tile_labels"]

TruthKind: TypeAlias = Literal["classes", "dates", "polygons", "points"]

RASTERS = frozenset({".tif", ".tiff", ".vrt", ".img", ".jp2", ".png", ".nc"})
ALIGNED_PX = 1e-3
"""How far the pixels of two grids may lie apart and still be the same pixels."""
_EDGE_POINTS = 64


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """How a file of truth is to be read."""

    changed_values: tuple[str, ...] = ()
    """Raster values or classes that mean change; by default 1 of 0 and 1, and every class but 0, "" and "0"."""
    class_field: str | None = None
    date_field: str | None = None
    """Field of the date of change; a year or a month means some day in it."""
    last_date_field: str | None = None
    """With it, `date_field` is the last day without the change and this one the first day with it."""
    extent: str | Path | None = None
    """Polygons outside of which nothing is known."""
    resample: bool = False
    """Take a raster on another grid by the nearest of its pixels, instead of refusing it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is known about each pixel of a grid; maps have shape (y, x)."""

    grid: Grid
    changed: BoolArray
    """Known to have changed."""
    known: BoolArray
    earliest: DaysArray
    """First day on which the change may have happened; -1 where nothing changed or no date is known."""
    latest: DaysArray
    kind: TruthKind
    source: str
    notes: tuple[str, ...] = ()
    """What a reader of a result must know of how this truth was made."""

    @property
    def dated(self) -> bool:
        """Whether any change has a date."""
        return bool((self.earliest != NO_DATE).any())

    def visible(self, start: np.datetime64, end: np.datetime64) -> BoolArray:
        """Changes that happened between two moments for certain; one without a date is taken to have."""
        inside = (self.earliest >= days_of(start)) & (self.latest <= days_of(end))
        seen: BoolArray = self.changed & (inside | (self.earliest == NO_DATE))
        return seen


def read_truth(path: str | Path, grid: Grid, options: TruthOptions | None = None) -> Truth:
    """Read truth onto a grid.

    A **raster** holds classes (0 unchanged, 1 changed, or what `changed_values` names; nodata is unknown), or dates
    (int32 days since 1970-01-01 with nodata -1, which means no change, as `urbandelta simulate` writes beside a cube).
    Its pixels must be the grid's, though it may cover more or less: outside it nothing is known. On another grid it is
    refused, since the nearest pixel shifts outlines by up to half a pixel; `options.resample` asks for that.

    **Polygons** mark what changed. Everything else in `options.extent` did not change; without an extent that is the
    whole grid. A pixel belongs to a polygon if its centre does. **Points** mark single pixels, and nothing is known of
    the others; they need `class_field`.

    Raises
    ------
    TruthError
        If the file is missing, unreadable, empty, without CRS, without the named field, holds values that do not say
        what changed, or does not touch the grid.
    """
    path = Path(path)
    options = options or TruthOptions()
    if not path.exists():
        raise TruthError(f"{path}: no such file; give a raster, or a vector file of polygons or points")
    truth = _read_raster(path, grid, options) if path.suffix.lower() in RASTERS else _read_vector(path, grid, options)
    if not truth.known.any():
        raise TruthError(f"{path}: says nothing about any pixel of the scores ({grid}); check its nodata and extent")
    return truth


def tile_labels(
    truth: Truth,
    tiles: Sequence[Tile | tuple[slice, slice]],
    *,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    min_known: float = 1.0,
) -> np.ndarray[Any, np.dtype[np.int8]]:
    """One label for each tile: whether anything in it changed between two moments.

    Parameters
    ----------
    truth : Truth
    tiles : sequence of Tile or (slice, slice)
        Of a `Tile` the core counts.
    start, end : datetime64, optional
        Half-open; a change without a date is taken to lie inside.
    min_known : float
        Share of a tile's pixels that must be known before it is called unchanged.

    Returns
    -------
    ndarray of int8, shape (tile,)
        1 if some pixel changed inside the period for certain, 0 if none did, -1 if the truth does not tell.
    """
    first = NO_DATE + 1 if start is None else int(days_of(start))
    last = np.iinfo(np.int32).max if end is None else int(days_of(end - np.timedelta64(1, "ns")))
    undated = truth.earliest == NO_DATE
    if start is None and end is None:
        inside, touching = truth.changed, truth.changed
    else:
        inside = truth.changed & (undated | ((truth.earliest >= first) & (truth.latest <= last)))
        touching = truth.changed & (undated | ((truth.latest >= first) & (truth.earliest <= last)))
    labels = np.full(len(tiles), -1, np.int8)
    for number, tile in enumerate(tiles):
        y, x = tile.core if isinstance(tile, Tile) else tile
        if inside[y, x].any():
            labels[number] = 1
        elif truth.known[y, x].mean() >= min_known and not touching[y, x].any():
            labels[number] = 0
    return labels


# ---------------------------------------------------------------- rasters


def _read_raster(path: Path, grid: Grid, options: TruthOptions) -> Truth:
    if fields := [name for name in ("date_field", "last_date_field", "class_field") if getattr(options, name)]:
        raise TruthError(f"{path}: is a raster and has no fields; leave out {fields[0].replace('_', '-')}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                values, covered, notes = _on_grid(source, path, grid, resample=options.resample)
                nodata, description = source.nodata, source.descriptions[0] or ""
    except RasterioIOError as error:
        raise TruthError(f"{path}: not a readable raster ({_first_line(error)})") from error
    except GridError as error:
        raise TruthError(str(error)) from error
    inside = covered & _extent(options, grid)
    dates = not options.changed_values and _holds_dates(values[covered], nodata, description)
    if dates:
        days = values.astype(np.int32)
        changed = inside & (days != NO_DATE)
        days = np.where(changed, days, NO_DATE).astype(np.int32)
        return _truth(grid, changed, inside, days, days, "dates", path, notes)
    known = inside & ~_is_nodata(values, nodata)
    changed = known & _changed_values(path, values, known, options.changed_values)
    none = np.full(grid.shape, NO_DATE, np.int32)
    return _truth(grid, changed, known, none, none, "classes", path, notes)


def _on_grid(source: Any, path: Path, grid: Grid, *, resample: bool) -> tuple[Array, BoolArray, tuple[str, ...]]:
    """The first band on the grid, which pixels it covers, and what to tell."""
    if source.crs is None:
        raise TruthError(f"{path}: has no CRS; assign one with gdal_edit -a_srs")
    if source.count != 1:
        raise TruthError(f"{path}: has {source.count} bands; give a raster of one band")
    covered = np.zeros(grid.shape, np.bool_)
    values = np.zeros(grid.shape, source.dtypes[0])
    offset = _offset(source, grid)
    if offset is not None:
        row, column = offset
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + source.height, grid.height), min(column + source.width, grid.width)
        if top >= bottom or left >= right:
            raise _apart(path, grid, str(Grid.from_raster(path)))
        window = rasterio.windows.Window(left - column, top - row, right - left, bottom - top)
        values[top:bottom, left:right] = source.read(1, window=window)
        covered[top:bottom, left:right] = True
        return values, covered, ()
    if not resample:
        raise TruthError(
            f"{path}: lies on another grid than the scores ({grid}); warp it yourself with the rule that suits it, or "
            "ask for the nearest pixel (--resample), which moves outlines by up to half a pixel"
        )
    ones = np.ones((source.height, source.width), np.uint8)
    target = np.zeros(grid.shape, np.uint8)
    to = {"dst_transform": grid.affine, "dst_crs": grid.crs, "resampling": Resampling.nearest}
    rasterio.warp.reproject(ones, target, src_transform=source.transform, src_crs=source.crs, **to)
    covered = target > 0
    if not covered.any():
        raise _apart(path, grid, f"{source.bounds} in {source.crs}")
    # Without nodata on either side every value, -1 too, is carried over as it is.
    rasterio.warp.reproject(source.read(1), values, src_transform=source.transform, src_crs=source.crs, **to)
    return values, covered, ("resampled from another grid by the nearest pixel: outlines may be half a pixel off",)


def _offset(source: Any, grid: Grid) -> tuple[int, int] | None:
    """Row and column of the raster's corner in the grid, if its pixels are the grid's."""
    a, b, c, d, e, f = tuple(source.transform)[:6]
    height, width = grid.pixel_size
    same_crs = pyproj.CRS.from_user_input(source.crs.to_wkt()).equals(
        pyproj.CRS.from_user_input(grid.crs), ignore_axis_order=True
    )
    longest = max(source.height, source.width)
    if not same_crs or b or d or abs(a - width) * longest > ALIGNED_PX * width:
        return None
    if abs(-e - height) * longest > ALIGNED_PX * height:
        return None
    row, column = (grid.transform[5] - f) / height, (c - grid.transform[2]) / width
    if abs(row - round(row)) > ALIGNED_PX or abs(column - round(column)) > ALIGNED_PX:
        return None
    return round(row), round(column)


def _holds_dates(values: Array, nodata: float | None, description: str) -> bool:
    """Dates are whole days with -1 for none; what says so in its description, or has a number beyond a class."""
    if values.dtype != np.int32:
        return False
    if "days since 1970" in description:
        return True
    return bool(nodata == NO_DATE and (values >= NO_DATE).all() and values.max(initial=NO_DATE) not in (0, 1))


def _is_nodata(values: Array, nodata: float | None) -> BoolArray:
    missing = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)
    return missing if nodata is None or np.isnan(nodata) else missing | (values == nodata)


def _changed_values(path: Path, values: Array, known: BoolArray, named: Sequence[str]) -> BoolArray:
    held = np.unique(values[known])
    if named:
        try:
            wanted = [float(name) for name in named]
        except ValueError:
            raise TruthError(f"{path}: is a raster; changed values must be numbers, not {' '.join(named)}") from None
        if not np.isin(held, wanted).any() and held.size:
            shown = ", ".join(f"{value:g}" for value in held[:8])
            raise TruthError(f"{path}: no pixel has the changed value {' '.join(named)}; it holds {shown}")
        return np.isin(values, wanted)
    if not np.isin(held, (0, 1)).all():
        shown = ", ".join(f"{value:g}" for value in held[:8]) + (", ..." if held.size > 8 else "")
        raise TruthError(
            f"{path}: holds {shown}; expected 0 and 1, or dates (int32 days since 1970-01-01, nodata -1). "
            "Name the values that mean change, for instance --changed 255"
        )
    return np.asarray(values == 1)


# ---------------------------------------------------------------- vectors


def _read_vector(path: Path, grid: Grid, options: TruthOptions) -> Truth:
    frame = _open_vector(path, options)
    shapes = [None if shape is None or shape.is_empty else shape for shape in frame.geometry]
    kinds = {shape.geom_type for shape in shapes if shape is not None}
    points = bool(kinds) and kinds <= {"Point"}
    if kinds - {"Polygon", "MultiPolygon"} and not points:
        raise TruthError(f"{path}: holds {', '.join(sorted(kinds))}; keep polygons only, or points only")
    if points and options.class_field is None:
        raise TruthError(f"{path}: points need a field that says changed or not (--class-field NAME)")
    if not kinds and options.extent is None:
        raise TruthError(f"{path}: holds no feature; if nothing changed, say where that is known (--extent FILE)")
    changed = _classes(path, frame, options)
    spans = _spans(path, frame, options)
    placed = _project(shapes, frame.crs, grid, path)
    extent = _extent(options, grid)
    box = shapely.box(*grid.bounds)
    if not any(shape is not None and shape.intersects(box) for shape in placed) and (points or options.extent is None):
        bounds = shapely.total_bounds([shape for shape in placed if shape is not None])
        raise _apart(path, grid, f"{tuple(float(round(b, 3)) for b in bounds)} in the CRS of the scores")
    maps = _Burnt(grid)
    missed = 0
    # What is drawn later covers what was drawn before: unknown, unchanged, changed without date, late, early.
    order = sorted(range(len(placed)), key=lambda k: _drawing_order(changed[k], spans[k][0]))
    for k in order:
        shape = placed[k]
        if shape is not None and shape.intersects(box) and not maps.burn(shape, changed[k], spans[k]):
            missed += 1
    known = (maps.known if points else ~maps.unknown) & extent
    notes = []
    if missed:
        notes.append(f"{missed} features hold no pixel centre and are left out")
    if not points and options.extent is None:
        notes.append("no extent was given: everything outside the polygons is taken as unchanged")
    if options.date_field is not None and (maps.changed & (maps.earliest == NO_DATE) & known).any():
        notes.append("some changes have no date; they are taken to lie within the windows")
    kind: TruthKind = "points" if points else "polygons"
    return _truth(grid, maps.changed & known, known, maps.earliest, maps.latest, kind, path, tuple(notes))


class _Burnt:
    """Maps that features are drawn into, one after the other."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.changed, self.known, self.unknown = (np.zeros(grid.shape, np.bool_) for _ in range(3))
        self.earliest, self.latest = (np.full(grid.shape, NO_DATE, np.int32) for _ in range(2))

    def burn(self, shape: Any, changed: bool | None, span: tuple[int, int]) -> bool:
        """Draw one feature; whether it holds any pixel."""
        inside = rasterio.features.geometry_mask(
            [shape], out_shape=self._grid.shape, transform=self._grid.affine, invert=True
        )
        self.known[inside] = changed is not None
        self.unknown[inside] = changed is None
        self.changed[inside] = bool(changed)
        self.earliest[inside], self.latest[inside] = span if changed else (NO_DATE, NO_DATE)
        return bool(inside.any())


def _drawing_order(changed: bool | None, first_day: int) -> tuple[int, float]:
    return -1 if changed is None else int(changed), -float("inf") if first_day == NO_DATE else -first_day


def _open_vector(path: Path, options: TruthOptions) -> Any:
    import geopandas
    from pyogrio.errors import DataSourceError

    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, shapely.errors.GEOSException, ValueError) as error:
        raise TruthError(
            f"{path}: neither a raster nor a readable GeoJSON, Shapefile or GeoPackage ({_first_line(error)})"
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise TruthError(f"{path}: holds a table without geometry; give a file of polygons or points")
    if frame.crs is None:
        raise TruthError(f"{path}: has no CRS (a Shapefile needs its .prj file beside it); assign one and try again")
    for field in (options.class_field, options.date_field, options.last_date_field):
        if field is not None and field not in frame.columns:
            held = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name) or "none"
            raise TruthError(f"{path}: has no field {field!r}; its fields: {held}")
    if options.last_date_field is not None and options.date_field is None:
        raise TruthError(f"{path}: a field of last dates needs one of first dates beside it (--date-field)")
    return frame


def _classes(path: Path, frame: Any, options: TruthOptions) -> list[bool | None]:
    """Changed, unchanged or unknown, for each feature."""
    if options.class_field is None:
        return [True] * len(frame)
    found: list[bool | None] = []
    for value in frame[options.class_field]:
        if value is None or value != value:
            found.append(None)
            continue
        text = f"{value:g}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)
        text = text.strip()
        found.append(text in options.changed_values if options.changed_values else text not in ("", "0"))
    if options.changed_values and found and not any(found):
        raise TruthError(
            f"{path}: no feature has {' or '.join(options.changed_values)} in its field {options.class_field!r}"
        )
    return found


def _spans(path: Path, frame: Any, options: TruthOptions) -> list[tuple[int, int]]:
    """First and last possible day of each feature's change."""
    if options.date_field is None:
        return [(NO_DATE, NO_DATE)] * len(frame)
    firsts = [_days(path, options.date_field, value) for value in frame[options.date_field]]
    if options.last_date_field is None:
        return firsts
    lasts = [_days(path, options.last_date_field, value) for value in frame[options.last_date_field]]
    spans = []
    for first, last in zip(firsts, lasts, strict=True):
        if NO_DATE in (first[0], last[0]):
            spans.append((NO_DATE, NO_DATE))
        elif last[1] < first[0]:
            raise TruthError(
                f"{path}: a feature's {options.last_date_field} lies before its {options.date_field}; swap the fields"
            )
        else:
            spans.append((first[0], last[1]))
    return spans


def _days(path: Path, field: str, value: Any) -> tuple[int, int]:
    """First and last day that a date means: "2019" is a year, "2019-05" a month, "2019-05-03" a day."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return NO_DATE, NO_DATE
    try:
        if isinstance(value, dt.date) or hasattr(value, "to_datetime64"):
            stated = np.datetime64(getattr(value, "isoformat", lambda: value)()[:10])
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value).strip().replace("/", "-")
            stated = np.datetime64(text if len(text) <= 10 else text[:10])
    except (ValueError, TypeError):
        stated = np.datetime64("NaT")
    if np.isnat(stated):
        raise TruthError(f"{path}: field {field!r} holds {value!r}, no date; write YYYY, YYYY-MM or YYYY-MM-DD")
    first = stated.astype("datetime64[D]")
    last = (stated + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    return int(first.astype(np.int64)), int(last.astype(np.int64))


def _project(shapes: Sequence[Any], crs: Any, grid: Grid, path: Path) -> list[Any]:
    transformer = pyproj.Transformer.from_crs(crs, grid.crs, always_xy=True)
    placed: list[Any] = []
    for shape in shapes:
        if shape is None:
            placed.append(None)
            continue
        west, south, east, north = shape.bounds
        longest = max(east - west, north - south)
        # Straight edges in one CRS are curved in another.
        dense = shapely.segmentize(shape, longest / _EDGE_POINTS) if longest > 0 else shape
        moved = shapely.transform(dense, transformer.transform, interleaved=False)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise TruthError(f"{path}: a feature has no coordinates in {grid.crs}; check the CRS of the file")
        placed.append(shapely.make_valid(moved))
    return placed


# ---------------------------------------------------------------- common


def _extent(options: TruthOptions, grid: Grid) -> BoolArray:
    if options.extent is None:
        return np.ones(grid.shape, np.bool_)
    try:
        inside = read_aoi(options.extent).inside(grid)
    except AoiError as error:
        raise TruthError(f"extent {error}") from error
    if not inside.any():
        raise TruthError(f"extent {options.extent}: does not touch the scores ({grid}); check its CRS")
    return inside


def _truth(
    grid: Grid,
    changed: BoolArray,
    known: BoolArray,
    earliest: DaysArray,
    latest: DaysArray,
    kind: TruthKind,
    path: Path,
    notes: tuple[str, ...],
) -> Truth:
    return Truth(
        grid=grid, changed=changed, known=known, earliest=earliest, latest=latest, kind=kind, source=str(path),
        notes=notes,
    )  # fmt: skip


def _apart(path: Path, grid: Grid, where: str) -> TruthError:
    return TruthError(f"{path}: does not touch the scores: it lies at {where}, they are {grid}; check its CRS")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
