"""Measures of a map of scores against truth: counts at a threshold, curves over all thresholds, calibration.

Everything is computed from a `Tally`: the distinct scores, and how many changed and unchanged pixels have each. So
equal scores are never torn apart by the order in which pixels come, tallies of blocks and sites add up to the tally
of all, and memory depends on the number of distinct scores. A tally is exact until it is told to be `coarsened`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ShapeError

__all__ = [
    "Calibration",
    "Counts",
    "Curve",
    "Tally",
    "average_precision",
    "best_f1",
    "calibration",
    "counts_at",
    "merge",
    "pr_curve",
    "ratio",
    "roc_auc",
    "roc_curve",
    "tally",
    "tally_roc_auc",
]

MOST_VALUES = 2**22
"""Distinct scores that a tally keeps apart: 80 MB, and more than a map of 2000 x 2000 pixels can hold."""


def ratio(part: float, whole: float) -> float:
    """`part / whole`; NaN where there is no whole, since a measure of nothing is not zero."""
    return float(part) / float(whole) if whole else float("nan")


# ---------------------------------------------------------------- at one threshold


@dataclass(frozen=True)
class Counts:
    """Pixels by what the map and the truth say; they add up, and every measure of them may be NaN."""

    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.false_alarms + other.false_alarms,
            self.correct_rejections + other.correct_rejections,
        )

    @property
    def pixels(self) -> int:
        """All pixels."""
        return self.hits + self.misses + self.false_alarms + self.correct_rejections

    @property
    def precision(self) -> float:
        """Share of the flagged pixels that changed (user's accuracy of change)."""
        return ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """Share of the changed pixels that are flagged (producer's accuracy of change)."""
        return ratio(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    @property
    def iou(self) -> float:
        """Intersection over union of what is flagged and what changed."""
        return ratio(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def overall(self) -> float:
        """Share of the pixels on which map and truth agree. High wherever change is rare, whatever the map."""
        return ratio(self.hits + self.correct_rejections, self.pixels)

    @property
    def false_alarm_rate(self) -> float:
        """Share of the unchanged pixels that are flagged."""
        return ratio(self.false_alarms, self.false_alarms + self.correct_rejections)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond that of two independent maps with the same shares."""
        n = self.pixels
        flagged, changed = self.hits + self.false_alarms, self.hits + self.misses
        by_chance = ratio(flagged * changed + (n - flagged) * (n - changed), n * n)
        return ratio(self.overall - by_chance, 1 - by_chance)


# ---------------------------------------------------------------- over all thresholds


@dataclass(frozen=True, eq=False)
class Tally:
    """Distinct scores, ascending, each with its number of changed and of unchanged pixels; arrays (score,)."""

    values: npt.NDArray[np.float64]
    changed: npt.NDArray[np.int64]
    unchanged: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    """Sum of the scores of the pixels; `values` times their number while the tally is exact."""
    exact: bool = True
    """Whether different scores are still told apart."""

    @property
    def changed_pixels(self) -> int:
        """Changed pixels of all scores."""
        return int(self.changed.sum())

    @property
    def unchanged_pixels(self) -> int:
        """Unchanged pixels of all scores."""
        return int(self.unchanged.sum())

    def coarsened(self, most: int = MOST_VALUES) -> Tally:
        """At most `most` values: runs of neighbouring scores become one, named by the lowest of them.

        Counts at a threshold that is a kept value stay exact; areas under curves move by less than half the largest
        share of pixels in one run.
        """
        if len(self.values) <= most:
            return self
        first = np.arange(0, len(self.values), -(-len(self.values) // most))
        return Tally(
            self.values[first],
            np.add.reduceat(self.changed, first),
            np.add.reduceat(self.unchanged, first),
            np.add.reduceat(self.sums, first),
            exact=False,
        )


@dataclass(frozen=True, eq=False)
class Curve:
    """Points (x, y) of a curve over thresholds, from the highest threshold down; arrays (point,)."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float64]
    """A pixel is flagged if its score is at least this; +inf flags none."""

    def thinned(self, points: int) -> Curve:
        """At most about `points` of the points, evenly spread along the curve's length, its ends included."""
        if len(self.x) <= points:
            return self
        length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(self.x), np.diff(self.y)))])
        at = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(self.x) - 1))
        at = np.union1d(at, [0, len(self.x) - 1])
        return Curve(self.x[at], self.y[at], self.thresholds[at])


def tally(scores: npt.ArrayLike, changed: npt.ArrayLike) -> Tally:
    """Count the changed and the unchanged pixels of each distinct score.

    Parameters
    ----------
    scores : array_like of float, any shape
        Finite.
    changed : array_like of bool, same shape

    Raises
    ------
    ShapeError
        If the shapes differ or a score is not finite: what was not scored must be left out first, not counted as 0.
    """
    flat, truth = np.asarray(scores, np.float64).ravel(), np.asarray(changed, np.bool_).ravel()
    if flat.shape != truth.shape:
        raise ShapeError(f"{flat.size} scores and {truth.size} truths; there must be one of each a pixel")
    if not np.isfinite(flat).all():
        raise ShapeError("a score is NaN or infinite; leave out pixels that were not scored")
    values, group = np.unique(flat, return_inverse=True)
    positive = np.bincount(group[truth], minlength=len(values)).astype(np.int64)
    negative = np.bincount(group[~truth], minlength=len(values)).astype(np.int64)
    return Tally(values, positive, negative, values * (positive + negative))


