"""How many independent looks a radar series has, from the series itself."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.types import Array, BoolArray

FEWEST, MOST = 0.5, 500.0
_MIN_RATIOS = 100
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def estimate_looks(series: Array, valid: BoolArray | None = None) -> float:
    """Equivalent number of looks (ENL) of a series, robust to change and to scene-wide drift.

    On unchanged ground the ratio of a pixel's consecutive observations follows an F distribution with (2 L, 2 L)
    degrees of freedom, whatever the pixel's brightness, so texture plays no part, and whatever the speckle's
    correlation between neighbouring pixels. The median of the absolute logarithm of all ratios determines L; a
    minority of changed pixels moves it little. Each date's median ratio is taken out first: the whole scene brightens
    and darkens with moisture and with the sensor. What still varies from date to date is not speckle alone (crops,
    moisture, changing geometry), so real scenes give fewer looks than the processor did; that is the number which the
    omnibus test needs, since its false alarms come from all of this variation.

    Parameters
    ----------
    series : ndarray, shape (time, y, x, polarisation)
        Intensity, linear power, oldest first. NaN, zero, negative and exactly repeated observations do not count.
    valid : ndarray of bool, shape (time, y, x), optional
        Observations to use.

    Returns
    -------
    float
        Between 0.5 and 500. Of several polarisations, all ratios are taken together.

    Raises
    ------
    ShapeError
        If the arrays are not of these shapes.
    ConfigError
        If there are fewer than 100 ratios.
    """
    series = np.asarray(series)
    if series.ndim != 4 or (valid is not None and valid.shape != series.shape[:3]):
        shape = None if valid is None else valid.shape
        raise ShapeError(f"series {series.shape} must be (time, y, x, polarisation) and valid {shape} its (time, y, x)")
    return looks_of_ratios(log_ratios(series, valid))


def log_ratios(series: Array, valid: BoolArray | None = None) -> npt.NDArray[np.float64]:
    """Absolute logarithms of the ratios of consecutive observations, each date's median taken out; flat."""
    series = np.asarray(series, np.float64)
    usable: BoolArray = np.logical_and.reduce(np.isfinite(series) & (series > 0), axis=3)
    if valid is not None:
        usable &= valid
    newest = np.full(series.shape[1:], np.nan)
    found = []
    for values, fresh in zip(series, usable, strict=True):
        fresh = fresh & ~(values == newest).all(axis=2)
        ratio = np.log(np.where(fresh[..., None], values, np.nan) / newest)
        for plane in np.moveaxis(ratio, 2, 0):
            known = plane[np.isfinite(plane)]
            if known.size:
                found.append(np.abs(known - np.median(known)) if known.size >= _MIN_RATIOS else np.abs(known))
        newest[fresh] = values[fresh]
    return np.concatenate(found) if found else np.empty(0)


def looks_of_ratios(ratios: npt.NDArray[np.float64]) -> float:
    """The number of looks whose ratios have the median absolute logarithm that these have."""
    if len(ratios) < _MIN_RATIOS:
        raise ConfigError(
            f"{len(ratios)} ratios of consecutive observations are too few to estimate looks from; give the number"
        )
    median = float(np.median(ratios))
    low, high = FEWEST, MOST
    for _ in range(50):
        middle = math.sqrt(low * high)
        # More looks, narrower distribution: the share below the median is too large, so there are fewer.
        low, high = (low, middle) if _share_below(median, middle) > 0.5 else (middle, high)
    return math.sqrt(low * high)


def _share_below(limit: float, looks: float) -> float:
    """Chance of |ln F| <= limit for F with (2 L, 2 L) degrees of freedom.

    The density of u = ln F is exp(L u) / (1 + exp(u))^(2 L) / B(L, L) = (2 cosh(u / 2))^(-2 L) / B(L, L).
    """
    u = (_NODES + 1) * limit / 2
    log_beta = 2 * math.lgamma(looks) - math.lgamma(2 * looks)
    density = np.exp(-2 * looks * np.log(2 * np.cosh(u / 2)) - log_beta)
    return float(limit * np.sum(_WEIGHTS * density))
