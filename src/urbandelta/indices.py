"""Spectral indices by band role: ENDISI, which rises with built-up ground.

References
----------
.. [1] Chen et al., Remote Sensing 11(12), 1446 (2019), doi:10.3390/rs11121446
.. [2] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Era, era_named
from urbandelta.errors import ConfigError, ShapeError
from urbandelta.omnibus import check_mode
from urbandelta.types import Array, BoolArray, FloatArray

ROLES = ("blue", "green", "swir16", "swir22")
"""Bands that ENDISI reads, as STAC common names."""

_F32 = np.float32


class EndisiBeta(NamedTuple):
    """What scales ENDISI to an area.

    `coefficients` (3,) float32 are the means of blue, of SWIR1 / SWIR2 and of MNDWI squared; of several tiles they are
    summed before `beta = 2 blue / (ratio + mndwi^2)` is taken.
    """

    coefficients: FloatArray
    beta: float


def era_row(era: Era | str) -> Era:
    """The row of an era given by name or as a row."""
    return era_named(era) if isinstance(era, str) else era


def endisi_bands(era: Era | str) -> tuple[int, ...]:
    """Positions of `ROLES` on the band axis of an era's optical stream."""
    stream = era_row(era).optical_streams[0]
    return tuple(stream.index(role) for role in ROLES)


def normalised_difference(first: Array, second: Array) -> FloatArray:
    """(a - b) / (a + b) in float32; 0 where it is not finite."""
    with np.errstate(all="ignore"):
        return _finite_or_zero((first - second) / (first + second))


def endisi(
    mean_reflectance: Array, beta: float, *, era: Era | str, shift: float, mode: str = "reference"
) -> FloatArray:
    """Enhanced normalised difference impervious surfaces index of a mean image, clipped to 0..1.

        w = nd(green, swir1);  q = swir1 / swir2 + w^2;  r = nd(blue, beta q)
        e = max(r + shift, 0) - 2 max(w, 0) - max(nd(swir1, blue), 0)

    Parameters
    ----------
    mean_reflectance : ndarray, shape (y, x, band)
        Mean over a window's steps, bands as in the era's table.
    beta : float
        From `endisi_beta`.
    era : Era or str
    shift : float
        The papers' alpha; raises the index where built-up ground is dark (0.25, Limassol 0.50).
    mode : str
        "reference": as published. NaN counts as 0; where green + swir1 = 0 the first term is max(blue, 0); where only
        r cannot be computed the index is 0. "corrected": NaN where a band is NaN or all four are 0, and where swir2
        alone is 0, r is the limit -1.

    Returns
    -------
    ndarray of float32, shape (y, x)

    Raises
    ------
    ShapeError
        If the image has not the era's bands.
    ConfigError
        If the mode is unknown.

    References
    ----------
    .. [1] doi:10.3390/rs11121446
    """
    blue, green, swir1, swir2 = _bands(mean_reflectance, era, mode)
    return endisi_of(blue, green, swir1, swir2, beta, shift=shift, mode=mode)


def endisi_of(
    blue: FloatArray, green: FloatArray, swir1: FloatArray, swir2: FloatArray, beta: float, *, shift: float, mode: str
) -> FloatArray:
    """ENDISI of its four bands (y, x); see `endisi`."""
    with np.errstate(all="ignore"):
        w = _difference(green, swir1)
        dry = normalised_difference(swir1, blue)
        ratio = _ratio(swir1, swir2) if mode == "reference" else swir1 / swir2
        scaled = _F32(beta) * (ratio + w * w)
        r = (blue - scaled) / (blue + scaled)
        if mode == "reference":
            no_water = ~np.isfinite(w)
            first = np.where(no_water, np.maximum(blue, _F32(0)), np.maximum(r + _F32(shift), _F32(0)))
            w = np.where(no_water, _F32(0), w)
        else:
            r = np.where(np.isfinite(scaled), r, _F32(-1))
            first, w = np.maximum(r + _F32(shift), _F32(0)), _finite_or_zero(w)
        index = first - _F32(2) * np.maximum(w, _F32(0)) - np.maximum(dry, _F32(0))
        index = np.clip(index, _F32(0), _F32(1))
        if mode == "reference":
            return np.where(np.isfinite(r) | no_water, index, _F32(0)).astype(_F32)
        return np.where(_observed(blue, green, swir1, swir2), index, _F32(np.nan)).astype(_F32)


