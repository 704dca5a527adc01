"""The flanks of a run of windows: between which windows the score rises, and between which it falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.types import BoolArray, FloatArray

DaysFloat = npt.NDArray[np.float64]

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
