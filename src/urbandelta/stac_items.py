"""A folder of rasters as a STAC 1.1 collection: one item a month, and one for what all months together say.

Links are relative, so the folder can be moved or put on a web server as it is. Everything is read from the rasters
themselves; a document that would say the same is not written again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
import xarray as xr
from rasterio.io import DatasetReader

from urbandelta.cartography import MapFrame
from urbandelta.cog import write_whole
from urbandelta.errors import ProductError
from urbandelta.events import AlertStatus
from urbandelta.figures import SCORE_COLOURS
from urbandelta.grid import Grid
from urbandelta.products import ExportReport, grid_of
from urbandelta.rasters import STATUS_COLOURS, STATUS_MEANINGS

__all__ = ["write_stac"]

STAC_VERSION = "1.1.0"
_EXTENSIONS = {
    "classification": "v2.0.0",
    "file": "v2.1.0",
    "processing": "v1.2.0",
    "projection": "v2.0.0",
    "raster": "v2.0.0",
    "render": "v2.0.0",
}
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_MONTH = re.compile(r"score_(\d{4}-\d{2})")
_SHA256_MULTIHASH = "1220"
"""Multihash prefix: SHA-256, 32 bytes."""
_EVENT_TYPES = {
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
}


def write_stac(
    scores: xr.Dataset,
    rasters: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str,
    title: str = "",
    platforms: Sequence[str] = (),
    events: Sequence[Path] = (),
) -> ExportReport:
    """Describe a folder of rasters, as `rasters.write_rasters` leaves it.

    Parameters
    ----------
    scores : xarray.Dataset
        Those that the rasters show.
    rasters : path
        Folder of the rasters.
    folder : path
        Where `collection.json` and a folder of items go; made if absent.
    name : str
        Id of the collection.
    title : str
    platforms : sequence of str
        Satellites whose images are in the scores.
    events : sequence of path
        Files of events, which become assets of the collection.

    Raises
    ------
    ProductError
        If there is no raster, or something cannot be written.
    """
    rasters, folder = Path(rasters), Path(folder)
    found = {path.stem: path for path in sorted(rasters.glob("*.tif"))}
    if not found:
        raise ProductError(f"{rasters}: holds no rasters; write them first (`urbandelta export SCORES --set --to DIR`)")
    items_folder = folder / "items"
    try:
        items_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProductError(f"{folder}: cannot make this folder ({error.strerror}); choose another") from error
    grid = grid_of(scores)
    items = list(_items(found, items_folder, name, scores, grid, platforms))
    wanted = {f"{item['id']}.json": item for item in items}
    written: list[Path] = []
    kept: list[Path] = []
    for file_name, item in wanted.items():
        _put(items_folder / file_name, item, written, kept)
    collection = _collection(folder, name, title, items, scores, grid, platforms, events)
    _put(folder / "collection.json", collection, written, kept)
    # An item of a raster that is gone would point nowhere.
    for stale in items_folder.glob("*.json"):
        if stale.name not in wanted:
            stale.unlink()
    return ExportReport(tuple(written), tuple(kept))


def _items(
    found: Mapping[str, Path],
    folder: Path,
    name: str,
    scores: xr.Dataset,
    grid: Grid,
    platforms: Sequence[str],
) -> Iterator[dict[str, Any]]:
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    pixel_m = _pixel_m(grid)
    summaries = {stem: path for stem, path in found.items() if not _MONTH.fullmatch(stem)}
    groups: list[tuple[str, np.datetime64, np.datetime64, Mapping[str, Path]]] = []
    if summaries:
        groups.append((f"{name}-overall", start, end, summaries))
    for stem, path in found.items():
        if (match := _MONTH.fullmatch(stem)) is not None:
            month = np.datetime64(match[1], "M")
            last = (month + 1).astype("datetime64[s]") - np.timedelta64(1, "s")
            groups.append((f"{name}-{match[1]}", month.astype("datetime64[s]"), last, {"score": path}))
    for identifier, first, last, paths in groups:
        assets = {stem: _asset(path, folder, pixel_m) for stem, path in paths.items()}
        # As of the run that last changed the rasters: an item of an old month stays as it is.
        provenance = _tags(next(iter(paths.values())))
        yield {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": _extensions(
                *(("classification",) if any("classification:classes" in asset for asset in assets.values()) else ()),
                *("file", "processing", "projection", "raster"),
            ),
            "id": identifier,
            "geometry": shapely.geometry.mapping(_footprint(grid)),
            "bbox": _bbox(grid),
            "properties": {
                "datetime": None,
                "start_datetime": _text(first),
                "end_datetime": _text(last),
                "gsd": pixel_m,
                **({"platform": ", ".join(platforms)} if platforms else {}),
                **_projection(grid),
                "processing:level": "L4",
                **({"processing:software": {"urbandelta": version}} if (version := provenance.get("version")) else {}),
                "processing:lineage": _lineage(provenance),
            },
            "links": [
                {"rel": "root", "href": "../collection.json", "type": "application/json"},
                {"rel": "parent", "href": "../collection.json", "type": "application/json"},
                {"rel": "collection", "href": "../collection.json", "type": "application/json"},
                *_derived_from(provenance),
            ],
            "assets": assets,
            "collection": name,
        }


def _asset(path: Path, folder: Path, pixel_m: float) -> dict[str, Any]:
    content = path.read_bytes()
    with rasterio.open(path) as source:
        description, tags = source.descriptions[0] or path.stem, source.tags()
        band: dict[str, Any] = {"name": path.stem, "description": description}
        asset: dict[str, Any] = {
            "href": os.path.relpath(path, folder),
            "type": _COG,
            "title": description,
            "roles": ["data"],
            "data_type": source.dtypes[0],
            **({"nodata": "nan" if np.isnan(source.nodata) else source.nodata} if source.nodata is not None else {}),
            **({"unit": tags["units"]} if "units" in tags else {}),
            **({"statistics": statistics} if (statistics := _statistics(source)) else {}),
            "bands": [band],
            "raster:sampling": "area",
            "raster:spatial_resolution": pixel_m,
            "file:size": len(content),
            "file:checksum": _SHA256_MULTIHASH + hashlib.sha256(content).hexdigest(),
        }
    if path.stem == "status":
        asset["classification:classes"] = [_class(value, meaning) for value, meaning in STATUS_MEANINGS.items()]
        asset["roles"] = ["data", "classification"]
    return asset


def _tags(path: Path) -> Mapping[str, str]:
    with rasterio.open(path) as source:
        tags: Mapping[str, str] = source.tags()
    return tags


def _class(value: int, meaning: str) -> dict[str, Any]:
    colour = STATUS_COLOURS[AlertStatus(value)]
    shown = {"color_hint": "{:02X}{:02X}{:02X}".format(*colour[:3])} if colour[3] else {}
    return {"value": value, "name": meaning, "description": meaning.replace("_", ", "), **shown}


def _statistics(source: DatasetReader) -> dict[str, float]:
    tags = source.tags(1)
    names = ("minimum", "maximum", "mean", "stddev", "valid_percent")
    stored = {name: tags.get(f"STATISTICS_{name.upper()}") for name in names}
    return {name: float(value) for name, value in stored.items() if value is not None}


def _collection(
    folder: Path,
    name: str,
    title: str,
    items: Sequence[Mapping[str, Any]],
    scores: xr.Dataset,
    grid: Grid,
    platforms: Sequence[str],
    events: Sequence[Path],
) -> dict[str, Any]:
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    assets = {
        f"events-{path.suffix[1:]}": {
            "href": os.path.relpath(path, folder),
            "type": _EVENT_TYPES.get(path.suffix, "application/octet-stream"),
            "title": "events",
            "roles": ["data"],
        }
        for path in events
        if path.exists()
    }
    code = _projection(grid)["proj:code"]
    summaries = {
        **({"proj:code": [code]} if code else {}),
        **({"platform": sorted(platforms)} if platforms else {}),
    }
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": _extensions(*(("projection",) if code else ()), "render"),
        "id": name,
        "title": title or name,
        "description": "Urban change from radar and optical time series: scores of a recurrent network (0..1, not "
        "probabilities), their dates, and events. A score speaks for a window of half a year or a year and is credited "
        "to its middle.",
        "license": "other",
        "keywords": ["urban change", "change detection", "time series", "Sentinel-1", "Sentinel-2", "ERS", "Landsat"],
        "extent": {
            "spatial": {"bbox": [_bbox(grid)]},
            "temporal": {"interval": [[_text(start), _text(end)]]},
        },
        **({"summaries": summaries} if summaries else {}),
        # What an asset of this name is in every item; the render extension asks for it.
        "item_assets": {
            name: {"type": asset["type"], "title": asset["title"], "roles": asset["roles"]}
            for item in reversed(items)
            for name, asset in sorted(item["assets"].items())
        },
        "renders": {
            "score": {
                "title": "score",
                "assets": ["score"],
                "rescale": [[0, 1]],
                "colormap_name": SCORE_COLOURS,
                "resampling": "nearest",
            }
        },
        **({"assets": assets} if assets else {}),
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *({"rel": "item", "href": f"./items/{item['id']}.json", "type": "application/geo+json"} for item in items),
        ],
    }


def _extensions(*names: str) -> list[str]:
    return [f"https://stac-extensions.github.io/{name}/{_EXTENSIONS[name]}/schema.json" for name in names]


def _pixel_m(grid: Grid) -> float:
    """Side in metres of a square as large as a pixel (of the middle row, where the grid is in degrees)."""
    crs = pyproj.CRS(grid.crs)
    if crs.is_geographic:
        frame = MapFrame(grid)
        return math.sqrt(frame.width_m / grid.width * frame.height_m / grid.height)
    height, width = grid.pixel_size
    return math.sqrt(height * width) * float(crs.axis_info[0].unit_conversion_factor)


def _projection(grid: Grid) -> dict[str, Any]:
    code: dict[str, Any] = {"proj:code": grid.crs}
    if not grid.crs.startswith("EPSG:"):
        crs = pyproj.CRS(grid.crs)
        code = {"proj:code": None, "proj:wkt2": crs.to_wkt("WKT2_2019"), "proj:projjson": crs.to_json_dict()}
    return {**code, "proj:shape": list(grid.shape), "proj:transform": [*grid.transform, 0.0, 0.0, 1.0]}


def _lineage(provenance: Mapping[str, str]) -> str:
    weights = f"{provenance.get('weights_name', 'unknown')} (SHA-256 {provenance.get('weights_sha256', 'unknown')})"
    return f"urbandelta predict with weights {weights} on cube snapshot {provenance.get('cube_snapshot', 'unknown')}"


def _derived_from(provenance: Mapping[str, str]) -> list[dict[str, str]]:
    url = provenance.get("cube_url", "")
    if not url:
        return []
    href = url if "://" in url else Path(url).absolute().as_uri()
    return [{"rel": "derived_from", "href": href, "title": f"cube at snapshot {provenance.get('cube_snapshot', '')}"}]


def _footprint(grid: Grid) -> shapely.Polygon:
    frame, (height, width) = MapFrame(grid), grid.shape
    corners = [(height - 0.5, -0.5), (height - 0.5, width - 0.5), (-0.5, width - 0.5), (-0.5, -0.5)]
    return shapely.Polygon([frame.lonlat(row, column) for row, column in corners])


def _bbox(grid: Grid) -> list[float]:
    return [round(float(value), 7) for value in _footprint(grid).bounds]


def _text(moment: np.datetime64) -> str:
    return f"{np.datetime_as_string(moment, unit='s')}Z"


def _put(path: Path, document: Mapping[str, Any], written: list[Path], kept: list[Path]) -> None:
    content = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    if path.exists() and path.read_bytes() == content:
        kept.append(path)
        return
    write_whole(path, content)
    written.append(path)
