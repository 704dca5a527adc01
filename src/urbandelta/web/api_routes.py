"""Routes that answer with JSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request

from urbandelta.composites import title_of
from urbandelta.products import provenance_of
from urbandelta.web.drawing import legend
from urbandelta.web.event_list import EventFilter, EventList, Sorting
from urbandelta.web.history import pixel_history
from urbandelta.web.models import (
    AcquisitionInfo,
    AcquisitionList,
    AreaInfo,
    ClassInfo,
    EventFeature,
    EventFeatures,
    EventInfo,
    EventPage,
    GridInfo,
    MonthInfo,
    OverallInfo,
    PixelHistory,
    Problem,
    StreamSummary,
)
from urbandelta.web.opened import Holder, Opened, moments_of
from urbandelta.web.parameters import EventId, Latitude, Longitude, Name, Wanted
from urbandelta.web.workers import Workers

MOST_EVENTS = 1000
MOST_FEATURES = 20_000
_PROBLEMS: dict[int | str, dict[str, Any]] = {404: {"model": Problem}, 422: {"model": Problem}}


def api_router(holder: Holder, workers: Workers) -> APIRouter:
    """Routes below `/api`."""
    router = APIRouter(prefix="/api", tags=["data"])

    @router.get("/area")
    async def area(request: Request) -> AreaInfo:
        """What is served: where, when, and of which data."""
        return await workers.run(request, lambda: describe(holder.get(), holder.name))

    @router.get("/acquisitions/{stream}", responses=_PROBLEMS)
    async def acquisitions(request: Request, stream: Name) -> AcquisitionList:
        """The acquisitions of a stream of the cube."""
        return await workers.run(request, lambda: list_acquisitions(holder.get(), stream))

    @router.get("/pixel", responses=_PROBLEMS)
    async def pixel(request: Request, longitude: Longitude, latitude: Latitude) -> PixelHistory:
        """History of the pixel at a place."""
        return await workers.run(request, lambda: history_at(holder.get(), longitude, latitude))

    @router.get("/events", responses={422: {"model": Problem}})
    async def events(
        request: Request,
        wanted: Wanted,
        sort: Annotated[Sorting, Query()] = "first_date",
        order: Annotated[str, Query(pattern="^(ascending|descending)$")] = "descending",
        limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 100,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> EventPage:
        """Events that a filter keeps, a page at a time."""

        def work() -> EventPage:
            known = holder.get().events
            kept = known.select(wanted, sort=sort, descending=order == "descending")
            return EventPage(
                matched=len(kept),
                total=len(known),
                origin=known.origin,
                remark=known.remark,
                events=[event_info(known, event) for event in kept[offset : offset + limit]],
            )

        return await workers.run(request, work)

    @router.get("/events.geojson", responses={422: {"model": Problem}})
    async def event_features(request: Request, wanted: Wanted) -> EventFeatures:
        """Outlines of the events that a filter keeps, in EPSG:4326; at most 20,000, the newest."""
        return await workers.run(request, lambda: features(holder.get(), wanted))

    @router.get("/events/{event_id}", responses=_PROBLEMS)
    async def event(request: Request, event_id: EventId) -> EventFeature:
        """One event by its identifier."""

        def work() -> EventFeature:
            known = holder.get().events
            found = known.get(event_id)
            if found is None:
                raise HTTPException(404, f"no event {event_id} here; /api/events lists them")
            return feature(known, found)

        return await workers.run(request, work)

    return router


def describe(area: Opened, name: str) -> AreaInfo:
    """What the page needs to know first."""
    cube, scores = area.cube, area.scores
    streams = []
    for stream in cube.streams if cube is not None else ():
        assert cube is not None
        row, times = cube.era.stream(stream), cube.times(stream).astype("datetime64[D]")
        streams.append(
            StreamSummary(
                name=stream,
                title=title_of(row),
                kind=row.kind,
                count=times.size,
                first=str(times[0]),
                last=str(times[-1]),
            )
        )
    return AreaInfo(
        name=name,
        version=area.version,
        bounds=list(area.tiles.bounds),
        outline=area.tiles.outline,
        native_zoom=area.tiles.native_zoom,
        grid=GridInfo(
            crs=area.grid.crs, height=area.grid.height, width=area.grid.width, pixel=list(area.grid.pixel_size)
        ),
        months=[
            MonthInfo(label=m.label, windows=len(m.windows), start=m.start, end=m.end, provisional=m.provisional)
            for m in area.months.values()
        ],
        maps=[
            OverallInfo(
                name=m.name,
                title=m.title,
                low=m.low,
                high=m.high,
                dates=m.dates,
                classes=[ClassInfo(value=c.value, title=c.title, colour=f"rgb{c.rgb}") for c in m.classes],
            )
            for m in area.overall.values()
        ],
        streams=streams,
        optical=area.optical,
        provenance=provenance_of(scores) if scores is not None else {},
        complete=bool(scores is None or scores.attrs.get("complete")),
        legends={
            f"{colours}{'-fade' if fade else ''}": legend(colours, fade)
            for colours in ("inferno", "viridis", "cividis")
            for fade in (False, True)
        },
    )


def list_acquisitions(area: Opened, stream: str) -> AcquisitionList:
    """Times, platforms and valid shares of a stream's acquisitions."""
    cube = area.cube
    if cube is None or stream not in cube.streams:
        held = ", ".join(cube.streams) if cube is not None else "no cube"
        raise HTTPException(404, f"no stream {stream!r} here; there is: {held}")
    data, times = cube.acquisitions(stream), cube.times(stream)
    texts = [str(time.astype("datetime64[s]")) + "Z" for time in times]
    rows = zip(moments_of(times), texts, data["platform"].values, cube.valid_fraction(stream), strict=True)
    return AcquisitionList(
        stream=stream,
        acquisitions=[
            AcquisitionInfo(moment=str(m), time=t, platform=str(p), valid=round(float(v), 4)) for m, t, p, v in rows
        ],
    )


