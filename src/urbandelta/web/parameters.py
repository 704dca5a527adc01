"""Parameters of requests, each with its limits."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, HTTPException, Path, Query
from pydantic import BeforeValidator

from urbandelta.web.drawing import ColourMap
from urbandelta.web.event_list import EventFilter
from urbandelta.web.mercator import MOST_ZOOM

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
EARLIEST, LATEST = date(1900, 1, 1), date(2200, 1, 1)


def _day(text: Any) -> Any:
    """Refuses what pydantic would read as seconds since 1970."""
    if isinstance(text, str) and not _DAY.fullmatch(text):
        raise ValueError("is no day such as 2021-06-30")
    return text


Zoom = Annotated[int, Path(ge=0, le=MOST_ZOOM, description="zoom of the tile")]
TileNumber = Annotated[int, Path(ge=0, lt=2**MOST_ZOOM)]
MonthLabel = Annotated[str, Path(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$", examples=["2021-06"])]
Moment = Annotated[str, Path(pattern=r"^[0-9]{8}T[0-9]{6}$", examples=["20210603T104021"])]
Name = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,32}$")]
EventId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Colours = Annotated[ColourMap, Query(description="colour map")]
YesNo = Literal["yes", "no"]
Fade = Annotated[YesNo, Query(description="whether low scores let through what lies below")]
Version = Annotated[str | None, Query(alias="v", pattern=r"^[0-9a-f]{1,16}$", description="version of the data")]
Longitude = Annotated[float, Query(ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Query(ge=-90, le=90, allow_inf_nan=False)]
Day = Annotated[date, BeforeValidator(_day)]

Box = tuple[float, float, float, float]


def _box(
    west: Annotated[float | None, Query(ge=-180, le=180, allow_inf_nan=False)] = None,
    south: Annotated[float | None, Query(ge=-90, le=90, allow_inf_nan=False)] = None,
    east: Annotated[float | None, Query(ge=-180, le=180, allow_inf_nan=False)] = None,
    north: Annotated[float | None, Query(ge=-90, le=90, allow_inf_nan=False)] = None,
) -> Box | None:
    """A box in degrees, all four sides or none."""
    sides = [side for side in (west, south, east, north) if side is not None]
    if not sides:
        return None
    if len(sides) < 4:
        raise HTTPException(422, "a box needs west, south, east and north")
    w, s, e, n = sides
    if not (w < e and s < n):
        raise HTTPException(422, "the box is empty: west must be less than east, and south than north")
    return w, s, e, n


OptionalBox = Annotated[Box | None, Depends(_box)]


def _filter(
    box: OptionalBox,
    stage: Annotated[list[Literal["first", "provisional", "confirmed", "finished"]] | None, Query(max_length=4)] = None,
    confidence: Annotated[Literal["low", "high"] | None, Query()] = None,
    since: Annotated[Day | None, Query(description="last date on or after this day")] = None,
    until: Annotated[Day | None, Query(description="first date on or before this day")] = None,
    min_area_m2: Annotated[float, Query(ge=0, le=1e12, allow_inf_nan=False)] = 0.0,
) -> EventFilter:
    """Which events are asked for."""
    for day in (since, until):
        if day is not None and not EARLIEST <= day <= LATEST:
            raise HTTPException(422, f"{day} lies outside {EARLIEST} to {LATEST}")
    if since is not None and until is not None and since > until:
        raise HTTPException(422, f"since {since} is after until {until}")
    return EventFilter(
        stages=frozenset(stage) if stage else None,
        confidence=confidence,
        since=np.datetime64(since) if since is not None else None,
        until=np.datetime64(until) if until is not None else None,
        min_area_m2=min_area_m2,
        box=box,
    )


Wanted = Annotated[EventFilter, Depends(_filter)]
