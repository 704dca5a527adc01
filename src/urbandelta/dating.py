"""When a pixel changed, and until when, from the run of windows that flag it.

A window flags a change that lies inside it. So the change lies inside every window of an unbroken run of flagged
windows: after the start of the run's last window, before the end of its first. `flanks` finds both bounds; a date is a
weighted mean of them moved by a constant of the era, and the bounds of its interval likewise. The constants are fitted
on simulated scenes (`docs/dates.md`); of several runs that reach the threshold, the one with the highest score counts.

A run that begins with the first window of the series was cut: windows before it would have flagged the change too, so
the end of its first window bounds nothing. The same holds for a run that ends with the last window. The estimate then
rests on the other bound alone, and has constants of its own.

Where the cube is at hand, `observed_dates` sharpens these dates by what the pixels showed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.eras import ERAS
from urbandelta.errors import GridError
from urbandelta.flanks import DaysFloat, Edges
from urbandelta.observed_dates import BOUNDS, observed_dates, observed_table, whole_days
from urbandelta.score_runs import Runs, WindowTable, find_runs

if TYPE_CHECKING:
    from urbandelta.store import Cube

DateSource: TypeAlias = Literal["observations", "scores"]
"""What dates rest on: the observations of each pixel, or the run of flagged windows alone."""

NO_DATE = -1
"""Nodata of maps of dates, counts and window numbers."""

LOW = 0.3
"""Windows of at least this belong to a run, where nothing else is said."""
START_WEIGHT = 0.7
"""Weight of the bound by the last window's start: it scatters by two thirds of what the other does."""


@dataclass(frozen=True, eq=False)
class RunDates:
    """First and last day of change of each run (run,), int32 days since 1970-01-01, with bounds of 90 % intervals."""

    first: npt.NDArray[np.int32]
    first_low: npt.NDArray[np.int32]
    first_high: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    last_low: npt.NDArray[np.int32]
    last_high: npt.NDArray[np.int32]
    source: DateSource = "scores"

    def take(self, index: npt.NDArray[np.intp]) -> RunDates:
        """Those of some runs."""
        return replace(self, **{name: getattr(self, name)[index] for name in BOUNDS})

    def copy(self) -> RunDates:
        """The same, to `put` others in."""
        return replace(self, **{name: getattr(self, name).copy() for name in BOUNDS})

    def put(self, index: npt.NDArray[np.intp], dates: RunDates) -> None:
        """Put the dates of some runs in their places."""
        for name in BOUNDS:
            getattr(self, name)[index] = getattr(dates, name)


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
    bounds: dict[str, DaysFloat] = {}
    for which in ("first", "last"):
        found = np.zeros((3, number.size))
        for cut, name in enumerate(CUTS):
            mine = number == cut
            anchor = anchors(edges, which, name)[mine]
            for bound, key in enumerate(("low", "middle", "high")):
                a, b = row[which][name][key]
                found[bound, mine] = anchor + window_days * (a + b * width[mine])
        bounds[f"{which}_low"], bounds[which], bounds[f"{which}_high"] = found
    days: Any = whole_days(bounds)
    return RunDates(**days)


def dates_of(
    runs: Runs,
    windows: WindowTable,
    shape: tuple[int, int],
    *,
    window_days: float,
    era: str = _DEFAULT_ROW,
    cube: Cube | None = None,
) -> RunDates:
    """When the change behind each run began and ended, as well as can be told.

    Parameters
    ----------
    runs : Runs
    windows : WindowTable
    shape : (y, x)
        Of the scores.
    window_days, era
        As for `run_dates`.
    cube : Cube, optional
        That of the scores. With it, and if the era is calibrated, dates of runs that reach the threshold rest on the
        observations; without it, all rest on the scores.

    Raises
    ------
    GridError
        If the cube has another shape than the scores.
    """
    dates = run_dates(runs.edges, window_days=window_days, era=era)
    row = observed_table().get(era)
    if cube is None or row is None:
        return dates
    if cube.grid.shape != shape:
        raise GridError(f"the scores are {shape} pixels, the cube {cube.grid.shape}; pass the cube that they come from")
    core = np.flatnonzero(runs.above > 0)
    sharper = observed_dates(runs.take(core), dates.take(core), windows, cube, window_days=window_days, row=row)
    if sharper is None:
        return dates
    dates.put(core, sharper)
    return replace(dates, source=sharper.source)


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
    source: DateSource = "scores"

    @property
    def duration(self) -> npt.NDArray[np.int32]:
        """Days from first to last (y, x); -1 where nothing changed."""
        return np.where(self.first == NO_DATE, NO_DATE, self.last - self.first).astype(np.int32)


def date_maps(scores: xr.Dataset, *, threshold: float = 0.5, low: float = LOW, cube: Cube | None = None) -> DateMaps:
    """Date the strongest run of every pixel that reaches the threshold.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    threshold, low : float
        As in `EventOptions`.
    cube : Cube, optional
        That of the scores, see `dates_of`.

    Raises
    ------
    GridError
        If the cube has another shape than the scores.
    """
    runs = find_runs(scores, threshold=threshold, low=low, floor=threshold)
    shape = (scores.sizes["y"], scores.sizes["x"])
    # The last of equal keys stays when a pixel is written twice: strongest last, of equals the earliest.
    order = np.lexsort((-runs.first, runs.peak))
    era = str(scores.attrs.get("era", ""))
    dates = dates_of(runs, WindowTable.of(scores), shape, window_days=window_days_of(scores), era=era, cube=cube)
    maps = {}
    for name in BOUNDS:
        image = np.full(shape, NO_DATE, np.int32)
        image.flat[runs.pixel[order]] = getattr(dates, name)[order]
        maps[name] = image
    return DateMaps(**maps, source=dates.source)
