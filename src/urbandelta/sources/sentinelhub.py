"""Acquisitions from Sentinel Hub: times from the catalogue, then one image for each time on the cube's grid.

The service orthorectifies, calibrates, mosaics and resamples, so an acquisition arrives on the grid already; it still
goes through `base.read_scene`, as every other, which decides masks and encoding.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from urbandelta.eras import Stream
from urbandelta.errors import FetchError, SourceError
from urbandelta.grid import Grid
from urbandelta.masking import CloudOptions, MaskingRules
from urbandelta.sources.archives import Collection
from urbandelta.sources.base import Declared, Part, Recipe, Scene, read_scene
from urbandelta.sources.calibrate import Encoding, MaskRule
from urbandelta.sources.harmonise import check_offset
from urbandelta.sources.hub_client import HubClient
from urbandelta.sources.hub_requests import (
    CLOUD_MASK,
    DATA_MASK,
    MOST_PIXELS,
    layers,
    process_request,
    search_request,
)
from urbandelta.sources.item_facts import ItemFacts, read_item
from urbandelta.sources.resample import crop
from urbandelta.sources.stac import Period
from urbandelta.types import Acquisition, Array, BoolArray, OrbitState

log = logging.getLogger(__name__)

Clouds: TypeAlias = Literal["provider", "s2cloudless", "none"]

PASS_SECONDS = 120.0
"""Granules of one satellite and orbit within this time are one acquisition; the service mosaics them."""

_SECOND = np.timedelta64(1, "s")
_FIRST_WITH_OFFSET = 4.0
_RADAR_ID = re.compile(r"^(S1[A-D])_IW_GRD[A-Z]?_.*_(\d{6})_[0-9A-F]{6}_[0-9A-F]{4}")
# Relative orbit = (absolute - first) mod 175 + 1; from the missions' orbit numbering.
_FIRST_ORBITS: Mapping[str, int] = {"S1A": 73, "S1B": 27, "S1C": 172}
_TRACKS = 175


@dataclass(frozen=True, kw_only=True)
class HubRequest:
    """What a monitor file asks of Sentinel Hub for one stream."""

    relative_orbits: tuple[int, ...] = ()
    max_cloud: float | None = None
    clouds: Clouds = "provider"


@dataclass(frozen=True, kw_only=True)
class HubPass:
    """One acquisition of a stream: granules that the service mosaics."""

    stream: Stream
    items: tuple[ItemFacts, ...]
    request: HubRequest
    source: str

    @property
    def time(self) -> np.datetime64:
        """Time of the first granule."""
        return self.items[0].time

    @property
    def item_id(self) -> str:
        """Identifiers of the granules."""
        return " + ".join(item.item_id for item in self.items)

    @property
    def platform(self) -> str:
        """Satellite, such as S1A."""
        return self.items[0].platform

    @property
    def relative_orbit(self) -> int:
        """Track; -1 if unknown."""
        return self.items[0].relative_orbit

    @property
    def layers(self) -> tuple[str, ...]:
        """Bands of the image that is asked for."""
        return layers(self.stream, cloud_mask=self.request.clouds == "provider")


def find_passes(
    client: HubClient, stream: Stream, period: Period, request: HubRequest, *, endpoint: str
) -> tuple[HubPass, ...]:
    """All acquisitions of a stream that the service's catalogue has, in order of time; reads no pixel.

    Raises
    ------
    FetchError
        If the catalogue does not answer.
    ConfigError
        If it has nothing for such a stream, or refuses the credentials.
    """
    document = search_request(stream, period.aoi.geometry.bounds, start=period.start, end=period.end)
    plain = Collection(id=document["collections"][0], kind=stream.kind)
    items = []
    for feature in client.search(document):
        try:
            item = _completed(read_item(feature, plain, ()))
        except SourceError as error:
            log.warning("%s: %s; it is left out", endpoint, error)
            continue
        if _asked_for(item, stream, period, request):
            items.append(item)
    source = f"{endpoint} {client.access.base_url} {plain.id}"
    return tuple(HubPass(stream=stream, items=group, request=request, source=source) for group in group_passes(items))


def group_passes(items: Sequence[ItemFacts]) -> list[tuple[ItemFacts, ...]]:
    """Granules of one satellite and orbit within `PASS_SECONDS` of the first, in order of time."""
    groups: list[list[ItemFacts]] = []
    for item in sorted(items, key=lambda item: (item.time, item.item_id)):
        home = next(
            (
                group
                for group in reversed(groups)
                if item.time - group[0].time <= PASS_SECONDS * _SECOND
                and (item.platform, item.relative_orbit) == (group[0].platform, group[0].relative_orbit)
            ),
            None,
        )
        if home is None:
            groups.append([item])
        else:
            home.append(item)
    return [tuple(group) for group in groups]


def read_hub_pass(one: HubPass, client: HubClient, grid: Grid, threads: Executor) -> Acquisition:
    """Ask for the image of an acquisition, in tiles that the service can give, and make it an acquisition.

    Raises
    ------
    FetchError
        If any tile cannot be had: then nothing of it is returned.
    SourceError
        If s2cloudless is asked for and cannot run.
    """
    image = _image(one, client, grid, threads)
    origin = f"{client.access.base_url} {one.item_id}"
    parts = (
        Part(
            {name: _ImageLayer(grid, image[number], f"{origin} {name}") for number, name in enumerate(one.layers)},
            one.item_id,
        ),
    )
    scene = Scene(
        time=one.time,
        parts=parts,
        platform=one.platform,
        relative_orbit=one.relative_orbit,
        orbit_state=one.items[0].orbit_state,
        processing_baseline=max(item.baseline for item in one.items),
        provenance={"items": [item.item_id for item in one.items], "request": _request_provenance(one, grid)},
    )
    acquisition = read_scene(scene, recipe_of(one), grid)
    # One image, not a file for each band.
    provenance = {**acquisition.provenance, "files": [origin]}
    if one.stream.kind == "optical":
        finding = check_offset(acquisition, offset_present=False)
        provenance["offset_check"] = finding.as_dict()
        if finding.verdict == "contradiction":
            log.warning("%s: %s", one.item_id, finding.reason)
    return replace(acquisition, provenance=provenance)


def recipe_of(one: HubPass) -> Recipe:
    """What the numbers of the image mean."""
    radar = one.stream.kind == "sar"
    masks = [MaskRule.valid(DATA_MASK)]
    if CLOUD_MASK in one.layers:
        masks.append(MaskRule.cloud(CLOUD_MASK))
    find_clouds = not radar and one.request.clouds == "s2cloudless"
    return Recipe(
        stream=one.stream,
        encoding=Encoding(
            scale=1.0 if radar else 1e-4,
            offset=0.0,
            zero="nodata" if radar else "valid",
            masks=tuple(masks),
        ),
        declared=Declared(
            level="GRD" if radar else "L1C",
            coefficient="gamma0" if radar else "",
            boa_offset_applied=not radar
            and any(item.baseline and float(item.baseline) >= _FIRST_WITH_OFFSET for item in one.items),
        ),
        source=one.source,
        masking=MaskingRules(clouds=CloudOptions()) if find_clouds else None,
    )


def tiles(grid: Grid, most: int = MOST_PIXELS) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of nearly equal tiles of a grid, none larger than `most` on a side."""
    for rows in _cuts(grid.height, most):
        for columns in _cuts(grid.width, most):
            yield rows, columns


