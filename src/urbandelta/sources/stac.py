"""Acquisitions of a stream from a STAC catalogue: search, choose, merge granules of one pass, say how to read them.

Searching reads no pixel and opens no file. What it finds are `Pass` objects: scenes whose layers know their address and
open it when they are read, so that thousands of them cost nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from urbandelta.aoi import Aoi
from urbandelta.eras import Stream
from urbandelta.errors import ConfigError, SourceError
from urbandelta.grid import Grid
from urbandelta.masking import BorderOptions, CloudOptions, MaskingRules
from urbandelta.sources.archives import Archive, Collection, StreamRequest
from urbandelta.sources.base import Declared, Layer, Part, Recipe, Scene, merge_scenes
from urbandelta.sources.calibrate import Encoding
from urbandelta.sources.harmonise import ShiftedLayer, counts_to_move
from urbandelta.sources.item_facts import (
    AssetFacts,
    ItemFacts,
    Radiometry,
    distinct_items,
    radiometry,
    read_item,
    without_query,
)
from urbandelta.types import Array, BoolArray

log = logging.getLogger(__name__)

Opener: TypeAlias = Callable[[str, int], Layer]
"""Opens one band of a file by its address: `functools.partial(RemoteRaster.open, transport)` or a stand-in."""


class StoredStream(Protocol):
    """What is known of a stream that a cube holds already."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands in stored order."""

    @property
    def scale(self) -> float:
        """Stored scale."""

    @property
    def offset(self) -> float:
        """Stored offset."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """What to look for: an area and a half-open range of times."""

    aoi: Aoi
    start: np.datetime64
    end: np.datetime64


@dataclass(frozen=True, eq=False)
class AssetLayer:
    """One band of an item's asset; a `Layer` that opens its file at each use, so open it once with `opened`."""

    asset: AssetFacts
    opener: Opener
    radiometry: Radiometry | None = None
    target: tuple[float, float] | None = None
    missing: tuple[float, ...] = ()

    def opened(self) -> Layer:
        """The layer with its file open, in the encoding of the stream; raises `FetchError` or `SourceError`."""
        layer = self.opener(self.asset.href, self.asset.band)
        if self.radiometry is None or self.target is None:
            return layer
        scale = layer.scale if self.radiometry.scale is None else self.radiometry.scale
        offset = layer.offset if self.radiometry.offset is None else self.radiometry.offset
        target_scale, target_offset = self.target
        add = counts_to_move(scale, offset, target_scale=target_scale, target_offset=target_offset, origin=self.origin)
        return ShiftedLayer(layer, add, self.missing) if add else layer

    @property
    def origin(self) -> str:
        """Address without its query."""
        return self.asset.origin

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return self.opened().grid

    @property
    def nodata(self) -> float | None:
        """Value that the file declares as missing."""
        return self.opened().nodata

    @property
    def scale(self) -> float:
        """Declared scale."""
        return self.opened().scale

    @property
    def offset(self) -> float:
        """Declared offset."""
        return self.opened().offset

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window, and which of them the file masks out."""
        return self.opened().read(rows, columns)


@dataclass(frozen=True, eq=False)
class Pass:
    """One acquisition of a stream, as an archive has it: a scene of one or several items, and how to read it."""

    scene: Scene
    recipe: Recipe
    items: tuple[ItemFacts, ...]
    bands: tuple[str, ...]
    rules: tuple[str, ...] = ()
    """Which metadata decided about scale and offset."""
    offset_present: bool | None = None
    """Whether the raw numbers are said to carry baseline 04.00's offset; None if there is no such thing."""

    @property
    def time(self) -> np.datetime64:
        """Time of its first item."""
        return self.scene.time

    @property
    def item_id(self) -> str:
        """Identifiers of its items."""
        return self.scene.item_id

    @property
    def updated(self) -> str:
        """When the catalogue changed any of its items last."""
        return max(item.updated for item in self.items)

    def provenance(self) -> dict[str, Any]:
        """What is worth knowing beyond the recipe, as plain values."""
        known = {
            "items": [item.item_id for item in self.items],
            "updated": self.updated,
            "radiometry": list(self.rules),
            "tiles": sorted({item.tile for item in self.items if item.tile}),
        }
        return {name: value for name, value in known.items() if value}


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An item that cannot be stored, and why."""

    item: ItemFacts
    reason: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a catalogue holds for a stream: passes in order of time, items that cannot be used, older processings."""

    passes: tuple[Pass, ...]
    rejected: tuple[Rejection, ...] = ()
    superseded: tuple[ItemFacts, ...] = ()
    other: int = 0
    """Items of other orbits or platforms, too cloudy, or beside the area."""


