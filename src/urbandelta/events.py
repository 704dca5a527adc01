"""Events: objects in space and time made of scores.

An event is what remains when runs of high scores (`score_runs`) of neighbouring pixels are joined wherever they share a
window. So one building site is one event although dozens of overlapping windows flag it, and two sites side by side
are two if no window flags both. Finding them is a pure function of the scores: events after twelve nightly
updates are those of one run over everything.

Identifiers survive updates. An event is named after its seed: the earliest settled window, and in it the first pixel in
reading order, that reached the threshold. New windows only ever come later, so the seed stays, however the
event grows. Where two events grow together, the older name stays. An event that only provisional windows show is
named after them, and may be renamed once, when its first settled window reaches the threshold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from urbandelta.cartography import MapFrame
from urbandelta.dating import DateSource, RunDates, dates_of, window_days_of
from urbandelta.errors import EventError
from urbandelta.grid import Grid
from urbandelta.patches import components
from urbandelta.products import checked_score, grid_of
from urbandelta.score_runs import NONE, Runs, WindowTable, find_runs, linked_runs

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["AlertStatus", "Event", "EventOptions", "find_events", "outline"]

Confidence: TypeAlias = Literal["low", "high"]


class AlertStatus(IntEnum):
    """Status of an alert, numbered as DIST-S1 does."""

    NONE = 0
    FIRST_LOW = 1
    PROVISIONAL_LOW = 2
    CONFIRMED_LOW = 3
    FIRST_HIGH = 4
    PROVISIONAL_HIGH = 5
    CONFIRMED_HIGH = 6
    FINISHED_LOW = 7
    FINISHED_HIGH = 8
    NODATA = 255

    @property
    def stage(self) -> str:
        """One of none, first, provisional, confirmed, finished, nodata."""
        return self.name.lower().split("_")[0]

    @property
    def confidence(self) -> Confidence | None:
        """Low or high; None where there is no alert."""
        if self in (AlertStatus.NONE, AlertStatus.NODATA):
            return None
        return "high" if self.name.endswith("HIGH") else "low"

    @classmethod
    def of(cls, stage: str, confidence: Confidence) -> AlertStatus:
        """The status with this stage and confidence."""
        return cls[f"{stage}_{confidence}".upper()]


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """What counts as an event."""

    threshold: float = 0.5
    """A score that is at least this flags a pixel."""
    low: float = 0.3
    """Pixels and windows of at least this are part of an event that reaches the threshold."""
    min_area_m2: float = 400.0
    """Smaller events are left out."""
    min_pixels: int = 8
    """Likewise in pixels of the grid, whatever their size: noise of the score comes in pixels."""
    min_days: float | None = None
    """An event is confirmed once half of its pixels have reached the threshold over so many days of windows' starts:
    what was built stays in every window that holds it, what was ploughed does not. One that ends sooner is none.
    None is half the length of a window."""
    min_windows: int = 2
    """Settled windows that must reach the threshold to confirm an event, for stores with few windows."""
    connectivity: Literal[4, 8] = 8
    """Whether pixels that touch by a corner are joined."""
    high_confidence: float = 0.8
    """Mean over an event's pixels of their highest scores from which its confidence is high."""
    max_spread: float = 0.15
    """Spread across an ensemble above which confidence is low whatever the score."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.threshold <= 1:
            raise EventError(
                f"low {self.low:g} and threshold {self.threshold:g}: need 0 < low <= threshold <= 1; try 0.3 and 0.5"
            )
        if not 0 <= self.high_confidence <= 1 or not self.max_spread >= 0:
            raise EventError("high_confidence lies in 0..1 and max_spread is not negative")
        if not (math.isfinite(self.min_area_m2) and self.min_area_m2 >= 0):
            raise EventError(f"min_area_m2 {self.min_area_m2:g} is not an area; give square metres, 0 for all")
        if self.min_windows < 1 or self.min_pixels < 1:
            raise EventError(f"min_windows {self.min_windows} and min_pixels {self.min_pixels} must be at least 1")
        if self.min_days is not None and not (math.isfinite(self.min_days) and self.min_days >= 0):
            raise EventError(f"min_days {self.min_days:g} is no duration; give days, 0 for none")
        if self.connectivity not in (4, 8):
            raise EventError(f"connectivity {self.connectivity} is neither 4 (edges) nor 8 (edges and corners)")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One object of change. Dates are `datetime64[D]`, their bounds those of 90 % intervals."""

    id: str
    geometry: BaseGeometry
    """Outline of its pixels, in the CRS of the grid."""
    first_date: np.datetime64
    first_low: np.datetime64
    first_high: np.datetime64
    last_date: np.datetime64
    last_low: np.datetime64
    last_high: np.datetime64
    area_m2: float
    peak: float
    """Highest score of all its pixels and windows, to four decimals like the two that follow."""
    mean: float
    """Mean over its pixels of their highest scores."""
    spread: float | None
    """Mean over its pixels of an ensemble's standard deviation, where each scores highest; None without one."""
    n_obs: int
    """Steps of the window in which it scores highest."""
    windows: int
    """Windows from the first to the last that reaches the threshold."""
    status: AlertStatus
    dated_by: DateSource = "scores"
    """What its dates rest on."""

    @property
    def duration_days(self) -> int:
        """Days from the first to the last date."""
        return int((self.last_date - self.first_date) / np.timedelta64(1, "D"))

    @property
    def confidence(self) -> Confidence:
        """Low or high."""
        return "high" if self.status.confidence == "high" else "low"

    @property
    def stage(self) -> str:
        """One of first, provisional, confirmed, finished."""
        return self.status.stage


