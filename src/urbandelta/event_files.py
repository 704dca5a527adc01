"""Events as files: GeoPackage and GeoParquet on the grid's own CRS, GeoJSON in degrees (RFC 7946).

All carry the properties of `PROPERTIES`, in the order of the events. A file is composed in memory, compared with the
one that is there, and renamed into place only if it differs: unchanged events leave an unchanged file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyproj
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from urbandelta.cog import write_whole
from urbandelta.errors import EventError, ProductError
from urbandelta.events import AlertStatus, Event, EventOptions
from urbandelta.grid import Grid

__all__ = [
    "FILE_NAMES",
    "FORMATS",
    "PROPERTIES",
    "EventFormat",
    "feature",
    "gfw_code",
    "provenance_of_events",
    "read_events",
    "to_degrees",
    "write_event_file",
    "write_events",
]

EventFormat: TypeAlias = Literal["gpkg", "geoparquet", "geojson"]
FORMATS: tuple[EventFormat, ...] = get_args(EventFormat)
FILE_NAMES: Mapping[EventFormat, str] = {
    "gpkg": "events.gpkg",
    "geoparquet": "events.parquet",
    "geojson": "events.geojson",
}
_LAYER = "events"
_DIGITS = 7
"""Decimals of a degree: a centimetre."""
_GFW_EPOCH = np.datetime64("2014-12-31", "D")
# A GeoPackage notes when it was last changed; the moment of writing would make every file differ from the last.
_NO_MOMENT = "1970-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Property:
    """One column of the files."""

    name: str
    kind: Literal["text", "integer", "real", "date"]
    description: str
    of: Callable[[Event], Any]


def gfw_code(event: Event) -> int | None:
    """Alert as Global Forest Watch codes it: 2 (low) or 3 (high), then days since 2014-12-31; None before 2015."""
    days = int((event.first_date - _GFW_EPOCH) / np.timedelta64(1, "D"))
    return (30_000 if event.confidence == "high" else 20_000) + days if 0 < days < 10_000 else None


PROPERTIES: tuple[Property, ...] = (
    Property("id", "text", "identifier, the same in every update", lambda e: e.id),
    Property(
        "status", "integer", "1-3 first/provisional/confirmed low, 4-6 high, 7/8 finished", lambda e: int(e.status)
    ),
    Property("stage", "text", "first, provisional, confirmed or finished", lambda e: e.stage),
    Property("confidence", "text", "low or high", lambda e: e.confidence),
    Property("first_date", "date", "estimated day on which the change began", lambda e: e.first_date),
    Property("first_low", "date", "lower bound of its 90 % interval", lambda e: e.first_low),
    Property("first_high", "date", "upper bound of its 90 % interval", lambda e: e.first_high),
    Property(
        "last_date", "date", "estimated day from which the ground looks as it does afterwards", lambda e: e.last_date
    ),
    Property("last_low", "date", "lower bound of its 90 % interval", lambda e: e.last_low),
    Property("last_high", "date", "upper bound of its 90 % interval", lambda e: e.last_high),
    Property("duration_days", "integer", "last_date minus first_date, days", lambda e: e.duration_days),
    Property("dated_by", "text", "what these dates rest on: observations, or scores alone", lambda e: e.dated_by),
    Property("area_m2", "real", "area on the ground, square metres", lambda e: e.area_m2),
    Property("peak", "real", "highest score, 0..1", lambda e: e.peak),
    Property("mean", "real", "mean over the pixels of their highest scores, 0..1", lambda e: e.mean),
    Property("spread", "real", "standard deviation across an ensemble, null without one", lambda e: e.spread),
    Property("n_obs", "integer", "steps of the window with the highest score", lambda e: e.n_obs),
    Property(
        "windows", "integer", "windows from the first to the last that reaches the threshold", lambda e: e.windows
    ),
    Property("gfw", "integer", "Global Forest Watch code: 2 low or 3 high, then days since 2014-12-31", gfw_code),
)


def provenance_of_events(scores: xr.Dataset, options: EventOptions) -> dict[str, Any]:
    """What events come from: weights, era, version and options; nothing that changes with every update."""
    kept = ("weights_name", "weights_sha256", "era", "version", "substitutions", "rule", "members")
    known = {name: scores.attrs[name] for name in kept if name in scores.attrs}
    return {**known, "options": asdict(options)}


def write_events(
    events: Sequence[Event],
    folder: str | Path,
    *,
    formats: Iterable[str] = FORMATS,
    grid: Grid,
    provenance: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write events into a folder, one file a format; files that hold the same already are left alone.

    Parameters
    ----------
    events : sequence of Event
    folder : path
        Made if absent. The files are called `events.gpkg`, `events.parquet` and `events.geojson`.
    formats : iterable of str
        Of "gpkg", "geoparquet" and "geojson".
    grid : Grid
        Whose CRS the events' outlines are in.
    provenance : mapping, optional
        JSON values that say where the events come from; written into each file.

    Returns
    -------
    list of Path
        All files of these formats, whether written now or left alone.

    Raises
    ------
    EventError
        If a format is unknown or a file cannot be written.
    """
    folder = Path(folder)
    wanted = list(formats)
    unknown = sorted(set(wanted) - set(FORMATS))
    if unknown:
        raise EventError(f"unknown format {', '.join(unknown)}; events are written as {', '.join(FORMATS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EventError(f"{folder}: cannot make this folder ({error.strerror}); choose another") from error
    paths = []
    for name in FORMATS:
        if name in wanted:
            paths.append(folder / FILE_NAMES[name])
            write_event_file(events, paths[-1], grid=grid, provenance=provenance)
    return paths


def write_event_file(
    events: Sequence[Event], path: Path, *, grid: Grid, provenance: Mapping[str, Any] | None = None
) -> bool:
    """Write one file, its format told by its ending; returns whether it changed.

    Raises
    ------
    EventError
        If the ending is none of .gpkg, .parquet, .geojson and .json, or the file cannot be written.
    """
    composed = _COMPOSERS[_format_of(path)](events, grid, _text(dict(sorted((provenance or {}).items()))))
    try:
        if path.exists() and path.read_bytes() == composed:
            return False
        write_whole(path, composed)
    except (OSError, ProductError) as error:
        raise EventError(str(error)) from error
    return True


def read_events(path: str | Path) -> list[Event]:
    """Read the events of a file that `write_events` wrote; outlines are in the file's CRS.

    Raises
    ------
    EventError
        If there is no such file, or it holds something else.
    """
    path = Path(path)
    kind = _format_of(path)
    if not path.is_file():
        raise EventError(f"{path}: no such file; `urbandelta events` writes one")
    try:
        rows = _READERS[kind](path)
        return [_event(values, geometry) for values, geometry in rows]
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise EventError(f"{path}: does not hold events of urbandelta ({error}); write it again") from error


# ---------------------------------------------------------------- GeoJSON


def to_degrees(geometry: BaseGeometry, crs: str) -> BaseGeometry:
    """An outline in longitude and latitude as RFC 7946 wants it: rings by the right-hand rule, cut at 180 degrees."""
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    degrees = shapely.transform(geometry, transformer.transform, interleaved=False)
    west, _, east, _ = degrees.bounds
    if east - west > 180:  # no outline is that wide: it lies on both sides of the antimeridian
        moved = shapely.transform(degrees, lambda lon, lat: (np.where(lon < 0, lon + 360, lon), lat), interleaved=False)
        parts = [shapely.intersection(moved, shapely.box(low, -90, low + 180, 90)) for low in (0, 180)]
        parts[1] = shapely.transform(parts[1], lambda lon, lat: (lon - 360, lat), interleaved=False)
        degrees = shapely.union_all(parts)
    rounded = shapely.transform(degrees, lambda points: np.round(points, _DIGITS))
    return shapely.orient_polygons(rounded, exterior_cw=False)


def feature(event: Event, crs: str) -> dict[str, Any]:
    """One event as a GeoJSON feature."""
    properties = {item.name: _json_value(item.of(event)) for item in PROPERTIES}
    geometry = json.loads(shapely.to_geojson(to_degrees(event.geometry, crs)))
    return {"type": "Feature", "id": event.id, "geometry": geometry, "properties": properties}


def _compose_geojson(events: Sequence[Event], grid: Grid, provenance: str) -> bytes:
    # One feature a line: readable, and two versions can be compared line by line.
    features = ",\n".join(_text(feature(event, grid.crs)) for event in events)
    head = f'{{"type":"FeatureCollection","provenance":{provenance},"features":['
    return f"{head}\n{features}\n]}}\n".encode()


def _read_geojson(path: Path) -> list[tuple[dict[str, Any], BaseGeometry]]:
    collection = json.loads(path.read_text("utf-8"))
    return [(item["properties"], shapely.geometry.shape(item["geometry"])) for item in collection["features"]]


# ---------------------------------------------------------------- GeoPackage


def _compose_gpkg(events: Sequence[Event], grid: Grid, provenance: str) -> bytes:
    import pyogrio

    columns, masks = [], []
    for item in PROPERTIES:
        values = [item.of(event) for event in events]
        missing = np.array([value is None for value in values], bool)
        blank = _BLANKS[item.kind]
        filled = [blank if value is None else value for value in values]
        columns.append(np.array(filled, dtype=_DTYPES[item.kind]))
        masks.append(missing if missing.any() else None)
    target = io.BytesIO()
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _NO_MOMENT})
    try:
        pyogrio.raw.write(
            target,
            geometry=shapely.to_wkb([_multi(event.geometry) for event in events]),
            field_data=columns,
            fields=[item.name for item in PROPERTIES],
            field_mask=masks,
            layer=_LAYER,
            driver="GPKG",
            geometry_type="MultiPolygon",
            crs=grid.crs,
            layer_metadata={"provenance": provenance, "properties": _text(_descriptions())},
            # Readers of Debian 12's age, such as QGIS 3.22, warn about 1.4.
            dataset_options={"VERSION": "1.3"},
        )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
    return target.getvalue()