def select_passes(
    items: Iterable[ItemFacts],
    *,
    archive: Archive,
    collection: Collection,
    stream: Stream,
    request: StreamRequest,
    period: Period,
    opener: Opener,
    stored: StoredStream | None = None,
) -> Finding:
    """Decide which items become acquisitions of a stream; pure.

    Raises
    ------
    ConfigError
        If neither table, items nor monitor file say what the numbers are (level, coefficient).
    """
    wanted, other, rejected = [], 0, []
    for item in items:
        if not _asked_for(item, stream, request, period):
            other += 1
        elif stream.orbit_state and not item.orbit_state:
            rejected.append(Rejection(item=item, reason="does not say its orbit direction (sat:orbit_state)"))
        else:
            wanted.append(item)
    bands = _bands(wanted, collection, stream, request, stored)
    masks = [rule.band for rule in collection.masks]
    usable = []
    for item in wanted:
        lacking = item.missing((*bands, *masks))
        if lacking or not bands:
            rejected.append(Rejection(item=item, reason=f"has no asset for {', '.join(lacking or stream.bands)}"))
        else:
            usable.append(item)
    kept, superseded = distinct_items(usable)
    passes = _passes(kept, bands, archive, collection, stream, request, opener, stored)
    return Finding(passes=passes, rejected=tuple(rejected), superseded=tuple(superseded), other=other)


def search_items(
    archive: Archive, collection: Collection, stream: Stream, period: Period, transport: Any
) -> list[ItemFacts]:
    """Facts of all items that a catalogue has for an area and period, in order of time.

    Raises
    ------
    FetchError
        If the catalogue does not answer or is none.
    """
    from urbandelta.sources.catalogue import Query, find_items

    west, south, east, north = period.aoi.geometry.bounds
    query = Query(collection.id, (west, south, east, north), period.start, period.end)
    found = []
    for item, href in find_items(archive.url, query, transport, page_size=archive.page_size):
        try:
            found.append(read_item(item, collection, stream.bands, href=href))
        except SourceError as error:
            log.warning("%s: %s; it is left out", archive.name, error)
    return sorted(found, key=lambda item: (item.time, item.item_id))


def _asked_for(item: ItemFacts, stream: Stream, request: StreamRequest, period: Period) -> bool:
    return bool(
        period.start <= item.time < period.end
        and (not stream.orbit_state or item.orbit_state in ("", stream.orbit_state))
        and (not request.relative_orbits or item.relative_orbit in request.relative_orbits)
        and (not request.platforms or item.platform in request.platforms)
        and (request.max_cloud is None or item.cloud is None or item.cloud <= request.max_cloud)
        and (item.geometry is None or item.geometry.intersects(period.aoi.geometry))
    )


def _bands(
    items: Sequence[ItemFacts],
    collection: Collection,
    stream: Stream,
    request: StreamRequest,
    stored: StoredStream | None,
) -> tuple[str, ...]:
    """Bands that acquisitions of this stream get: the cube's, else those asked for, the table's, or most items'."""
    if stored is not None:
        return stored.bands
    if request.only:
        return tuple(band for band in stream.bands if band in request.only)
    if collection.assets and not request.assets:
        return tuple(band for band in stream.bands if band in collection.assets)
    held = Counter(tuple(band for band in stream.bands if band in item.assets) for item in items)
    held.pop((), None)
    return held.most_common(1)[0][0] if held else ()