def merge(parts: Sequence[Tally]) -> Tally:
    """The tally of all pixels together; scores that several parts hold are counted together."""
    if not parts:
        none = np.array([], np.int64)
        return Tally(none.astype(np.float64), none, none, none.astype(np.float64))
    values, group = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)

    def summed(name: str) -> npt.NDArray[np.float64]:
        weights = np.concatenate([getattr(part, name) for part in parts])
        return np.bincount(group, weights, minlength=len(values)).astype(np.float64)

    # Counts stay whole in double precision up to 9e15 pixels.
    changed, unchanged = (summed(name).round().astype(np.int64) for name in ("changed", "unchanged"))
    return Tally(values, changed, unchanged, summed("sums"), exact=all(part.exact for part in parts))


def counts_at(pixels: Tally, threshold: float) -> Counts:
    """Counts if every pixel whose score is at least `threshold` is flagged."""
    first = int(np.searchsorted(pixels.values, threshold, side="left"))
    hits, false_alarms = int(pixels.changed[first:].sum()), int(pixels.unchanged[first:].sum())
    return Counts(hits, pixels.changed_pixels - hits, false_alarms, pixels.unchanged_pixels - false_alarms)


def _flagged(pixels: Tally) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Thresholds from +inf down, with the changed and the unchanged pixels that each flags."""
    thresholds = np.concatenate([[np.inf], pixels.values[::-1]])
    zero = np.zeros(1, np.int64)
    return (
        thresholds,
        np.concatenate([zero, np.cumsum(pixels.changed[::-1])]),
        np.concatenate([zero, np.cumsum(pixels.unchanged[::-1])]),
    )


def roc_curve(pixels: Tally) -> Curve:
    """Receiver operating characteristic: x the false-alarm rate, y the recall; NaN for a class that does not occur."""
    thresholds, hits, false_alarms = _flagged(pixels)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curve(false_alarms / false_alarms[-1], hits / hits[-1], thresholds)


def tally_roc_auc(pixels: Tally) -> float:
    """Area under the ROC curve: the chance that a changed pixel outscores an unchanged one, ties counting one half.

    NaN unless both classes occur.
    """
    lower = np.cumsum(pixels.unchanged) - pixels.unchanged
    won = float((pixels.changed * (lower + pixels.unchanged / 2)).sum())
    return ratio(won, float(pixels.changed_pixels) * pixels.unchanged_pixels)


def roc_auc(scores: npt.ArrayLike, changed: npt.ArrayLike) -> float:
    """Area under the ROC curve of scores (n,) against truth (n,); see `tally_roc_auc`."""
    return tally_roc_auc(tally(scores, changed))


def pr_curve(pixels: Tally) -> Curve:
    """Precision-recall curve: x the recall, y the precision; it begins at the highest score, not at a made-up point."""
    thresholds, hits, false_alarms = _flagged(pixels)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curve(hits[1:] / hits[-1], hits[1:] / (hits[1:] + false_alarms[1:]), thresholds[1:])


def average_precision(pixels: Tally) -> float:
    """Area under the precision-recall curve as a sum of steps: each gain in recall at the precision reached there.

    A straight line between points would be too good [1]_. A map without skill has the share of changed pixels; NaN if
    nothing changed.

    References
    ----------
    .. [1] Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006
    """
    if not pixels.changed_pixels:
        return float("nan")
    _, hits, false_alarms = _flagged(pixels)
    gain = np.diff(hits) / hits[-1]
    return float((gain * hits[1:] / np.maximum(hits[1:] + false_alarms[1:], 1)).sum())


def best_f1(pixels: Tally) -> tuple[float, float]:
    """The threshold with the highest F1 and that F1; of equal ones the highest threshold. NaN if nothing changed.

    Chosen on the very truth that it is measured on, this F1 is optimistic: use it to compare, not to claim.
    """
    if not pixels.changed_pixels:
        return float("nan"), float("nan")
    thresholds, hits, false_alarms = _flagged(pixels)
    f1 = 2 * hits / (hits + false_alarms + hits[-1])
    at = int(f1.argmax())
    return float(thresholds[at]), float(f1[at])


# ---------------------------------------------------------------- calibration


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often pixels of about the same score did change; arrays (bin,), bins without pixels left out."""

    mean_score: npt.NDArray[np.float64]
    changed_share: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]
    expected_error: float
    """Mean of |mean score - changed share| over the pixels (expected calibration error)."""
    largest_error: float


def calibration(pixels: Tally, *, bins: int = 10) -> Calibration:
    """Calibration of scores in 0..1 in `bins` equal bins; the last one holds 1 too."""
    at = np.minimum((pixels.values * bins).astype(np.int64), bins - 1)
    if at.size and (at.min() < 0 or pixels.values.max() > 1):
        raise ShapeError("calibration is of scores in 0..1; these reach beyond")
    number = np.bincount(at, pixels.changed + pixels.unchanged, minlength=bins)
    held = number > 0
    share = np.bincount(at, pixels.changed, minlength=bins)[held] / number[held]
    mean = np.bincount(at, pixels.sums, minlength=bins)[held] / number[held]
    gap = np.abs(mean - share)
    return Calibration(
        mean_score=mean,
        changed_share=share,
        pixels=number[held].astype(np.int64),
        expected_error=ratio(float((gap * number[held]).sum()), float(number.sum())),
        largest_error=float(gap.max()) if gap.size else float("nan"),
    )