def _cuts(length: int, most: int) -> Iterator[slice]:
    number = -(-length // most)
    edges = [round(length * part / number) for part in range(number + 1)]
    for start, stop in pairwise(edges):
        yield slice(start, stop)


@dataclass(frozen=True, eq=False)
class _ImageLayer:
    """One band of an image that lies on the grid already."""

    grid: Grid
    values: Array
    origin: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window; the data mask is a band of its own."""
        return self.values[rows, columns], None


@dataclass(frozen=True, eq=False)
class _Tile:
    rows: slice
    columns: slice
    grid: Grid
    pixels: Future[Array] = field(repr=False)


def _image(one: HubPass, client: HubClient, grid: Grid, threads: Executor) -> Array:
    """Image of all layers, shape (layer, y, x); tiles are asked for at the same time."""
    dtype = np.dtype(np.float32 if one.stream.kind == "sar" else np.uint16)
    image = np.empty((len(one.layers), *grid.shape), dtype)
    asked = []
    for rows, columns in tiles(grid):
        part = crop(grid, rows, columns)
        asked.append(_Tile(rows, columns, part, threads.submit(_ask, one, client, part, dtype)))
    try:
        for tile in asked:
            image[:, tile.rows, tile.columns] = tile.pixels.result()
    except FetchError as error:
        raise FetchError(f"{one.item_id}: {error}") from error
    finally:
        for tile in asked:
            tile.pixels.cancel()
    return image


def _ask(one: HubPass, client: HubClient, grid: Grid, dtype: np.dtype[Any]) -> Array:
    start, end = time_range(one)
    cloud_mask = CLOUD_MASK in one.layers
    body = process_request(one.stream, grid, start=start, end=end, cloud_mask=cloud_mask)
    expected = (len(one.layers), *grid.shape)
    return np.asarray(
        client.post(
            "/api/v1/process", body, accept=lambda answer: _decoded(answer, expected, dtype, grid), mime="image/tiff"
        )
    )


def time_range(one: HubPass) -> tuple[np.datetime64, np.datetime64]:
    """Whole seconds around the granules: the catalogue rounds times, and the range must hold them all."""
    first, last = (moment.astype("datetime64[s]") for moment in (one.items[0].time, one.items[-1].time))
    return first - _SECOND, last + 2 * _SECOND


def _decoded(answer: bytes, expected: tuple[int, ...], dtype: np.dtype[Any], grid: Grid) -> Array:
    """Pixels of a GeoTIFF; `ValueError` unless it is the image that was asked for."""
    try:
        with MemoryFile(answer) as file, file.open(driver="GTiff") as source:
            shape = (source.count, source.height, source.width)
            if shape != expected or any(np.dtype(name) != dtype for name in source.dtypes):
                raise ValueError(f"an image of {shape} {source.dtypes[0]}, not {expected} {dtype}")
            slack = 0.01 * max(grid.pixel_size)
            if not np.allclose(tuple(source.bounds), grid.bounds, rtol=0, atol=slack):
                raise ValueError(f"an image of {tuple(source.bounds)}, not {grid.bounds}")
            return np.asarray(source.read())
    except RasterioError as error:
        raise ValueError(f"no readable GeoTIFF: {error}") from error


def _request_provenance(one: HubPass, grid: Grid) -> dict[str, Any]:
    start, end = time_range(one)
    body = process_request(
        one.stream,
        crop(grid, slice(0, 1), slice(0, 1)),
        start=start,
        end=end,
        cloud_mask=CLOUD_MASK in one.layers,
    )
    return {"data": body["input"]["data"], "evalscript": body["evalscript"]}


def _completed(item: ItemFacts) -> ItemFacts:
    """Satellite and track of a radar item from its name, where the catalogue leaves them out."""
    match = _RADAR_ID.match(item.item_id)
    if match is None:
        return item
    platform, absolute = match[1], int(match[2])
    track = item.relative_orbit
    if track < 0 and platform in _FIRST_ORBITS:
        track = (absolute - _FIRST_ORBITS[platform]) % _TRACKS + 1
    return replace(item, platform=platform, relative_orbit=track)


def _asked_for(item: ItemFacts, stream: Stream, period: Period, request: HubRequest) -> bool:
    wanted: tuple[OrbitState, ...] = ("", stream.orbit_state)
    return bool(
        period.start <= item.time < period.end
        and (not stream.orbit_state or item.orbit_state in wanted)
        and (not request.relative_orbits or item.relative_orbit in request.relative_orbits)
        and (request.max_cloud is None or item.cloud is None or item.cloud <= request.max_cloud)
        and (item.geometry is None or item.geometry.intersects(period.aoi.geometry))
    )