def endisi_beta(mean_reflectance: Array, *, era: Era | str, mode: str = "reference") -> EndisiBeta:
    """Coefficients of an area's mean image, and the beta that they give.

    Parameters
    ----------
    mean_reflectance : ndarray, shape (y, x, band)
    era : Era or str
    mode : str
        "reference": as published; one pixel whose swir2 is 0 drives beta to 0 for the whole area. "corrected": pixels
        with a NaN, or without light in green and SWIR or in swir2, are left out.

    Returns
    -------
    EndisiBeta

    Raises
    ------
    ShapeError
        If the image has not the era's bands.
    ConfigError
        If the mode is unknown.
    """
    bands = _bands(mean_reflectance, era, mode)
    coefficients = published_means(*bands) if mode == "reference" else coefficients_of(*corrected_sums(*bands))
    return EndisiBeta(coefficients, beta_of([coefficients]))


def beta_of(coefficients: Iterable[Array]) -> float:
    """Beta of an area from the coefficients of its tiles; 0 where there is nothing to divide by."""
    blue, ratio, water = np.sum([np.asarray(each, np.float64) for each in coefficients], axis=0)
    below = ratio + water
    return float(2 * blue / below) if below > 0 else 0.0


def corrected_sums(
    blue: FloatArray, green: FloatArray, swir1: FloatArray, swir2: FloatArray
) -> tuple[npt.NDArray[np.float64], int]:
    """Sums of blue, SWIR ratio and MNDWI squared over the pixels that count, and their number; parts of an area add."""
    kept = _observed(blue, green, swir1, swir2) & (swir2 > 0) & (green + swir1 > 0)
    b, g, s1, s2 = (band[kept].astype(np.float64) for band in (blue, green, swir1, swir2))
    water = (g - s1) / (g + s1)
    return np.array([b.sum(), (s1 / s2).sum(), (water * water).sum()]), int(kept.sum())


def coefficients_of(sums: npt.NDArray[np.float64], count: int) -> FloatArray:
    """Coefficients from sums over an area; zeros if no pixel counts."""
    return (sums / max(count, 1)).astype(_F32)


def published_means(blue: FloatArray, green: FloatArray, swir1: FloatArray, swir2: FloatArray) -> FloatArray:
    """The published coefficients of one tile."""
    with np.errstate(all="ignore"):
        water = _difference(green, swir1)
        water = water[np.isfinite(water)]
        means = [blue.mean(), _ratio(swir1, swir2).mean(), (water * water).mean() if water.size else 0.0]
    return np.array(means, _F32)


def _observed(*bands: FloatArray) -> BoolArray:
    known = np.logical_and.reduce([np.isfinite(band) for band in bands])
    seen: BoolArray = known & np.logical_or.reduce([band != 0 for band in bands])
    return seen


def _difference(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray((first - second) / (first + second), _F32)


def _ratio(first: FloatArray, second: FloatArray) -> FloatArray:
    """The published ratio: 0/0 counts as 0, x/0 as the largest float32."""
    return np.asarray(np.nan_to_num(first / second, nan=0.0), _F32)


def _finite_or_zero(values: Array) -> FloatArray:
    return np.where(np.isfinite(values), values, 0).astype(_F32)


def _bands(image: Array, era: Era | str, mode: str) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    check_mode(mode)
    row = era_row(era)
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != row.optical_bands:
        raise ShapeError(
            f"mean reflectance {image.shape} is not (y, x, band) with the {row.optical_bands} bands of {row.name}"
        )
    blue, green, swir1, swir2 = (np.array(image[..., band], _F32) for band in endisi_bands(row))
    if mode == "reference":
        for band in (blue, green, swir1, swir2):
            band[np.isnan(band)] = 0
    return blue, green, swir1, swir2


def check_shift(shift: float) -> None:
    """Raise `ConfigError` unless an index shift is a number of sensible size."""
    if not -1 <= shift <= 1:
        raise ConfigError(f"shift {shift} is out of range; give -1 to 1 (0.25, for bright dry places 0.5)")
