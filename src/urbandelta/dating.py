"""When a pixel changed, from the run of windows that flag it.

A window flags a change that lies inside it. So the change lies inside every window of an unbroken run of flagged
windows: not before the start of the run's last window, not after the end of its first. Of several runs the one with the
highest score counts.

The two bounds differ. A change right at a window's start is flagged, since what is being built goes on rising inside
the window; but a window must go on for a while after a change before it can flag it. So the estimate is a weighted mean
of the start of the last window and of the end of the first, less `SIGHT_SHARE` of the window's length. Share and weight
were measured on simulated scenes of both eras with the shipped weights (`docs/products.md`).

A run that begins with the first window of the series was cut: windows before it would have flagged the change too, so
the end of its first window bounds nothing. The same holds for a run that ends with the last window. The estimate then
rests on the other bound alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from urbandelta.types import BoolArray, FloatArray

NO_DATE = -1
"""Nodata of maps of dates, counts and window numbers."""

SIGHT_SHARE = 0.2
"""How much of its length a window goes on after a change, at least, when it flags it; median 0.11 for s12, 0.08 to 0.28
from scene to scene for ers12ls5."""
START_WEIGHT = 0.7
"""Weight of the bound by the last window's start: it scatters by two thirds of what the other does."""

_NONE = np.int32(-1)


class StrongestRun:
    """Follows, pixel by pixel, the run of flagged windows with the highest score; windows come in order of time."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.first = np.full(shape, _NONE)
        """First window of the strongest run so far (y, x), -1 where no window was flagged."""
        self.last = np.full(shape, _NONE)
        self._peak = np.full(shape, -np.inf, np.float32)
        self._begun = np.full(shape, _NONE)
        self._running_peak = np.full(shape, -np.inf, np.float32)

    def add(self, window: int, scores: FloatArray, flagged: BoolArray) -> None:
        """Take the next window's scores (y, x) and which of them count as change (y, x)."""
        begins = flagged & (self._begun == _NONE)
        self._begun[begins] = window
        self._begun[~flagged] = _NONE
        self._running_peak[~flagged] = -np.inf
        np.maximum(self._running_peak, scores, out=self._running_peak, where=flagged)
        leads = flagged & ((self._running_peak > self._peak) | (self._begun == self.first))
        self.first[leads] = self._begun[leads]
        self.last[leads] = window
        np.maximum(self._peak, self._running_peak, out=self._peak, where=leads)

    def dates(self, start_days: npt.NDArray[np.float64], end_days: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Estimated day of change of each pixel.

        Parameters
        ----------
        start_days, end_days : ndarray of float64, shape (window,)
            First and last step of each window, days since 1970-01-01, in order of time.

        Returns
        -------
        ndarray of int32, shape (y, x)
            Days since 1970-01-01, -1 where no window is flagged.
        """
        flagged = self.first != _NONE
        days = np.full(self.first.shape, NO_DATE, np.int32)
        first, last = self.first[flagged], self.last[flagged]
        earliest, latest = start_days[last], end_days[first]
        seen = latest - SIGHT_SHARE * (end_days - start_days)[first]
        at_start, at_end = first == 0, last == len(start_days) - 1
        estimate = START_WEIGHT * earliest + (1 - START_WEIGHT) * seen
        estimate = np.where(at_start & ~at_end, earliest, estimate)
        estimate = np.clip(np.where(at_end & ~at_start, seen, estimate), np.minimum(earliest, latest), latest)
        days[flagged] = np.floor(estimate).astype(np.int32)
        return days
