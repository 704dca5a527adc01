"""A map of scores against a map of true change dates, pixel by pixel.

These are the plain measures for a picture of one scene. They say nothing about an area that was not mapped, and
pixels of one building are not independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ShapeError
from urbandelta.metrics import Counts, roc_auc
from urbandelta.products import NO_DATE, DaysArray, ScoreMaps, days_of
from urbandelta.types import BoolArray

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """How maps agree with truth over the pixels that both describe."""

    hits: BoolArray
    """Changed in truth and found, (y, x)."""
    misses: BoolArray
    false_alarms: BoolArray
    pixels: int
    """Pixels that were compared."""
    changed: int
    """Of them, pixels that changed in truth."""
    left_out: int
    """Pixels that changed before or after the time that the windows span: not comparable, counted nowhere else."""
    roc_auc: float
    precision: float
    recall: float
    f1: float
    threshold: float
    date_error_days: npt.NDArray[np.int32]
    """Estimated minus true date of change of each hit, shape (hit,)."""

    @property
    def median_absolute_date_error(self) -> float:
        """Days; NaN if there is no hit."""
        return float(np.median(np.abs(self.date_error_days))) if self.date_error_days.size else float("nan")

    @property
    def median_date_error(self) -> float:
        """Days, positive if the maps are late; NaN if there is no hit."""
        return float(np.median(self.date_error_days)) if self.date_error_days.size else float("nan")


def agreement(maps: ScoreMaps, truth: DaysArray, *, start: np.datetime64, end: np.datetime64) -> Agreement:
    """Compare maps of change with true dates of change.

    Parameters
    ----------
    maps : ScoreMaps
    truth : ndarray of int32, shape (y, x)
        Days since 1970-01-01 of the first change, -1 where there was none.
    start, end : datetime64
        What the windows span together. A change outside cannot be seen and is left out.

    Raises
    ------
    ShapeError
        If truth and maps differ in shape.
    """
    if truth.shape != maps.maximum.shape:
        raise ShapeError(f"truth has shape {truth.shape}, the scores have {maps.maximum.shape}; they must share a grid")
    happened = truth != NO_DATE
    visible = (truth >= days_of(start)) & (truth <= days_of(end))
    scored = np.isfinite(maps.maximum)
    compared = scored & (visible | ~happened)
    changed = visible & compared
    found = compared & (maps.maximum >= maps.threshold)
    hits = changed & found
    rest = compared & ~changed & ~found
    counts = Counts(*(int(np.count_nonzero(m)) for m in (hits, changed & ~found, found & ~changed, rest)))
    return Agreement(
        hits=hits,
        misses=changed & ~found,
        false_alarms=found & ~changed,
        pixels=counts.pixels,
        changed=int(np.count_nonzero(changed)),
        left_out=int(np.count_nonzero(scored & happened & ~visible)),
        roc_auc=roc_auc(maps.maximum[compared], changed[compared]),
        precision=counts.precision,
        recall=counts.recall,
        f1=counts.f1,
        threshold=maps.threshold,
        date_error_days=(maps.change_date[hits] - truth[hits]).astype(np.int32),
    )
