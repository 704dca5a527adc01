"""From a monitor's `source` to offers: one function for each kind of source."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np

from urbandelta.eras import Stream, era_named
from urbandelta.errors import ConfigError, FetchError
from urbandelta.grid import Grid
from urbandelta.offers import Offer, StreamOffers, Unusable, Workspace
from urbandelta.sources.archives import Archive, Collection, StreamRequest, archive_named
from urbandelta.sources.item_facts import parse_time
from urbandelta.sources.reading import Reading, read_pass
from urbandelta.sources.stac import Pass, Period, search_items, select_passes
from urbandelta.store import Cube
from urbandelta.types import Acquisition

if TYPE_CHECKING:
    from urbandelta.monitor import Monitor, StacSource

log = logging.getLogger(__name__)


def find_offers(
    monitor: Monitor,
    cube: Cube | None,
    *,
    until: np.datetime64 | str | None = None,
    streams: Sequence[str] | None = None,
) -> list[StreamOffers]:
    """What a monitor's source has, by stream in the era's order; reads no pixel.

    Raises
    ------
    ConfigError
        If the source or its options make no sense.
    """
    period = period_of(monitor, until=until)
    wanted = chosen_streams(monitor, streams)
    source = monitor.source
    if source.kind == "stac":
        from urbandelta.archive_access import PATIENCE

        # Streams are read side by side, yet an archive is asked by no more connections than for one.
        ranges = PATIENCE.range_threads()
        served = [_from_archive(monitor, source, cube, stream, period, ranges) for stream in wanted]
        found = [offers for offers in served if offers is not None]
        if not found:
            names = ", ".join(stream.name for stream in wanted)
            raise ConfigError(
                f"source.archive: {source.archive} has no collection for {names}; "
                "name one with source.streams.STREAM.collection, or choose another archive"
            )
        return found
    if source.kind == "folder":
        from urbandelta.offering_files import from_folders

        filled = {item.stream for item in source.imports}
        return [from_folders(monitor, source.imports, period, stream) for stream in wanted if stream.name in filled]
    if source.kind == "cube":
        from urbandelta.offering_files import from_cube

        return [from_cube(monitor, source.url, period, stream) for stream in wanted]
    if source.kind == "sentinelhub":
        from urbandelta.offering_hub import client_for, from_hub

        client, grid = client_for(source), monitor.make_grid()
        return [from_hub(source, period, stream, grid, client=client) for stream in wanted]
    return []


def period_of(monitor: Monitor, *, until: np.datetime64 | str | None = None) -> Period:
    """Area and half-open period of a monitor; without an end, until now."""
    end: np.datetime64 = np.datetime64("now", "s") if monitor.end is None else np.datetime64(monitor.end, "ns")
    if until is not None:
        last: np.datetime64 = parse_time(until) if isinstance(until, str) else until
        end = last if last < end else end
    start = np.datetime64(monitor.start, "ns")
    if not start < end:
        raise ConfigError(
            f"{monitor.name}: nothing lies between its start {start} and {end}; correct start, end or --until"
        )
    return Period(aoi=monitor.aoi_area(), start=start, end=end.astype("datetime64[ns]"))


def chosen_streams(monitor: Monitor, streams: Sequence[str] | None) -> list[Stream]:
    """Streams to fetch: those asked for, else those that the monitor names, else all of the era."""
    era = era_named(monitor.era)
    named = list(getattr(monitor.source, "streams", {}))
    for name in (*named, *(streams or ())):
        era.stream(name)
    asked = streams or named or era.stream_names
    return [stream for stream in era.streams if stream.name in asked]


def archive_of(source: StacSource) -> Archive:
    """The archive that a source names."""
    return archive_named(source.archive, url=source.url)


def request_of(source: StacSource, stream: str) -> StreamRequest:
    """What the monitor file says about a stream of its source."""
    options = source.streams.get(stream)
    if options is None:
        return StreamRequest()
    given = options.model_dump(exclude_none=True)
    return StreamRequest(**given)


def _from_archive(
    monitor: Monitor, source: StacSource, cube: Cube | None, stream: Stream, period: Period, ranges: Executor
) -> StreamOffers | None:
    """What an archive has of a stream; None where it has nothing that can be read and the monitor does not insist."""
    from urbandelta.archive_access import opener_for, transport_for

    archive, request = archive_of(source), request_of(source, stream.name)
    collection = archive.collection_for(stream, request)
    lacking = "no collection for it" if collection is None else collection.unreadable
    if collection is None or lacking:
        if stream.name in source.streams:
            name = "" if collection is None else f"{collection.id}: "
            raise ConfigError(f"source.streams.{stream.name}: {archive.name} has {name}{lacking}")
        log.warning("%s: nothing of %s can be read: %s", stream.name, archive.name, lacking)
        return None
    where = f"{collection.id} of {archive.name}"
    try:
        items = search_items(archive, collection, stream, period, transport_for(archive, collection))
    except FetchError as error:
        return StreamOffers(stream=stream.name, where=where, failure=str(error))
    stored = cube.attributes(stream.name) if cube is not None and stream.name in cube.streams else None
    found = select_passes(
        items,
        archive=archive,
        collection=collection,
        stream=stream,
        request=request,
        period=period,
        opener=opener_for(archive, collection, ranges=ranges),
        stored=stored,
    )
    grid = monitor.make_grid()
    return StreamOffers(
        stream=stream.name,
        where=where,
        offers=tuple(_offer(one, stream, collection, request, grid) for one in found.passes),
        unusable=tuple(
            Unusable(item_id=one.item.item_id, time=one.item.time, reason=one.reason, updated=one.item.updated)
            for one in found.rejected
        ),
        superseded=len(found.superseded),
    )


def _offer(one: Pass, stream: Stream, collection: Collection, request: StreamRequest, grid: Grid) -> Offer:
    return Offer(
        stream=stream.name,
        time=one.time,
        item_id=one.item_id,
        read=functools.partial(_read, one, request.offset_check == "refuse"),
        updated=one.updated,
        platform=one.scene.platform,
        relative_orbit=one.scene.relative_orbit,
        bands=len(one.bands),
        bytes=_bytes(one, collection, grid),
        pass_seconds=max(collection.merge_within, 1.0),
    )


def _read(one: Pass, refuse: bool, workspace: Workspace) -> Acquisition:
    return read_pass(
        one,
        Reading(
            grid=workspace.grid,
            threads=workspace.threads,
            block_rows=workspace.block_rows,
            refuse_contradictions=refuse,
        ),
    )


def _bytes(one: Pass, collection: Collection, grid: Grid) -> int:
    """Bytes that reading a pass transfers: the share of each file that the grid covers, by declared or usual size."""
    total = 0.0
    grid_m = grid.pixel_size[0]
    for item in one.items:
        for asset in item.assets.values():
            pixels = grid.height * grid.width
            if asset.size is not None and asset.shape is not None:
                share = min(
                    1.0, pixels * (grid_m / max(asset.pixel_m or grid_m, 1e-9)) ** 2 / (asset.shape[0] * asset.shape[1])
                )
                total += asset.size * share
            else:
                total += collection.bytes_per_pixel * pixels * (grid_m / max(asset.pixel_m or grid_m, 1e-9)) ** 2
    return round(total / max(len(one.items), 1))