def _read_gpkg(path: Path) -> list[tuple[dict[str, Any], BaseGeometry]]:
    import pyogrio

    meta, _, geometry, columns = pyogrio.raw.read(path, layer=_LAYER)
    names = [str(name) for name in meta["fields"]]
    _require_columns(names)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    outlines = shapely.from_wkb(geometry)
    return [(dict(zip(names, row, strict=True)), _single(shape)) for row, shape in zip(rows, outlines, strict=True)]


# ---------------------------------------------------------------- GeoParquet


def _compose_parquet(events: Sequence[Event], grid: Grid, provenance: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "integer": pa.int32(), "real": pa.float64(), "date": pa.date32()}
    fields = [pa.field(i.name, types[i.kind], metadata={"description": i.description}) for i in PROPERTIES]
    columns = [pa.array([_python(i.of(event)) for event in events], types[i.kind]) for i in PROPERTIES]
    fields.append(pa.field("geometry", pa.binary()))
    columns.append(pa.array([shapely.to_wkb(event.geometry) for event in events], pa.binary()))
    column = {
        "encoding": "WKB",
        "geometry_types": sorted({event.geometry.geom_type for event in events}),
        "crs": pyproj.CRS.from_user_input(grid.crs).to_json_dict(),
    }
    if events:
        column["bbox"] = [float(v) for v in shapely.total_bounds([event.geometry for event in events])]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = pa.schema(fields, metadata={"geo": _text(geo), "provenance": provenance})
    target = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), target, compression="zstd")
    return bytes(target.getvalue().to_pybytes())


