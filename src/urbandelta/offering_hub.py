"""Offers of Sentinel Hub."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from urbandelta.eras import Stream
from urbandelta.errors import FetchError
from urbandelta.offers import Offer, StreamOffers, Workspace
from urbandelta.sources.hub_client import ENDPOINTS, HubClient, find_access
from urbandelta.sources.sentinelhub import PASS_SECONDS, HubPass, HubRequest, find_passes, read_hub_pass
from urbandelta.sources.stac import Period
from urbandelta.types import Acquisition

if TYPE_CHECKING:
    from urbandelta.grid import Grid
    from urbandelta.monitor import SentinelHubSource


def client_for(source: SentinelHubSource) -> HubClient:
    """A client of the deployment that a monitor's source names; raises `ConfigError` without credentials."""
    return HubClient(find_access(source.endpoint, url=source.url))


def from_hub(
    source: SentinelHubSource, period: Period, stream: Stream, grid: Grid, *, client: HubClient
) -> StreamOffers:
    """What Sentinel Hub has of one stream."""
    where = ENDPOINTS[source.endpoint].title
    try:
        passes = find_passes(client, stream, period, request_of(source, stream.name), endpoint=source.endpoint)
    except FetchError as error:
        return StreamOffers(stream=stream.name, where=where, failure=str(error))
    return StreamOffers(
        stream=stream.name, where=where, offers=tuple(_offer(one, stream, grid, client) for one in passes)
    )


def request_of(source: SentinelHubSource, stream: str) -> HubRequest:
    """What the monitor file asks for a stream; clouds as the endpoint can give them unless it says otherwise."""
    options = source.streams.get(stream)
    clouds = options.clouds if options is not None else None
    return HubRequest(
        relative_orbits=(options.relative_orbits or ()) if options is not None else (),
        max_cloud=options.max_cloud if options is not None else None,
        clouds=clouds or ("provider" if ENDPOINTS[source.endpoint].has_cloud_mask else "s2cloudless"),
    )


def _offer(one: HubPass, stream: Stream, grid: Grid, client: HubClient) -> Offer:
    sample_bytes = 4 if stream.kind == "sar" else 2
    return Offer(
        stream=stream.name,
        time=one.time,
        item_id=one.item_id,
        read=functools.partial(_read, one, client),
        updated=max(item.updated for item in one.items),
        platform=one.platform,
        relative_orbit=one.relative_orbit,
        bands=len(stream.bands),
        bytes=grid.height * grid.width * len(one.layers) * sample_bytes,
        pass_seconds=PASS_SECONDS,
    )


def _read(one: HubPass, client: HubClient, workspace: Workspace) -> Acquisition:
    return read_hub_pass(one, client, workspace.grid, workspace.threads)
