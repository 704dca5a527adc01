"""The sequential omnibus test: where a series of radar images changes, and when.

Multi-looked intensity of unchanged ground follows a gamma distribution. Of the observations since the last change, each
new one is tested against the sum of those before it by the likelihood ratio R_j of Conradsen et al. [1]_, for one
polarisation or for two taken as independent (the diagonal of the covariance matrix). The R_j are independent of each
other, so each test keeps its significance whatever the tests before it said.

`mode="reference"` reproduces the published labels [2]_, faults included: the second polarisation starts from nothing,
so the first test flags every pixel, and is never reset after a change. `mode="corrected"` starts and resets both, and
skips missing observations. It also begins a new segment with the observation **after** the one that flagged: that one
was chosen for being extreme, and tests against it flag up to 1.38 times too often (docs/labels.md).

References
----------
.. [1] Conradsen, Nielsen & Skriver, IEEE TGRS 54(5), 3007 (2016), doi:10.1109/TGRS.2015.2510160
.. [2] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.looks import estimate_looks
from urbandelta.omnibus_kernels import replay, scan_corrected, scan_published
from urbandelta.types import Array, BoolArray

__all__ = [
    "MODES",
    "Direction",
    "Mode",
    "OmnibusLayers",
    "estimate_looks",
    "omnibus_changes",
    "omnibus_counts",
    "omnibus_flags",
    "omnibus_frequency",
    "omnibus_layers",
]

Mode: TypeAlias = Literal["corrected", "reference"]
MODES: tuple[Mode, ...] = ("corrected", "reference")

_LIMITS_STEP = 64
_LARGEST_STATISTIC = 1e4


class Direction(IntEnum):
    """Which way the polarisations went at a change."""

    NONE = 0
    RISE = 1
    FALL = 2
    MIXED = 3


@dataclass(frozen=True, eq=False)
class OmnibusLayers:
    """What the test says of each pixel; all arrays (y, x).

    Attributes
    ----------
    first, last : ndarray of int32
        Index of the first and the last observation that flagged; -1 where none did.
    count : ndarray of int32
        Number of changes.
    direction : ndarray of uint8
        `Direction` of the last change: against the mean of the observations since the change before it.
    observations : ndarray of int32
        Observations that counted.
    frequency : ndarray of float32
        Changes per observation; 0 where there was none.
    """

    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    count: npt.NDArray[np.int32]
    direction: npt.NDArray[np.uint8]
    observations: npt.NDArray[np.int32]
    frequency: npt.NDArray[np.float32]


def omnibus_changes(
    series: Array, *, enl: float, significance: float, mode: str = "corrected", valid: BoolArray | None = None
) -> npt.NDArray[np.int32]:
    """Number of changes of each pixel.

    Parameters
    ----------
    series : ndarray, shape (time, y, x, polarisation)
        Intensity, linear power, oldest first; one polarisation or two.
    enl : float
        Equivalent number of looks, at least 1. At 1 the test flags up to 1.4 times too often (docs/labels.md).
    significance : float
        Chance of a test to flag where nothing changed, in (0, 1).
    mode : str
        "corrected" or "reference".
    valid : ndarray of bool, shape (time, y, x), optional
        Observations to use. In corrected mode, NaN, infinite, zero and negative ones never are.

    Returns
    -------
    ndarray of int32, shape (y, x)

    Raises
    ------
    ShapeError
        If the arrays are not of these shapes.
    ConfigError
        If a parameter is out of range, or `valid` is given in reference mode.
    """
    return _count(_scan(series, enl, significance, mode, valid)[1])


def omnibus_flags(
    series: Array, *, enl: float, significance: float, mode: str = "corrected", valid: BoolArray | None = None
) -> BoolArray:
    """Where and when the test flags change: (time, y, x); never at the first observation. Parameters as above."""
    return _scan(series, enl, significance, mode, valid)[1].view(np.bool_)


def omnibus_counts(
    series: Array, *, enl: float, significance: float, mode: str = "corrected", valid: BoolArray | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Numbers of changes and of observations that counted, both (y, x). Parameters as in `omnibus_changes`."""
    _, flags, used = _scan(series, enl, significance, mode, valid)
    return _count(flags), used


def omnibus_frequency(
    series: Array, *, enl: float, significance: float, mode: str = "corrected", valid: BoolArray | None = None
) -> npt.NDArray[np.float64]:
    """Changes per observation (y, x), the published change map; 0 where nothing was observed. Parameters as above."""
    count, observations = omnibus_counts(series, enl=enl, significance=significance, mode=mode, valid=valid)
    return count / np.maximum(observations, 1)


def omnibus_layers(
    series: Array, *, enl: float, significance: float, mode: str = "corrected", valid: BoolArray | None = None
) -> OmnibusLayers:
    """First and last change, their number, frequency and direction. Parameters as in `omnibus_changes`."""
    planes, flags, used = _scan(series, enl, significance, mode, valid)
    shape = flags.shape[1:]
    layers = np.zeros((4, shape[0] * shape[1]), np.int32)
    replay(planes, _valid_plane(valid, flags.shape), flags.reshape(len(flags), shape[0] * shape[1]), layers)
    first, last, count, direction = layers.reshape(4, *shape)
    frequency = (count / np.maximum(used, 1)).astype(np.float32)
    return OmnibusLayers(first, last, count, direction.astype(np.uint8), used, frequency)