def _read_parquet(path: Path) -> list[tuple[dict[str, Any], BaseGeometry]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    _require_columns(table.column_names)
    return [(row, shapely.from_wkb(row.pop("geometry"))) for row in table.to_pylist()]


# ---------------------------------------------------------------- values

_COMPOSERS: Mapping[EventFormat, Callable[[Sequence[Event], Grid, str], bytes]] = {
    "gpkg": _compose_gpkg,
    "geoparquet": _compose_parquet,
    "geojson": _compose_geojson,
}
_READERS: Mapping[EventFormat, Callable[[Path], list[tuple[dict[str, Any], BaseGeometry]]]] = {
    "gpkg": _read_gpkg,
    "geoparquet": _read_parquet,
    "geojson": _read_geojson,
}
_ENDINGS: Mapping[str, EventFormat] = {
    ".gpkg": "gpkg",
    ".parquet": "geoparquet",
    ".geoparquet": "geoparquet",
    ".geojson": "geojson",
    ".json": "geojson",
}
_DTYPES: Mapping[str, Any] = {"text": object, "integer": np.int32, "real": np.float64, "date": "datetime64[D]"}
_BLANKS: Mapping[str, Any] = {"text": "", "integer": 0, "real": np.nan, "date": np.datetime64("NaT", "D")}


def _format_of(path: Path) -> EventFormat:
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise EventError(f"{path}: events are files that end in {', '.join(_ENDINGS)}; give one of these")
    return kind


_LATER = frozenset({"dated_by"})
"""Columns that files of earlier versions lack."""


def _require_columns(names: Iterable[str]) -> None:
    missing = sorted({item.name for item in PROPERTIES} - set(names) - _LATER)
    if missing:
        raise KeyError(f"no {missing[0]}")


def _event(values: Mapping[str, Any], geometry: BaseGeometry) -> Event:
    def day(name: str) -> np.datetime64:
        return np.datetime64(values[name], "D")

    spread = values["spread"]
    return Event(
        id=str(values["id"]),
        geometry=geometry,
        first_date=day("first_date"),
        first_low=day("first_low"),
        first_high=day("first_high"),
        last_date=day("last_date"),
        last_low=day("last_low"),
        last_high=day("last_high"),
        area_m2=float(values["area_m2"]),
        peak=float(values["peak"]),
        mean=float(values["mean"]),
        spread=None if spread is None or np.isnan(spread) else float(spread),
        n_obs=int(values["n_obs"]),
        windows=int(values["windows"]),
        status=AlertStatus(int(values["status"])),
        dated_by="observations" if values.get("dated_by") == "observations" else "scores",
    )


def _descriptions() -> dict[str, str]:
    return {item.name: item.description for item in PROPERTIES}


def _multi(geometry: BaseGeometry) -> BaseGeometry:
    """One type for the whole layer, as the format wants it."""
    return geometry if geometry.geom_type == "MultiPolygon" else shapely.MultiPolygon([geometry])


def _single(geometry: BaseGeometry) -> BaseGeometry:
    return geometry.geoms[0] if len(geometry.geoms) == 1 else geometry


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, np.datetime64) else value


def _text(value: Any) -> str:
    """JSON on one line, keys in the order they come in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