def _passes(
    items: Sequence[ItemFacts],
    bands: tuple[str, ...],
    archive: Archive,
    collection: Collection,
    stream: Stream,
    request: StreamRequest,
    opener: Opener,
    stored: StoredStream | None,
) -> tuple[Pass, ...]:
    if not items:
        return ()
    known = {item.item_id: item for item in items}
    encodings = {
        item.item_id: {band: radiometry(item, item.assets[band], collection) for band in bands} for item in items
    }
    target = None if stream.kind == "sar" else _target(encodings.values(), collection, request, stored)
    declared = _declared(collection, stream, items)
    masks = [rule.band for rule in collection.masks]
    scenes = []
    for item in items:
        layers: dict[str, Layer] = {
            band: AssetLayer(
                item.assets[band],
                opener,
                encodings[item.item_id][band] if target else None,
                target,
                collection.nodata,
            )
            for band in bands
        }
        layers |= {band: AssetLayer(item.assets[band], opener) for band in masks}
        scenes.append(
            Scene(
                time=item.time,
                parts=(Part(layers, item.item_id),),
                platform=item.platform,
                relative_orbit=item.relative_orbit,
                orbit_state=item.orbit_state,
                processing_baseline=item.baseline,
            )
        )
    encoding = Encoding(
        scale=target[0] if target else collection.scale,
        offset=target[1] if target else request.offset,
        nodata=collection.nodata,
        zero=collection.zero,
        masks=collection.masks,
    )
    masking = MaskingRules(
        clouds=CloudOptions() if request.clouds else None, border=BorderOptions() if request.border_noise else None
    )
    recipe = Recipe(
        stream=replace(stream, bands=bands),
        encoding=encoding,
        declared=declared,
        resampling=request.resampling,
        masking=masking or None,
        source=f"{archive.name} {without_query(archive.url)} {collection.id}",
    )
    if recipe.masking is not None:
        recipe.masking.check(recipe.stream, level=declared.level)
    found = []
    for scene in merge_scenes(scenes, seconds=collection.merge_within):
        parts = tuple(known[part.item_id] for part in scene.parts)
        rules = sorted({rule.rule for part in parts for rule in encodings[part.item_id].values()})
        found.append(
            Pass(
                scene=scene,
                recipe=replace(
                    recipe, declared=replace(declared, boa_offset_applied=any(part.offset_applied for part in parts))
                ),
                items=parts,
                bands=bands,
                rules=tuple(rules) if target else (),
                offset_present=_offset_present(parts, encodings, collection) if target else None,
            )
        )
    return tuple(sorted(found, key=lambda one: (one.time, one.item_id)))


def _target(
    encodings: Iterable[dict[str, Radiometry]],
    collection: Collection,
    request: StreamRequest,
    stored: StoredStream | None,
) -> tuple[float, float] | None:
    """Scale and offset that all acquisitions are stored with; None where only the files know."""
    if stored is not None:
        return stored.scale, stored.offset
    known = [rule for bands in encodings for rule in bands.values()]
    if any(rule.scale is None or rule.offset is None for rule in known):
        return None
    offsets = [rule.offset for rule in known if rule.offset is not None]
    if collection.stored_offset is not None:
        offsets.append(collection.stored_offset)
    scale = next(rule.scale for rule in known if rule.scale is not None)
    # The least offset: numbers only ever grow, so none is lost below 0.
    return scale, min(offsets) if request.offset is None else request.offset


def _offset_present(
    parts: Sequence[ItemFacts], encodings: dict[str, dict[str, Radiometry]], collection: Collection
) -> bool | None:
    if collection.offset_rule != "sentinel-2" or not all(part.baseline for part in parts):
        return None
    present = {(rule.offset or 0.0) != 0 for part in parts for rule in encodings[part.item_id].values()}
    return present.pop() if len(present) == 1 else None


def _declared(collection: Collection, stream: Stream, items: Sequence[ItemFacts]) -> Declared:
    """Level and coefficient by table or monitor file, else by the items; refuses to guess."""
    levels = {item.level for item in items}
    level = collection.level or (levels.pop() if len(levels) == 1 else "")
    missing = [
        f"{name} (the method expects {wanted})"
        for name, value, wanted in (
            ("level", level, stream.processing_level),
            ("coefficient", collection.coefficient, stream.backscatter_coefficient),
        )
        if wanted and not value
    ]
    if missing:
        raise ConfigError(
            f"source.streams.{stream.name}: items of {collection.id} do not say what they hold; add "
            f"{' and '.join(missing)}, or unknown"
        )
    return Declared(level=level, coefficient=collection.coefficient)