def history_at(area: Opened, longitude: float, latitude: float) -> PixelHistory:
    """History of the pixel at a place; 404 outside the area."""
    where = area.tiles.locate(longitude, latitude)
    if where is None:
        west, south, east, north = area.tiles.bounds
        raise HTTPException(
            404,
            f"longitude {longitude:g}, latitude {latitude:g} lies outside the area "
            f"({west:.4f} to {east:.4f}, {south:.4f} to {north:.4f})",
        )
    return pixel_history(area, *where)


def features(area: Opened, wanted: EventFilter) -> EventFeatures:
    """Events as GeoJSON."""
    known = area.events
    return EventFeatures(features=[feature(known, event) for event in known.select(wanted)[:MOST_FEATURES]])


def feature(known: EventList, event: Any) -> EventFeature:
    """One event as GeoJSON."""
    info = event_info(known, event)
    return EventFeature(id=event.id, bbox=info.bounds, geometry=known.shape(event), properties=info)


def event_info(known: EventList, event: Any) -> EventInfo:
    """One event without its outline."""
    days = ("first_date", "first_low", "first_high", "last_date", "last_low", "last_high")
    return EventInfo(
        id=event.id,
        status=int(event.status),
        stage=event.stage,
        confidence=event.confidence,
        **{name: str(getattr(event, name)) for name in days},
        duration_days=event.duration_days,
        dated_by=event.dated_by,
        area_m2=round(float(event.area_m2), 1),
        peak=round(float(event.peak), 4),
        mean=round(float(event.mean), 4),
        spread=None if event.spread is None else round(float(event.spread), 4),
        n_obs=int(event.n_obs),
        windows=int(event.windows),
        bounds=[round(side, 7) for side in known.bounds(event.id)],
    )
