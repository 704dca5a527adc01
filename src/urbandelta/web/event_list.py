"""Events as the page and its addresses need them: in degrees, filtered, sorted, by identifier."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr
from shapely.geometry import mapping

from urbandelta.errors import UrbandeltaError
from urbandelta.web.mercator import TileGrid

if TYPE_CHECKING:
    from urbandelta.events import Event, EventOptions

log = logging.getLogger(__name__)

Sorting = Literal["first_date", "last_date", "area_m2", "peak", "duration_days"]
MOST_VALUES = 400_000_000
"""Scores (pixels times windows) among which a server still looks for events itself."""
_Known: TypeAlias = "tuple[dict[str, Event], str, str]"
_FILES = ("events.gpkg", "events.parquet", "events.geojson")


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are asked for; what is None does not matter."""

    stages: frozenset[str] | None = None
    confidence: str | None = None
    since: np.datetime64 | None = None
    until: np.datetime64 | None = None
    """An event is kept if its time from first to last date touches the days from `since` to `until`."""
    min_area_m2: float = 0.0
    box: tuple[float, float, float, float] | None = None

    def keeps(self, event: Event, bounds: Sequence[float]) -> bool:
        """Whether an event, whose bounds in degrees are given, is asked for."""
        if self.stages is not None and event.stage not in self.stages:
            return False
        if self.confidence is not None and event.confidence != self.confidence:
            return False
        if self.since is not None and event.last_date < self.since:
            return False
        if self.until is not None and event.first_date > self.until:
            return False
        if self.box is not None:
            west, south, east, north = self.box
            if bounds[2] < west or bounds[0] > east or bounds[3] < south or bounds[1] > north:
                return False
        return event.area_m2 >= self.min_area_m2


class EventList:
    """All events of an area; read or found when first asked for."""

    def __init__(
        self,
        folder: Path | None,
        scores: xr.Dataset | None,
        tiles: TileGrid,
        options: Callable[[], EventOptions | None] = lambda: None,
    ) -> None:
        """`options` is asked only if the events have to be found."""
        self._folder, self._scores, self._tiles, self._options = folder, scores, tiles, options
        self._lock = threading.Lock()
        self._known: _Known | None = None

    @property
    def _found(self) -> _Known:
        # Looking through scores takes a while: one request does it, the others wait.
        with self._lock:
            if self._known is None:
                self._known = self._find()
            return self._known

    def _find(self) -> _Known:
        """Events by identifier, where they come from, and why there are none if there cannot be any."""
        path = (
            next((self._folder / name for name in _FILES if (self._folder / name).is_file()), None)
            if (self._folder)
            else None
        )
        if path is not None:
            from urbandelta.event_files import read_events

            try:
                return {event.id: _on_grid(event, path, self._tiles) for event in read_events(path)}, path.name, ""
            except UrbandeltaError as error:
                log.warning("%s: cannot be read (%s)", path, error)
                return {}, path.name, f"{path.name} cannot be read; run `urbandelta events` again"
        if self._scores is None or not self._scores.sizes["window"]:
            return {}, "none", "there are no scores yet"
        if self._scores["score"].size > MOST_VALUES:
            return {}, "none", "no event file yet, and too many scores to look through now; run `urbandelta events`"
        from urbandelta.events import find_events

        return {event.id: event for event in find_events(self._scores, self._options())}, "scores", ""

    @property
    def origin(self) -> str:
        """Name of the event file, or "scores", or "none"."""
        return self._found[1]

    @property
    def remark(self) -> str:
        """Why there are no events, if there cannot be any."""
        return self._found[2]

    def __len__(self) -> int:
        return len(self._found[0])

    def get(self, name: str) -> Event | None:
        """The event with an identifier."""
        return self._found[0].get(name)

    def select(self, wanted: EventFilter, *, sort: Sorting = "first_date", descending: bool = True) -> list[Event]:
        """The events that a filter keeps, sorted; equal ones by identifier."""
        kept = [event for name, event in self._found[0].items() if wanted.keeps(event, self.bounds(name))]
        kept.sort(key=lambda event: event.id)
        kept.sort(key=lambda event: getattr(event, sort), reverse=descending)
        return kept

    def at(self, row: int, column: int) -> list[str]:
        """Identifiers of the events whose outline covers a pixel's centre."""
        a, _, c, _, e, f = self._tiles.grid.transform
        point = shapely.Point(c + a * (column + 0.5), f + e * (row + 0.5))
        names = list(self._found[0])
        return [names[k] for k in np.flatnonzero(shapely.intersects(self._outlines, point))]

    def bounds(self, name: str) -> tuple[float, float, float, float]:
        """(west, south, east, north) in degrees."""
        return self._bounds[name]

    def shape(self, event: Event) -> dict[str, Any]:
        """GeoJSON geometry in degrees (EPSG:4326, rings by the right-hand rule), to about a centimetre."""
        moved = shapely.transform(event.geometry, self._tiles.degrees, interleaved=False)
        rounded = shapely.transform(moved, lambda points: np.round(points, 7))
        return dict(mapping(shapely.orient_polygons(rounded, exterior_cw=False)))

    @cached_property
    def _outlines(self) -> npt.NDArray[np.object_]:
        return np.array([event.geometry for event in self._found[0].values()], dtype=object)

    @cached_property
    def _bounds(self) -> dict[str, tuple[float, float, float, float]]:
        moved = shapely.transform(self._outlines, self._tiles.degrees, interleaved=False)
        sides = shapely.bounds(moved).reshape(-1, 4).tolist()
        return {name: (w, s, e, n) for name, (w, s, e, n) in zip(self._found[0], sides, strict=True)}


def _on_grid(event: Event, path: Path, tiles: TileGrid) -> Event:
    """An event with its outline in the grid's CRS; GeoJSON holds degrees."""
    if path.suffix != ".geojson":
        return event
    return dataclasses.replace(event, geometry=shapely.transform(event.geometry, tiles.from_degrees, interleaved=False))
