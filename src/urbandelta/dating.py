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

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.eras import ERAS
from urbandelta.flanks import DaysFloat, Edges
from urbandelta.score_runs import find_runs
from urbandelta.types import BoolArray, FloatArray

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


CUTS = ("none", "start", "end", "both")
"""Ways in which the ends of the series cut a run."""
_DEFAULT_ROW = "s12"


@cache
def date_table() -> Mapping[str, Any]:
    """Constants of every era: for each date and cut, a pair (a, b) of both bounds and the middle.

    A date is `anchor + window_days * (a + b * (rise - fall) / window_days)`. Made by `experiments/dating/fit.py`.
    """
    text = files("urbandelta").joinpath("data/dating.json").read_text("utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


def anchors(edges: Edges, which: str, cut: str) -> DaysFloat:
    """The day (run,) from which a date is counted: a mean of both bounds, or the only one that the series left.

    Parameters
    ----------
    edges : Edges
    which : {"first", "last"}
        A last date hangs on the fall, unless the series ends before it.
    cut : str
        One of `CUTS`.
    """
    rise, fall = edges.rise, edges.fall
    if cut == "end":
        return rise
    if which == "last" or cut == "start":
        return fall
    return START_WEIGHT * fall + (1 - START_WEIGHT) * rise


def run_dates(
    edges: Edges, *, window_days: float, era: str = _DEFAULT_ROW, table: Mapping[str, Any] | None = None
) -> RunDates:
    """When the change behind each run began and ended.

    Parameters
    ----------
    edges : Edges
    window_days : float
        Longest span of a window.
    era : str
        Row of the table; of an era that it does not have, constants are those of `s12` times the window's length.
    table : mapping, optional
        A row to use in place of the shipped one.
    """
    row = table or date_table().get(era) or date_table()[_DEFAULT_ROW]
    width = (edges.rise - edges.fall) / window_days
    number = edges.cut_start + 2 * edges.cut_end
    days: dict[str, npt.NDArray[np.int32]] = {}
    for which in ("first", "last"):
        found = np.zeros((3, number.size))
        for cut, name in enumerate(CUTS):
            mine = number == cut
            anchor = anchors(edges, which, name)[mine]
            for bound, key in enumerate(("low", "middle", "high")):
                a, b = row[which][name][key]
                found[bound, mine] = anchor + window_days * (a + b * width[mine])
        days[which] = np.floor(found[1]).astype(np.int32)
        days[f"{which}_low"] = np.minimum(np.floor(found[0]), days[which]).astype(np.int32)
        days[f"{which}_high"] = np.maximum(np.ceil(found[2]), days[which]).astype(np.int32)
    days["last"] = np.maximum(days["last"], days["first"])
    days["last_high"] = np.maximum(days["last_high"], days["last"])
    return RunDates(**days)


def window_days_of(scores: xr.Dataset) -> float:
    """Longest span of a window of these scores: that of their era, else of the longest one that is there."""
    era = ERAS.get(str(scores.attrs.get("era", "")))
    if era is not None:
        return float(era.window_days)
    spans = scores["window_end"].values - scores["window_start"].values
    return float(spans.max() / np.timedelta64(1, "D"))


# ---------------------------------------------------------------- maps


@dataclass(frozen=True, eq=False)
class DateMaps:
    """When each pixel's strongest change began and ended; every map is (y, x), int32 days since 1970-01-01, -1 none.

    The bounds are those of 90 % intervals. `duration` is `last - first`.
    """

    first: npt.NDArray[np.int32]
    first_low: npt.NDArray[np.int32]
    first_high: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    last_low: npt.NDArray[np.int32]
    last_high: npt.NDArray[np.int32]

    @property
    def duration(self) -> npt.NDArray[np.int32]:
        """Days from first to last (y, x); -1 where nothing changed."""
        return np.where(self.first == NO_DATE, NO_DATE, self.last - self.first).astype(np.int32)


def date_maps(scores: xr.Dataset, *, threshold: float = 0.5, low: float = 0.3) -> DateMaps:
    """Date the strongest run of every pixel that reaches the threshold.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    threshold, low : float
        As in `EventOptions`.
    """
    runs = find_runs(scores, threshold=threshold, low=low, floor=threshold)
    shape = (scores.sizes["y"], scores.sizes["x"])
    # The last of equal keys stays when a pixel is written twice: strongest last, of equals the earliest.
    order = np.lexsort((-runs.first, runs.peak))
    dates = run_dates(runs.edges, window_days=window_days_of(scores), era=str(scores.attrs.get("era", "")))
    maps = []
    for name in ("first", "first_low", "first_high", "last", "last_low", "last_high"):
        image = np.full(shape, NO_DATE, np.int32)
        image.flat[runs.pixel[order]] = getattr(dates, name)[order]
        maps.append(image)
    return DateMaps(*maps)