def find_events(
    scores: xr.Dataset, options: EventOptions | None = None, *, grid: Grid | None = None, cube: Cube | None = None
) -> list[Event]:
    """Find the events of a score store; oldest first, by the window in which they first reached the threshold.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it: `score (window, y, x)`, `window_start`, `window_end`, `n_obs`; optional `spread`
        (window, y, x) and `provisional` (window).
    options : EventOptions, optional
    grid : Grid, optional
        By default the one that the scores name.
    cube : Cube, optional
        That of the scores: with it dates rest on the observations (`dating.dates_of`); nothing else depends on it.

    Returns
    -------
    list of Event

    Raises
    ------
    EventError
        If options contradict each other.
    ProductError
        If there is no score in the dataset.
    GridError
        If the cube has another shape than the scores.
    """
    options = options or EventOptions()
    checked_score(scores)
    runs = find_runs(scores, threshold=options.threshold, low=options.low)
    era = str(scores.attrs.get("era", ""))
    finder = _Finder(runs, WindowTable.of(scores), grid or grid_of(scores), options, window_days_of(scores), era, cube)
    return list(finder.events())


@dataclass(frozen=True, eq=False)
class _Finder:
    """Joins runs to events; everything that an event is made of."""

    runs: Runs
    windows: WindowTable
    grid: Grid
    options: EventOptions
    window_days: float
    era: str
    cube: Cube | None

    @cached_property
    def dates(self) -> RunDates:
        return dates_of(
            self.runs, self.windows, self.grid.shape, window_days=self.window_days, era=self.era, cube=self.cube
        )

    @cached_property
    def row_area_m2(self) -> npt.NDArray[np.float64]:
        return MapFrame(self.grid).row_area_ha * 10_000

    def events(self) -> Iterator[Event]:
        """Events in order of their seeds."""
        one, other = linked_runs(self.runs, self.grid.width, connectivity=self.options.connectivity)
        component = components(one, other, len(self.runs))
        order = np.argsort(component, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
        found = []
        for member in members:
            if member.size and self.runs.above[member].any():
                event = self._event(member)
                if event is not None:
                    found.append(event)
        return (event for _, event in sorted(found, key=lambda pair: pair[0]))

    def _event(self, member: npt.NDArray[np.intp]) -> tuple[tuple[int, int], Event] | None:
        """Event of some runs with its seed, None if it is too small or was over too soon."""
        runs = self.runs.take(member)
        pixel, where = np.unique(runs.pixel, return_inverse=True)
        rows, columns = np.divmod(pixel, self.grid.width)
        area = float(self.row_area_m2[rows].sum())
        if area < self.options.min_area_m2 or pixel.size < self.options.min_pixels:
            return None
        core = runs.above > 0
        stage = self._stage(runs, core)
        if stage is None:
            return None
        highest = np.zeros(pixel.size, np.float32)
        np.maximum.at(highest, where, runs.peak)
        mean = float(highest.mean(dtype=np.float64))
        spread = self._spread(runs, where, highest)
        sure = mean >= self.options.high_confidence and (spread is None or spread <= self.options.max_spread)
        best = int(np.lexsort((runs.pixel, runs.peak_at, -runs.peak))[0])
        seed = _seed(runs)
        event = Event(
            id=self._identifier(*seed),
            geometry=outline(rows, columns, self.grid),
            **self._dates(member[core]),
            area_m2=round(area, 1),
            peak=round(float(runs.peak[best]), 4),
            mean=round(mean, 4),
            spread=None if spread is None else round(spread, 4),
            n_obs=int(self.windows.n_obs[runs.peak_at[best]]),
            windows=int(runs.above_last[core].max() - runs.above_first[core].min()) + 1,
            status=AlertStatus.of(stage, "high" if sure else "low"),
            dated_by=self.dates.source,
        )
        return seed, event

    def _stage(self, runs: Runs, core: npt.NDArray[np.bool_]) -> str | None:
        """How far an event has come; None for one that ended before it was confirmed."""
        settled = self.windows.settled_count
        # Not before the flanks are settled too: what is finished stays as it is, dates and all.
        over = int(runs.last.max()) < settled - 1 and int(runs.edges.after[core].max()) < settled
        first, last = runs.settled_first[core], runs.settled_last[core]
        seen = first != NONE
        windows = int(last[seen].max() - first[seen].min()) + 1 if seen.any() else 0
        if windows >= self.options.min_windows and self._persists(runs, core):
            return "finished" if over else "confirmed"
        if over:
            return None
        return "provisional" if int(runs.above_last[core].max() - runs.above_first[core].min()) > 0 else "first"

    def _persists(self, runs: Runs, core: npt.NDArray[np.bool_]) -> bool:
        """Whether half of the pixels have stayed long enough; what the series' start cuts counts from there."""
        first, last = runs.settled_first[core], runs.settled_last[core]
        start = self.windows.start
        days = np.where(first == NONE, 0.0, start[last] - start[first])
        _, where = np.unique(runs.pixel[core], return_inverse=True)
        longest = np.zeros(int(where.max()) + 1)
        np.maximum.at(longest, where, days)
        wanted = self.options.min_days
        return bool(np.median(longest) >= (self.window_days / 2 if wanted is None else wanted))

    def _spread(self, runs: Runs, where: npt.NDArray[np.intp], highest: npt.NDArray[np.float32]) -> float | None:
        """Mean over the pixels of the spread of the run that holds their highest score."""
        if np.isnan(runs.spread).all():
            return None
        at_highest = runs.peak == highest[where]
        return float(np.nanmean(runs.spread[at_highest].astype(np.float64)))

    def _identifier(self, window: int, pixel: int) -> str:
        """Sixteen digits from the seed's time and place: the same in every update, and in every AOI on this lattice."""
        row, column = divmod(pixel, self.grid.width)
        a, b, c, d, e, f = self.grid.transform
        x = c + a * (column + 0.5) + b * (row + 0.5)
        y = f + d * (column + 0.5) + e * (row + 0.5)
        moment = int(self.windows.start_time[window].astype(np.int64))
        return hashlib.sha256(f"{self.grid.crs} {x:.6f} {y:.6f} {moment}".encode()).hexdigest()[:16]

    def _dates(self, member: npt.NDArray[np.intp]) -> dict[str, Any]:
        """Median over the pixels that reach the threshold of each date and bound."""
        days = {
            name: int(np.floor(np.median(getattr(self.dates, field)[member])))
            for name, field in (
                ("first_date", "first"),
                ("first_low", "first_low"),
                ("first_high", "first_high"),
                ("last_date", "last"),
                ("last_low", "last_low"),
                ("last_high", "last_high"),
            )
        }
        return {name: np.datetime64(day, "D") for name, day in days.items()}


def outline(rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer], grid: Grid) -> BaseGeometry:
    """Outline of some pixels along their edges, in the CRS of the grid: a polygon, or several that touch by corners."""
    top, left = int(rows.min()), int(columns.min())
    mask = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), np.uint8)
    mask[rows - top, columns - left] = 1
    a, b, c, d, e, f = grid.transform
    transform = rasterio.Affine(a, b, c + a * left + b * top, d, e, f + d * left + e * top)
    shapes = rasterio.features.shapes(mask, mask=mask.astype(bool), connectivity=4, transform=transform)
    polygons = [shapely.geometry.shape(shape) for shape, _ in shapes]
    return shapely.normalize(polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons))


def _seed(runs: Runs) -> tuple[int, int]:
    """Window and pixel that name an event."""
    settled = runs.settled_first != NONE
    first, known = (runs.settled_first, settled) if settled.any() else (runs.above_first, runs.above > 0)
    windows, pixels = first[known], runs.pixel[known]
    best = int(np.lexsort((pixels, windows))[0])
    return int(windows[best]), int(pixels[best])
