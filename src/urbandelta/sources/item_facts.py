"""What a STAC item says about itself, whoever published it: time, satellite, orbit, baseline, encoding of its assets.

Archives name the same facts differently and leave some out; this module reads them all into one form and decides
scale and offset by the item's own metadata, never by its date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from urbandelta.errors import SourceError
from urbandelta.sources.archives import Collection
from urbandelta.types import OrbitState

_ORBITS: Mapping[str, OrbitState] = {"ascending": "ascending", "descending": "descending"}
_MISSION = re.compile(r"sentinel[-_ ]?(\d)[-_ ]?([a-z])", re.IGNORECASE)
_TRACK = re.compile(r"_R(\d{3})_")
_BASELINE = re.compile(r"_N(\d{2})(\d{2})_")
_TILE = re.compile(r"_T(\d{2}[A-Z]{3})(?:_|$)")
_STRIP = re.compile(r"_S(\d{8}T\d{6})")
_FIRST_WITH_OFFSET = 4.0
_LEAST_METRES = 0.1
_SAME_FOOTPRINT = 0.7
_MSI_SCALE, _MSI_OFFSET = 1e-4, -0.1


@dataclass(frozen=True, kw_only=True)
class AssetFacts:
    """One band of one file: physical = raw * scale + offset, where it is declared."""

    href: str
    band: int = 1
    scale: float | None = None
    offset: float | None = None
    size: int | None = None
    shape: tuple[int, int] | None = None
    pixel_m: float | None = None

    @property
    def origin(self) -> str:
        """Address without its query, which may hold a signature."""
        return without_query(self.href)


@dataclass(frozen=True, kw_only=True)
class ItemFacts:
    """What one item says; empty values where it says nothing.

    `offset_applied` is whether the provider says to have subtracted baseline 04.00's offset already.
    """

    item_id: str
    time: np.datetime64
    platform: str = ""
    relative_orbit: int = -1
    orbit_state: OrbitState = ""
    baseline: str = ""
    level: str = ""
    tile: str = ""
    strip: str = ""
    cloud: float | None = None
    updated: str = ""
    offset_applied: bool | None = None
    geometry: BaseGeometry | None = None
    assets: Mapping[str, AssetFacts] = field(default_factory=dict)

    def missing(self, bands: Sequence[str]) -> list[str]:
        """Bands that it lacks."""
        return [band for band in bands if band not in self.assets]


@dataclass(frozen=True)
class Radiometry:
    """How the raw numbers of an asset become physical, and which metadata said so; None leaves it to the file."""

    scale: float | None
    offset: float | None
    rule: str


def read_item(item: Mapping[str, Any], collection: Collection, bands: Sequence[str], *, href: str = "") -> ItemFacts:
    """Facts of a STAC item.

    Parameters
    ----------
    item : mapping
        The item's JSON, of any STAC version since 0.9.
    collection : Collection
        Which asset holds which band.
    bands : sequence of str
        Bands of the stream, in order; the masks' bands are read as well.
    href : str
        Address of the item, against which relative asset addresses are resolved.

    Raises
    ------
    SourceError
        If it is no item, or has no time.
    """
    item_id = str(item.get("id", ""))
    properties = item.get("properties")
    if not item_id or not isinstance(properties, Mapping):
        raise SourceError(f"{without_query(href) or 'catalogue'}: {str(item)[:60]!r} is no STAC item")
    names = f"{properties.get('s2:product_uri', '')} {item_id}"
    base = href or next((str(link.get("href", "")) for link in item.get("links", []) if link.get("rel") == "self"), "")
    return ItemFacts(
        item_id=item_id,
        time=_time(properties, item_id),
        platform=platform_name(str(properties.get("platform") or "")),
        relative_orbit=_relative_orbit(properties, names),
        orbit_state=_ORBITS.get(str(properties.get("sat:orbit_state") or "").lower(), ""),
        baseline=_baseline(properties, names),
        level=_level(properties),
        tile=_tile(properties, names),
        strip=_found(_STRIP, str(properties.get("s2:datastrip_id") or "")),
        cloud=_number(properties.get("eo:cloud_cover")),
        updated=str(properties.get("updated") or properties.get("created") or properties.get("published") or ""),
        offset_applied=_offset_applied(properties),
        geometry=_geometry(item),
        assets=_assets(item, collection, bands, base),
    )


def radiometry(item: ItemFacts, asset: AssetFacts, collection: Collection) -> Radiometry:
    """Scale and offset of an asset's raw numbers.

    Sentinel-2 (`offset_rule` "sentinel-2"): an offset that the provider says to have applied is gone; below baseline
    04.00 there never was one, whatever the catalogue's template says; from 04.00 on it is the declared one, else -0.1.
    Anything else: as declared, else by the table, else by the file.
    """
    if collection.offset_rule != "sentinel-2" or not item.baseline:
        scale = asset.scale if asset.scale is not None else collection.scale
        if scale is None and asset.offset is None:
            return Radiometry(None, None, "the file")
        applied = item.offset_applied is True
        return Radiometry(scale if scale is not None else 1.0, 0.0 if applied else asset.offset or 0.0, "declared")
    scale = asset.scale or collection.scale or _MSI_SCALE
    if item.offset_applied:
        return Radiometry(scale, 0.0, f"baseline {item.baseline}, offset applied by the provider")
    if float(item.baseline) < _FIRST_WITH_OFFSET:
        return Radiometry(scale, 0.0, f"baseline {item.baseline}, before the offset")
    if asset.offset is not None:
        return Radiometry(scale, asset.offset, f"baseline {item.baseline}, offset declared by the item")
    return Radiometry(scale, _MSI_OFFSET, f"baseline {item.baseline}, offset of the baseline")


def distinct_items(items: Iterable[ItemFacts]) -> tuple[list[ItemFacts], list[ItemFacts]]:
    """Leave one item of each acquisition of a tile, as archives keep old and new processings of it side by side.

    Of items of one satellite, orbit, tile and strip, at most a minute apart (without tiles, 3 s and of about the same
    footprint, as bursts follow each other so closely), the one of the newest baseline is kept; of equal ones the one
    updated last, then the last by name.

    Returns
    -------
    kept, dropped : list of ItemFacts
        Both in order of time.
    """
    groups: dict[tuple[object, ...], list[list[ItemFacts]]] = {}
    for item in sorted(items, key=lambda item: (item.time, item.item_id)):
        key = (item.platform, item.relative_orbit, item.orbit_state, item.tile, item.strip)
        limit = np.timedelta64(60 if item.tile else 3, "s")
        runs = groups.setdefault(key, [])
        near = (run for run in reversed(runs) if item.time - run[0].time <= limit and _same_place(item, run[0]))
        run = next(near, None)
        if run is None:
            runs.append([item])
        else:
            run.append(item)
    kept: list[ItemFacts] = []
    dropped: list[ItemFacts] = []
    for run in (run for runs in groups.values() for run in runs):
        *older, newest = sorted(run, key=lambda item: (item.baseline, item.updated, item.item_id))
        kept.append(newest)
        dropped += older
    return sorted(kept, key=_order), sorted(dropped, key=_order)


def platform_name(text: str) -> str:
    """`S1A` for all spellings of Sentinel-1A; other satellites as they are called."""
    match = _MISSION.fullmatch(text.strip())
    return f"S{match[1]}{match[2].upper()}" if match else text


def without_query(href: str) -> str:
    """An address without query and user, which may hold secrets."""
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_time(text: str) -> np.datetime64:
    """RFC 3339 and its common variants, to UTC; raises `ValueError`."""
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "ns")


def _same_place(one: ItemFacts, other: ItemFacts) -> bool:
    if one.tile or one.geometry is None or other.geometry is None:
        return True
    shared = one.geometry.intersection(other.geometry).area
    return bool(shared > _SAME_FOOTPRINT * min(one.geometry.area, other.geometry.area))


def _order(item: ItemFacts) -> tuple[np.datetime64, str]:
    return item.time, item.item_id


def _time(properties: Mapping[str, Any], item_id: str) -> np.datetime64:
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        return parse_time(str(text))
    except ValueError:
        raise SourceError(f"{item_id}: has no time ({text!r})") from None


def _relative_orbit(properties: Mapping[str, Any], names: str) -> int:
    number = _number(properties.get("sat:relative_orbit"))
    if number is not None:
        return int(number)
    return int(_found(_TRACK, names) or -1)


def _baseline(properties: Mapping[str, Any], names: str) -> str:
    text = str(properties.get("s2:processing_baseline") or properties.get("sentinel:processing_baseline") or "")
    if not text and (match := _BASELINE.search(names)):
        text = f"{match[1]}.{match[2]}"
    if not text and str(properties.get("constellation", "")).lower() == "sentinel-2":
        text = str(properties.get("processing:version") or "")
    number = _number(text)
    return "" if number is None else f"{number:05.2f}"


def _level(properties: Mapping[str, Any]) -> str:
    kind = str(properties.get("s2:product_type") or properties.get("product:type") or "").upper()
    if kind in ("S2MSI1C", "S2MSI2A"):
        return {"S2MSI1C": "L1C", "S2MSI2A": "L2A"}[kind]
    # "L1" alone says nothing about radar: GRD and SLC are both.
    level = str(properties.get("sar:product_type") or properties.get("processing:level") or "").upper()
    return level if level in ("GRD", "RTC", "L1C", "L2A") else ""


def _tile(properties: Mapping[str, Any], names: str) -> str:
    code = str(properties.get("grid:code") or properties.get("s2:mgrs_tile") or properties.get("s2:tile_id") or "")
    return code.removeprefix("MGRS-") or _found(_TILE, names)


def _offset_applied(properties: Mapping[str, Any]) -> bool | None:
    for name in ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied", "s2:boa_offset_applied"):
        if name in properties:
            return str(properties[name]).lower() == "true"
    return None


def _geometry(item: Mapping[str, Any]) -> BaseGeometry | None:
    try:
        if item.get("geometry"):
            return shapely.make_valid(shapely.geometry.shape(item["geometry"]))
        if item.get("bbox"):
            box = [float(value) for value in item["bbox"]]
            return shapely.box(box[0], box[1], box[len(box) // 2], box[len(box) // 2 + 1])
    except (ShapelyError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    return None


def _assets(item: Mapping[str, Any], collection: Collection, bands: Sequence[str], base: str) -> dict[str, AssetFacts]:
    listed = item.get("assets")
    if not isinstance(listed, Mapping):
        return {}
    wanted = {band: collection.assets.get(band, ()) for band in bands}
    wanted |= {rule.band: collection.mask_assets.get(rule.band, ()) for rule in collection.masks}
    found = {}
    for band, keys in wanted.items():
        place = _place(listed, band, keys)
        if place is not None:
            found[band] = _asset(listed[place[0]], place[1], item, base)
    return found


def _place(listed: Mapping[str, Any], band: str, keys: Sequence[str]) -> tuple[str, int] | None:
    """Asset and band in it: the first known key; with no key known, the asset or the band of an asset of that name."""
    for key in keys:
        name, _, number = key.partition("#")
        if name in listed:
            return name, int(number or _band_number(listed[name], band) or 1)
    for key, asset in listed.items():
        if key.lower() == band.lower() and isinstance(asset, Mapping):
            return key, 1
    for key, asset in listed.items():
        number_of = _band_number(asset, band) if isinstance(asset, Mapping) else 0
        if number_of:
            return key, number_of
    return None


def _band_number(asset: Mapping[str, Any], band: str) -> int:
    for listing in (asset.get("bands"), asset.get("eo:bands")):
        names = [str(entry.get("name", "")).lower() for entry in listing or [] if isinstance(entry, Mapping)]
        if band.lower() in names:
            return names.index(band.lower()) + 1
    return 0


def _asset(asset: Mapping[str, Any], band: int, item: Mapping[str, Any], base: str) -> AssetFacts:
    entry: dict[str, Any] = {}
    for listing in (asset.get("raster:bands"), asset.get("bands")):
        if isinstance(listing, Sequence) and len(listing) >= band and isinstance(listing[band - 1], Mapping):
            entry = {**listing[band - 1], **entry}
    declared = {**asset, **entry}
    shape = declared.get("proj:shape") or item["properties"].get("proj:shape")
    size = _number(asset.get("file:size"))
    href = str(asset.get("href", ""))
    transform = declared.get("proj:transform") or item["properties"].get("proj:transform")
    pixel = _number(transform[0]) if isinstance(transform, Sequence) and transform else None
    if pixel is not None and pixel < _LEAST_METRES:  # degrees
        pixel = None
    return AssetFacts(
        href=urljoin(base, href) if base and not urlsplit(href).scheme else href,
        band=band,
        scale=_number(declared.get("raster:scale", declared.get("scale"))),
        offset=_number(declared.get("raster:offset", declared.get("offset"))),
        size=None if size is None else int(size),
        shape=(int(shape[0]), int(shape[1])) if isinstance(shape, Sequence) and len(shape) == 2 else None,
        pixel_m=pixel or _number(declared.get("raster:spatial_resolution", declared.get("gsd"))),
    )


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