def _count(flags: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    count: npt.NDArray[np.int32] = flags.sum(axis=0, dtype=np.int32)
    return count


def _scan(
    series: Array, enl: float, significance: float, mode: str, valid: BoolArray | None
) -> tuple[tuple[Array, ...], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Planes of the series, flags (time, y, x), and the number of observations (y, x)."""
    series = np.asarray(series)
    if series.ndim != 4 or series.shape[3] not in (1, 2):
        raise ShapeError(f"series of shape {series.shape} is not (time, y, x, polarisation) with 1 or 2 polarisations")
    if valid is not None and valid.shape != series.shape[:3]:
        raise ShapeError(f"valid {valid.shape} does not match the series {series.shape[:3]} in time, y and x")
    check_mode(mode)
    check_looks(enl)
    if not 0 < significance < 1:
        raise ConfigError(f"significance {significance} is not between 0 and 1; the eras use 0.001 and 0.1")
    times, height, width, polarisations = series.shape
    kind = np.float32 if series.dtype == np.float32 else np.float64
    planes = tuple(
        np.ascontiguousarray(series[..., f], kind).reshape(times, height * width) for f in range(polarisations)
    )
    flags = np.zeros((times, height * width), np.uint8)
    room = -(-(times + 1) // _LIMITS_STEP) * _LIMITS_STEP
    limits = _limits(float(enl), float(significance), polarisations, room)
    if mode == "reference":
        if valid is not None:
            raise ConfigError("reference mode has no notion of validity; leave valid out or use mode='corrected'")
        used = np.full(height * width, times, np.int32)
        if times:
            scan_published(planes, float(enl), limits, flags)
    else:
        used = np.zeros(height * width, np.int32)
        scan_corrected(planes, _valid_plane(valid, series.shape[:3]), limits, flags, used)
    return planes, flags.reshape(times, height, width), used.reshape(height, width)


def check_mode(mode: str) -> None:
    """Raise `ConfigError` for an unknown mode."""
    if mode not in MODES:
        raise ConfigError(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}")


def check_looks(enl: float) -> None:
    """Raise `ConfigError` unless the number of looks is one that the test is derived for."""
    if not 1 <= enl < math.inf:
        raise ConfigError(f"{enl} looks: need a number of at least 1; single-look intensity has 1")


def _valid_plane(valid: BoolArray | None, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    plane = np.ones(shape, np.uint8) if valid is None else np.ascontiguousarray(valid, np.bool_).view(np.uint8)
    return plane.reshape(shape[0], shape[1] * shape[2])


def chi_square(z: float, degrees: int) -> float:
    """Chi-square distribution function in closed form, for the degrees of freedom that the test needs."""
    if z <= 0:
        return 0.0
    tail = math.exp(-z / 2)
    if degrees == 1:
        return math.erf(math.sqrt(z / 2))
    if degrees == 2:
        return 1 - tail
    if degrees == 4:
        return 1 - tail * (1 + z / 2)
    if degrees == 5:
        return math.erf(math.sqrt(z / 2)) - math.sqrt(2 * z / math.pi) * tail * (1 + z / 3)
    if degrees == 6:
        return 1 - tail * (1 + z / 2 + z * z / 8)
    raise ConfigError(f"{degrees} degrees of freedom: closed forms are held for 1, 2, 4, 5 and 6")


def change_probability(z: float, *, n: int, enl: float, polarisations: int) -> float:
    """Chance of Z = -2 rho ln R_n being at least `z` on unchanged ground [1]_, to second order.

    For gamma-distributed intensity (1 x 1 covariance) rho = 1 - (1 + 1/(n(n-1))) / (6 L) and omega_2 =
    -(1 - 1/rho)^2 / 4; of independent polarisations, degrees of freedom and omega_2 add up.
    """
    rho = _rho(n, enl)
    omega = -(polarisations / 4) * (1 - 1 / rho) ** 2
    return 1 - ((1 - omega) * chi_square(z, polarisations) + omega * chi_square(z, polarisations + 4))


def _rho(n: int, enl: float) -> float:
    return 1 - (1 + 1 / (n * (n - 1))) / (6 * enl)


@lru_cache(maxsize=64)
def _limits(enl: float, significance: float, polarisations: int, room: int) -> Any:
    """What the kernels compare with, for m = 0 .. room-1 observations before the new one: (3, room).

    Row 0: a test flags where m ln(old) + ln(new) of the shares old and new, products over the polarisations, is at
    most this. Rows 1 and 2: interval of `new` in which no polarisation takes more than its part of the way there.
    """
    table = np.empty((3, room))
    table[:, 0] = -math.inf, -1.0, 2.0
    for m in range(1, room):
        n = m + 1
        z = _critical(n, enl, significance, polarisations)
        peak = m * math.log(m / n) - math.log(n)
        limit = polarisations * peak - z / (2 * _rho(n, enl) * enl)
        # A trifle narrower than the roots: what is in doubt is left to the test.
        low, high = _shares(m, limit / polarisations)
        table[:, m] = limit, low * (1 + 1e-9), high * (1 - 1e-9)
    table.setflags(write=False)
    return table


def _critical(n: int, enl: float, significance: float, polarisations: int) -> float:
    """The Z that has the chance `significance`, by bisection: the chance falls with Z down to there."""
    low, high = 0.0, 1.0

    def flags(z: float) -> bool:
        return change_probability(z, n=n, enl=enl, polarisations=polarisations) <= significance

    while not flags(high) and high < _LARGEST_STATISTIC:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if flags(middle) else (middle, high)
    return high


def _shares(m: int, level: float) -> tuple[float, float]:
    """The two shares q at which m ln(1 - q) + ln q takes a level below its peak at 1/(m+1)."""

    def solve(outside: float, inside: float) -> float:
        for _ in range(60):
            middle = (outside + inside) / 2
            above = m * math.log1p(-middle) + math.log(middle) >= level
            outside, inside = (outside, middle) if above else (middle, inside)
        return inside

    peak = 1 / (m + 1)
    return solve(0.0, peak), solve(1.0, peak)
