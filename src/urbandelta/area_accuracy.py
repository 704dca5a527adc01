"""Areas and accuracies from a sample that was stratified by the map (Olofsson et al. 2014).

Counting pixels of a map measures the map, not the ground: its errors bias the area. A probability sample of the truth,
drawn within the classes of the map, gives the error matrix in proportions of area, from which the true areas and the
accuracies follow with standard errors.

References
----------
.. [1] Olofsson et al., Good practices for estimating area and assessing accuracy of land change, Remote Sensing of
   Environment 148 (2014), doi:10.1016/j.rse.2014.02.015
.. [2] Cochran, Sampling Techniques, 3rd edition (1977), chapter 5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ShapeError
from urbandelta.metrics import ratio

__all__ = ["AreaAccuracy", "Estimated", "area_accuracy", "stratified_sample"]

Z95 = 1.96
"""As the paper has it; the normal quantile to more digits changes nothing that a sample could tell."""


@dataclass(frozen=True)
class Estimated:
    """An estimate with its standard error; the interval is the estimate plus or minus 1.96 of them (95 %)."""

    value: float
    standard_error: float

    @property
    def margin(self) -> float:
        """Half of the 95 % interval."""
        return Z95 * self.standard_error

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval; not cut to 0..1, where it reaches beyond the normal approximation fails."""
        return self.value - self.margin, self.value + self.margin


@dataclass(frozen=True, kw_only=True, eq=False)
class AreaAccuracy:
    """Estimates of one map, by class in the order of the matrix."""

    proportions: npt.NDArray[np.float64]
    """Error matrix in proportions of area, (map class, true class); its sum is 1."""
    overall: Estimated
    users: tuple[Estimated, ...]
    """Of what is mapped as the class, the share that is it (precision)."""
    producers: tuple[Estimated, ...]
    """Of what is the class, the share that is mapped so (recall)."""
    areas: tuple[Estimated, ...]
    """True area of each class, in the unit of the mapped areas."""
    mapped_areas: tuple[float, ...]
    sample_sizes: tuple[int, ...]


def area_accuracy(
    matrix: npt.ArrayLike, mapped_areas: Sequence[float], *, population: Sequence[float] | None = None
) -> AreaAccuracy:
    """Estimate areas and accuracies from the error matrix of a sample stratified by map class.

    Parameters
    ----------
    matrix : array_like of int, shape (class, class)
        Sample units by map class (row, which is the stratum) and true class (column).
    mapped_areas : sequence of float
        Area that is mapped as each class.
    population : sequence of float, optional
        Number of units in each stratum. With it, each stratum's variance gets the finite population factor
        1 - n / N [2]_: a truth that covers every unit has no sampling error. Without it as in [1]_.

    Returns
    -------
    AreaAccuracy
        A standard error is NaN where a stratum that counts has fewer than two units and is not covered wholly.

    Raises
    ------
    ShapeError
        If the matrix is not square, does not fit the areas, or a class is mapped but was not sampled.
    """
    n = np.asarray(matrix, np.float64)
    area = np.asarray(mapped_areas, np.float64)
    if n.ndim != 2 or n.shape[0] != n.shape[1] or area.shape != n.shape[:1]:
        raise ShapeError(f"an error matrix of shape {n.shape} with {area.size} mapped areas; need (k, k) and k")
    if (n < 0).any() or (area < 0).any() or not area.sum() > 0:
        raise ShapeError("sample counts and mapped areas must not be negative, and some area must be mapped")
    size = n.sum(axis=1)
    if ((size == 0) & (area > 0)).any():
        row = int(np.flatnonzero((size == 0) & (area > 0))[0])
        raise ShapeError(f"map class {row} covers an area of {area[row]:g} but has no sample unit; sample it too")
    total = float(area.sum())
    weight = area / total
    share = np.divide(n, size[:, None], out=np.zeros_like(n), where=size[:, None] > 0)
    proportions = weight[:, None] * share
    spread = _variance_factor(size, area, population)
    hit = np.diag(share)
    true_share = proportions.sum(axis=0)
    classes = range(len(area))
    # Equations 5, 6, 10 of the paper, and its equation 7 with the stratum's areas instead of its pixel counts.
    return AreaAccuracy(
        proportions=proportions,
        overall=Estimated(float(np.trace(proportions)), _root((weight**2 * hit * (1 - hit) * spread).sum())),
        users=tuple(
            Estimated(float(hit[i]) if size[i] else float("nan"), _root(hit[i] * (1 - hit[i]) * spread[i]))
            for i in classes
        ),
        producers=tuple(_producers(j, proportions, share, area, spread) for j in classes),
        areas=tuple(
            Estimated(
                float(true_share[j]) * total,
                total * _root((weight**2 * share[:, j] * (1 - share[:, j]) * spread).sum()),
            )
            for j in classes
        ),
        mapped_areas=tuple(float(value) for value in area),
        sample_sizes=tuple(int(value) for value in size),
    )


def _producers(
    j: int,
    proportions: npt.NDArray[np.float64],
    share: npt.NDArray[np.float64],
    area: npt.NDArray[np.float64],
    spread: npt.NDArray[np.float64],
) -> Estimated:
    truly = float(proportions[:, j].sum()) * float(area.sum())
    accuracy = ratio(float(proportions[j, j]) * float(area.sum()), truly)
    if math.isnan(accuracy):
        return Estimated(accuracy, accuracy)
    terms = area**2 * share[:, j] * (1 - share[:, j]) * spread
    others = float(np.delete(terms, j).sum())
    return Estimated(accuracy, _root((terms[j] * (1 - accuracy) ** 2 + accuracy**2 * others) / truly**2))


def _variance_factor(
    size: npt.NDArray[np.float64], area: npt.NDArray[np.float64], population: Sequence[float] | None
) -> npt.NDArray[np.float64]:
    """What turns p (1 - p) of a stratum into the variance of its estimated share."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(size > 1, 1 / (size - 1), np.nan)
    if population is not None:
        units = np.asarray(population, np.float64)
        if units.shape != size.shape or (units < size).any():
            raise ShapeError(f"{size.tolist()} sample units in strata of {units.tolist()}; a stratum holds them all")
        left = np.divide(units - size, units, out=np.zeros_like(units), where=units > 0)
        factor = np.where(left == 0, 0.0, factor * left)
    return np.where(area > 0, factor, 0.0)


def _root(variance: float) -> float:
    return float(np.sqrt(variance))


def stratified_sample(strata: npt.NDArray[np.int64], per_stratum: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Positions of a simple random sample within each stratum, without replacement, ascending.

    Parameters
    ----------
    strata : ndarray of int, shape (n,)
        Stratum of each unit.
    per_stratum : int
        Units to draw from each; all of a smaller one.
    seed : int
    """
    if per_stratum < 1:
        raise ShapeError(f"a sample of {per_stratum} units a stratum; draw at least 1, and 2 for a standard error")
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(members, min(per_stratum, members.size), replace=False)
        for members in (np.flatnonzero(strata == stratum) for stratum in np.unique(strata))
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.array([], np.intp)
