"""When a pixel changed, from the run of windows that flag it.

A window flags a change that lies inside it. So the change lies inside every window of an unbroken run of flagged
windows: after the start of the run's last window, before the end of its first. A run begins and ends where the score
passes `EDGE_SHARE` of the threshold, between two windows by linear interpolation; of several runs that reach the
threshold, the one with the highest score counts.

Either bound lies behind the change: a window must go on for a while after a change before it can flag it, and a window
that begins soon after it is still flagged, since what is being built goes on rising. Both are moved back by `LAG_SHARE`
of the window's length, and the estimate is their weighted mean. The constants were set on simulated scenes of both eras
with the shipped weights (`docs/products.md`).

A run that begins with the first window of the series was cut: windows before it would have flagged the change too, so
the end of its first window bounds nothing. The same holds for a run that ends with the last window. The estimate then
rests on the other bound alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.eras import ERAS
from urbandelta.types import BoolArray, FloatArray

DaysFloat = npt.NDArray[np.float64]

NO_DATE = -1
"""Nodata of maps of dates, counts and window numbers."""

EDGE_SHARE = 0.4
"""Share of the threshold at which a run begins and ends: the flanks of a run tell more than its plateau."""
LAG_SHARE = 0.1
"""How far, as a share of the window's length, both bounds lie behind the change."""
START_WEIGHT = 0.7
"""Weight of the bound by the last window's start: it scatters by two thirds of what the other does."""


class StrongestRun:
    """Follows, pixel by pixel, the run of windows with the highest score; windows come in order of time."""

    def __init__(self, shape: tuple[int, int], threshold: float) -> None:
        self._threshold, self._edge = threshold, EDGE_SHARE * threshold
        self._span: tuple[float, float] | None = None
        self._before: tuple[float, float] = (0.0, 0.0)
        self._scores = np.full(shape, -np.inf, np.float32)
        self._inside = np.zeros(shape, np.bool_)
        self._peak = np.full(shape, -np.inf, np.float32)
        self._latest, self._latest_cut = np.zeros(shape), np.zeros(shape, np.bool_)
        self._best_peak = np.full(shape, -np.inf, np.float32)
        # Days (y, x) of the strongest run so far: its bounds, and whether the series cuts it on either side.
        self._bounds = np.zeros((2, *shape))
        self._cut = np.zeros((2, *shape), np.bool_)

    def add(self, scores: FloatArray, start: float, end: float) -> None:
        """Take the next window: its scores (y, x), -inf where there is none, and its first and last day."""
        inside = scores >= self._edge
        begins, ends = inside & ~self._inside, self._inside & ~inside
        lag = LAG_SHARE * (end - start)
        if self._span is None:
            self._latest[begins], self._latest_cut[begins] = end - lag, True
            self._span = (start, end)
        else:
            previous_start, previous_end = self._before
            self._latest[begins] = end - lag - self._passed(scores, self._scores, begins) * (end - previous_end)
            self._latest_cut[begins] = False
            # Judged by the lag of the window that the run leaves, hence before this one takes its place.
            earliest = previous_start + self._passed(self._scores, scores, ends) * (start - previous_start)
            self._close(ends, earliest - LAG_SHARE * (previous_end - previous_start), cut=False)
            self._span = (self._span[0], end)
        self._peak[begins] = -np.inf
        np.maximum(self._peak, scores, out=self._peak, where=inside)
        self._inside, self._scores, self._before = inside, scores, (start, end)

    def dates(self) -> npt.NDArray[np.int32]:
        """Estimated day of change (y, x), days since 1970-01-01; -1 where no window reaches the threshold."""
        if self._span is None:
            return np.full(self._inside.shape, NO_DATE, np.int32)
        start, end = self._before
        self._close(self._inside, np.full(np.count_nonzero(self._inside), start - LAG_SHARE * (end - start)), cut=True)
        found = np.isfinite(self._best_peak)
        (earliest, latest), (cut_start, cut_end) = self._bounds[:, found], self._cut[:, found]
        estimate = START_WEIGHT * earliest + (1 - START_WEIGHT) * latest
        estimate = np.where(cut_start & ~cut_end, earliest, np.where(cut_end & ~cut_start, latest, estimate))
        days = np.full(found.shape, NO_DATE, np.int32)
        days[found] = np.floor(np.clip(estimate, *self._span)).astype(np.int32)
        return days

    def _passed(self, high: FloatArray, low: FloatArray, where: BoolArray) -> DaysFloat:
        """How far on the way from `high` to `low` the edge lies (pixel,), 0 where `low` is unknown."""
        above, below = high[where].astype(np.float64), low[where].astype(np.float64)
        known = np.isfinite(below)
        share = np.zeros(above.shape)
        share[known] = (above - self._edge)[known] / (above - below)[known]
        return share

    def _close(self, where: BoolArray, earliest: DaysFloat, *, cut: bool) -> None:
        """End the runs of some pixels (y, x), whose change is not before `earliest` (pixel,)."""
        leads = (self._peak[where] >= self._threshold) & (self._peak[where] > self._best_peak[where])
        rows, columns = (index[leads] for index in np.nonzero(where))
        self._best_peak[rows, columns] = self._peak[rows, columns]
        self._bounds[:, rows, columns] = earliest[leads], self._latest[rows, columns]
        self._cut[:, rows, columns] = self._latest_cut[rows, columns], np.full(rows.size, cut)


