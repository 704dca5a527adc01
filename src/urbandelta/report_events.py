"""What the report shows of events: counts, outlines on the map, a timeline, a table whose rows can be linked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from urbandelta import figures, narrative
from urbandelta.cartography import MapFrame
from urbandelta.events import Event
from urbandelta.figures import TimelineBar
from urbandelta.grid import Grid

__all__ = ["STAGES", "event_sentence", "event_view"]

STAGES = ("first", "provisional", "confirmed", "finished")
MOST_ROWS = 200
MOST_BARS = 40
"""A timeline of more bars cannot be read; the largest events are kept."""
ROOM = 0.06
"""Share of the map's sides that an outline must span for its number to lie in it and not beside."""


def event_view(
    events: Sequence[Event], frame: MapFrame, *, charts: Sequence[tuple[str, int]], span: tuple[Any, Any]
) -> dict[str, Any]:
    """Values of the page's section on events, by the names that the template uses.

    Parameters
    ----------
    events : sequence of Event
    frame : MapFrame
    charts : sequence of (str, int)
        Name and width in CSS pixels of each drawing of the timeline.
    span : (datetime64, datetime64)
        The time that the page is about.
    """
    ordered = sorted(events, key=lambda event: (event.first_date, event.id))
    numbers = {event.id: number for number, event in enumerate(ordered, start=1)}
    largest = sorted(ordered, key=lambda event: -event.area_m2)
    barred = {event.id for event in largest[:MOST_BARS]}
    listed = {event.id for event in largest[:MOST_ROWS]}
    bars = [_bar(numbers[event.id], event) for event in ordered if event.id in barred]
    return {
        "count": len(ordered),
        "area": narrative.area_text(sum(event.area_m2 for event in ordered) / 10_000),
        "stages": _stages(ordered),
        "rows": [_row(numbers[event.id], event, frame) for event in ordered if event.id in listed],
        "shapes": [
            {
                "number": numbers[event.id],
                "id": event.id,
                "path": svg_path(event.geometry, frame.grid),
                "open": event.stage in ("first", "provisional"),
                **_middle(event.geometry, frame.grid),
            }
            for event in ordered
            if event.id in listed
        ],
        "barred": len(bars),
        "charts": {
            name: figures.timeline_chart(bars, span, width=width, name=f"events-{name}") for name, width in charts
        }
        if bars
        else None,
    }


def event_sentence(events: Sequence[Event]) -> str:
    """How many events there are, how far they have come, and their area, in one sentence."""
    if not events:
        return "No group of pixels is large and lasting enough to be an event."
    counts = ", ".join(f"{row['count']} {row['stage']}" for row in _stages(events))
    area = narrative.area_text(sum(event.area_m2 for event in events) / 10_000)
    if len(events) == 1:
        return f"One event is followed ({counts}); it covers {area}."
    return f"{len(events)} events are followed ({counts}); together they cover {area}."


def svg_path(geometry: BaseGeometry, grid: Grid) -> str:
    """Outline in pixels of the grid (x right, y down) as an SVG path."""
    rings = []
    for part in shapely.get_parts(_in_pixels(geometry, grid)):
        rings += [part.exterior, *part.interiors]
    points = ["L".join(f"{x:.6g} {y:.6g}" for x, y in list(ring.coords)[:-1]) for ring in rings]
    return "".join(f"M{text}Z" for text in points)


def _in_pixels(geometry: BaseGeometry, grid: Grid) -> BaseGeometry:
    """A geometry in pixels from the upper left corner of the grid."""
    a, b, c, d, e, f = (float(v) for v in (~grid.affine)[:6])

    def move(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = xy[:, 0], xy[:, 1]
        return np.column_stack([a * x + b * y + c, d * x + e * y + f])

    return shapely.transform(geometry, move)


def _middle(geometry: BaseGeometry, grid: Grid) -> dict[str, float | str]:
    """A point inside the outline, in per cent of the map from the left and the top, and where its number goes.

    A number lies in a large outline, beside a small one, and never beyond the map's edge.
    """
    moved = _in_pixels(geometry, grid)
    point = moved.representative_point()
    left, top, right, bottom = moved.bounds
    x, y = 100 * point.x / grid.width, 100 * point.y / grid.height
    if min((right - left) / grid.width, (bottom - top) / grid.height) > ROOM:
        return {"x": x, "y": y, "margin": "0"}
    return {"x": x, "y": y, "margin": f"{15 if y < 5 else -15}px 0 0 {-17 if x > 94 else 17}px"}


def _stages(events: Sequence[Event]) -> list[dict[str, Any]]:
    rows = []
    for stage in STAGES:
        mine = [event for event in events if event.stage == stage]
        if mine:
            high = sum(event.confidence == "high" for event in mine)
            area = narrative.area_text(sum(event.area_m2 for event in mine) / 10_000)
            rows.append({"stage": stage, "count": len(mine), "high": high, "area": area})
    return rows


def _row(number: int, event: Event, frame: MapFrame) -> dict[str, Any]:
    point = _in_pixels(event.geometry, frame.grid).representative_point()
    lon, lat = frame.lonlat(point.y - 0.5, point.x - 0.5)
    return {
        "number": number,
        "id": event.id,
        "stage": event.stage,
        "confidence": event.confidence,
        "first": narrative.plain_date(event.first_date),
        "first_interval": interval_text(event.first_low, event.first_high),
        "last": narrative.plain_date(event.last_date),
        "last_interval": interval_text(event.last_low, event.last_high),
        "ongoing": event.stage != "finished",
        "area": narrative.area_text(event.area_m2 / 10_000),
        "peak": f"{event.peak:.2f}",
        "mean": f"{event.mean:.2f}",
        "spread": None if event.spread is None else f"{event.spread:.2f}",
        "observations": event.n_obs,
        "lat": f"{lat:.5f}",
        "lon": f"{lon:.5f}",
    }


def interval_text(low: np.datetime64, high: np.datetime64) -> str:
    """An interval of days as people write it, the year once where it is the same: "8 Apr to 7 Jul 2019"."""
    first, last = narrative.plain_date(low), narrative.plain_date(high)
    same = first.rsplit(" ", 1)[1] == last.rsplit(" ", 1)[1]
    return f"{first.rsplit(' ', 1)[0] if same else first} to {last}"


def _bar(number: int, event: Event) -> TimelineBar:
    return TimelineBar(
        label=f"{number}",
        first=event.first_date,
        first_interval=(event.first_low, event.first_high),
        last=event.last_date,
        last_interval=(event.last_low, event.last_high),
        high=event.confidence == "high",
        over=event.stage == "finished",
    )
