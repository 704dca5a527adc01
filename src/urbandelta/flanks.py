"""The flanks of a run of windows: between which windows the score rises, and between which it falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.types import BoolArray, FloatArray

DaysFloat = npt.NDArray[np.float64]

EDGE_LEVEL = 0.2
"""Score at which the flanks of a run are read: they tell more than its plateau."""
_OF_PEAK = 0.9
"""A run that hardly reaches the level is read at this share of its own peak."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Where runs begin and end; all arrays are (run,), days are since 1970-01-01."""

    rise: DaysFloat
    """Day by which the window ends at which the score rises through the level: the change is hardly after it."""
    fall: DaysFloat
    """Day on which the window starts at which it falls through the level: the change is hardly before it."""
    cut_start: BoolArray
    """The series begins within the run, so `rise` bounds nothing."""
    cut_end: BoolArray
    """The series ends within the run, so `fall` bounds nothing."""
    after: npt.NDArray[np.int32]
    """First window behind the run that lies below the level; the number of windows if there is none."""


def edges_of(
    series: FloatArray,
    at: npt.NDArray[np.intp],
    peak_at: npt.NDArray[np.intp],
    start: DaysFloat,
    end: DaysFloat,
    *,
    level: float = EDGE_LEVEL,
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
    level : float
    """
    own, runs = series[at], np.arange(at.size)
    count = series.shape[1]
    position = np.arange(count)
    limit = np.minimum(level, _OF_PEAK * own[runs, peak_at])
    below = own < limit[:, None]
    before = np.where(below & (position < peak_at[:, None]), position, -1).max(axis=1, initial=-1)
    after = np.where(below & (position > peak_at[:, None]), position, count).min(axis=1, initial=count)
    return Edges(
        rise=_crossing(own, end, before, before + 1, limit),
        fall=_crossing(own, start, after, after - 1, limit),
        cut_start=before < 0,
        cut_end=after >= count,
        after=after.astype(np.int32),
    )


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
