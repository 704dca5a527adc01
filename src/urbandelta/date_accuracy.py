"""How far estimated dates of change lie from true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.bootstrap import block_numbers, draws, interval
from urbandelta.metrics import ratio
from urbandelta.products import NO_DATE, DaysArray
from urbandelta.truth import Truth
from urbandelta.types import BoolArray

__all__ = ["DateErrors", "date_errors", "days_off"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DateErrors:
    """Errors of the dates of the hits, in days; positive is late."""

    errors: npt.NDArray[np.int32]
    """(hit,); 0 where the truth is a span that holds the estimate."""
    tolerance_days: int
    best_constant_mae: float
    """Mean absolute error of the one date that suits all these hits best: what the dates must beat."""
    mean_absolute_interval: tuple[float, float]
    within_interval: tuple[float, float]

    @property
    def count(self) -> int:
        """Hits with a true and an estimated date."""
        return int(self.errors.size)

    @property
    def median(self) -> float:
        """Median error, with its sign."""
        return float(np.median(self.errors))

    @property
    def median_absolute(self) -> float:
        """Median of the absolute errors."""
        return float(np.median(np.abs(self.errors)))

    @property
    def mean_absolute(self) -> float:
        """Mean of the absolute errors."""
        return float(np.abs(self.errors).mean())

    @property
    def within(self) -> float:
        """Share of the hits whose error is at most the tolerance."""
        return float((np.abs(self.errors) <= self.tolerance_days).mean())


def days_off(estimate: DaysArray, earliest: DaysArray, latest: DaysArray) -> npt.NDArray[np.int32]:
    """Days from the nearest day of a span to the estimate: 0 inside, negative before, positive after."""
    off: npt.NDArray[np.int32] = (np.minimum(estimate - earliest, 0) + np.maximum(estimate - latest, 0)).astype(
        np.int32
    )
    return off


def date_errors(
    sites: Sequence[tuple[Truth, DaysArray, BoolArray]],
    *,
    tolerance_days: int,
    block_px: int,
    rounds: int,
    seed: int,
) -> DateErrors | None:
    """Date errors of sites together, each given by its truth, the estimated days (y, x), and the hits (y, x).

    Misses have no date and false alarms no truth; neither counts. None if no hit has a true date.
    """
    errors, middles, sums = [], [], []
    for truth, estimate, hits in sites:
        dated = hits & (truth.earliest != NO_DATE) & (estimate != NO_DATE)
        off = days_off(estimate[dated], truth.earliest[dated], truth.latest[dated])
        errors.append(off)
        middles.append((truth.earliest[dated].astype(np.int64) + truth.latest[dated]) // 2)
        blocks = block_numbers(dated, block_px)
        number = int(blocks.max(initial=-1)) + 1
        sums.append(
            np.stack(
                [
                    np.bincount(blocks, weights, minlength=number)
                    for weights in (np.ones(off.size), np.abs(off), np.abs(off) <= tolerance_days)
                ],
                axis=1,
            )
        )
    together = np.concatenate(errors)
    if not together.size:
        return None
    middle = np.concatenate(middles)
    mean_absolute, within = [], []
    if rounds and sum(len(each) for each in sums) > 1:
        for times in draws([len(each) for each in sums], rounds=rounds, seed=seed):
            count, absolute, inside = np.sum([t @ each for t, each in zip(times, sums, strict=True)], axis=0)
            mean_absolute.append(ratio(absolute, count))
            within.append(ratio(inside, count))
    return DateErrors(
        errors=together,
        tolerance_days=tolerance_days,
        best_constant_mae=float(np.abs(middle - np.median(middle)).mean()),
        mean_absolute_interval=interval(mean_absolute),
        within_interval=interval(within),
    )