# ---------------------------------------------------------------- flanks of a run

EDGE_LEVELS = (0.2, 0.5)
"""Scores at which the flanks of a run are read."""
_OF_PEAK = 0.9
"""A run that does not reach a level is read at this share of its own peak."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Where runs begin and end; days since 1970-01-01, arrays (level, run) unless said otherwise."""

    rise: DaysFloat
    """End of the window at which the score rises through the level: the change is not after it."""
    fall: DaysFloat
    """Start of the window at which it falls through the level: the change is not before it."""
    cut_start: BoolArray
    """(run,) the series begins within the run, so `rise` bounds nothing."""
    cut_end: BoolArray
    """(run,) likewise at the series' end."""


def edges_of(
    series: FloatArray,
    at: npt.NDArray[np.intp],
    peak_at: npt.NDArray[np.intp],
    start: DaysFloat,
    end: DaysFloat,
    *,
    levels: tuple[float, ...] = EDGE_LEVELS,
) -> Edges:
    """Read the flanks of runs around their peaks, between two windows by linear interpolation.

    Parameters
    ----------
    series : ndarray of float32, shape (pixel, window)
        Scores in order of time.
    at, peak_at : ndarray of int, shape (run,)
        Row of `series` and window of the peak of each run.
    start, end : ndarray, shape (window,)
        First and last day of each window.
    levels : tuple of float
    """
    own, runs = series[at], np.arange(at.size)
    count = series.shape[1]
    position = np.arange(count)
    peak = own[runs, peak_at] if at.size else np.zeros(0, np.float32)
    rise, fall = np.zeros((2, len(levels), at.size))
    cut_start, cut_end = np.zeros((2, at.size), np.bool_)
    for number, level in enumerate(levels):
        limit = np.minimum(level, _OF_PEAK * peak)
        below = own < limit[:, None]
        before = np.where(below & (position < peak_at[:, None]), position, -1).max(axis=1, initial=-1)
        after = np.where(below & (position > peak_at[:, None]), position, count).min(axis=1, initial=count)
        rise[number] = _crossing(own, end, before, before + 1, limit)
        fall[number] = _crossing(own, start, after, after - 1, limit)
        if number == 0:
            cut_start, cut_end = before < 0, after >= count
    return Edges(rise, fall, cut_start, cut_end)


def _crossing(
    own: FloatArray,
    days: DaysFloat,
    outside: npt.NDArray[np.intp],
    inside: npt.NDArray[np.intp],
    limit: npt.NDArray[np.floating],
) -> DaysFloat:
    """Day (run,) at which the score passes `limit` between a window outside a run and the next one inside."""
    runs = np.arange(inside.size)
    known = (outside >= 0) & (outside < days.size)
    there = np.where(known, outside, inside)
    high, low = own[runs, inside].astype(np.float64), own[runs, there].astype(np.float64)
    share = np.where(known, (high - limit) / np.where(known, high - low, 1.0), 0.0)
    return days[inside] + share * (days[there] - days[inside])


# ---------------------------------------------------------------- from flanks to dates


@dataclass(frozen=True, eq=False)
class RunDates:
    """First and last day of change of each run (run,), int32 days since 1970-01-01, with bounds of 90 % intervals."""

    first: npt.NDArray[np.int32]
    first_low: npt.NDArray[np.int32]
    first_high: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    last_low: npt.NDArray[np.int32]
    last_high: npt.NDArray[np.int32]


def run_dates(edges: Edges, *, window_days: float) -> RunDates:
    """When the change behind each run began and ended.

    Parameters
    ----------
    edges : Edges
    window_days : float
        Longest span of a window.
    """
    lag = LAG_SHARE * window_days
    earliest, latest = edges.fall[0] - lag, edges.rise[0] - lag
    first = START_WEIGHT * earliest + (1 - START_WEIGHT) * latest
    first = np.where(edges.cut_start & ~edges.cut_end, earliest, first)
    first = np.where(edges.cut_end & ~edges.cut_start, latest, first)
    return RunDates(
        *(
            np.floor(days).astype(np.int32)
            for days in (first, first - lag, first + lag, first + 4 * lag, first + 2 * lag, first + 7 * lag)
        )
    )


def window_days_of(scores: xr.Dataset) -> float:
    """Longest span of a window of these scores: that of their era, else of the longest one that is there."""
    era = ERAS.get(str(scores.attrs.get("era", "")))
    if era is not None:
        return float(era.window_days)
    spans = scores["window_end"].values - scores["window_start"].values
    return float(spans.max() / np.timedelta64(1, "D"))
