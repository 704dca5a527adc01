"""From acquisitions to steps: which moments are read, and what each pixel shows at them.

References
----------
.. [1] Zitzlsberger et al., SoftwareX 22, 101369 (2023), doi:10.1016/j.softx.2023.101369
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.types import Array, BoolArray, FloatArray, TimeArray

Moment: TypeAlias = np.datetime64 | dt.datetime | str | int | float
Duration: TypeAlias = np.timedelta64 | dt.timedelta | int | float


def duration_like(times: Array, duration: Duration) -> Any:
    """`duration` in the unit that differences of `times` have; plain numbers are seconds."""
    if times.dtype.kind != "M":
        if isinstance(duration, np.timedelta64):
            return duration / np.timedelta64(1, "s")
        return duration.total_seconds() if isinstance(duration, dt.timedelta) else duration
    if isinstance(duration, np.timedelta64):
        return duration
    if isinstance(duration, dt.timedelta):
        return np.timedelta64(duration)
    return np.timedelta64(round(duration * 1_000_000_000), "ns")


def _moment_like(times: Array, moment: Moment) -> Any:
    if times.dtype.kind == "M" and not isinstance(moment, (int, float)):
        return np.datetime64(moment)
    return moment


def as_moment(moment: Moment) -> np.datetime64:
    """A moment as datetime64[ns]; plain numbers are seconds since 1970-01-01.

    Raises
    ------
    ConfigError
        If it is not a date.
    """
    try:
        if isinstance(moment, (int, float)):
            return np.datetime64(round(moment * 1_000_000_000), "ns")
        given = np.datetime64(moment)
        value: np.datetime64 = given.astype("datetime64[ns]")
        # Nanoseconds wrap around silently before 1678 and after 2261.
        representable = value.astype("datetime64[D]") == given.astype("datetime64[D]")
    except ValueError:
        value, representable = np.datetime64("NaT", "ns"), False
    if np.isnat(value) or not representable:
        raise ConfigError(f"{moment!r} is not a date; write YYYY-MM-DD or YYYY-MM-DDThh:mm:ss")
    return value


def time_steps(times: Array, *, start: Moment, end: Moment, step: Duration) -> TimeArray:
    """Moments at which all streams are read together.

    Acquisition times fall into buckets of length `step`, counted from `start`; the last time in each bucket that
    holds any is a step.

    Parameters
    ----------
    times : ndarray, shape (n,)
        Acquisition times of all streams, in any order: UTC datetime64, or seconds since 1970-01-01.
    start, end : moment
        Half-open range of the steps. Acquisitions before `start` make no step, but are still carried forward.
    step : timedelta or seconds
        Bucket length (the papers' delta), greater than zero.

    Returns
    -------
    ndarray
        Step times, ascending, dtype of `times`.

    Raises
    ------
    ConfigError
        If `step` is not positive or `start` is not before `end`.

    References
    ----------
    .. [1] doi:10.1016/j.softx.2023.101369
    """
    times = np.unique(np.asarray(times))
    first, stop = _moment_like(times, start), _moment_like(times, end)
    length = duration_like(times, step)
    if not length > length * 0:
        raise ConfigError(f"step {step} is not a positive duration; the eras use 2 days and 1 second")
    if not first < stop:
        raise ConfigError(f"empty date range: start {start} is not before end {end}")
    kept = times[(times >= first) & (times < stop)]
    buckets = (kept - first) // length
    last_of_bucket = np.append(buckets[1:] != buckets[:-1], True)[: len(kept)]
    steps: TimeArray = kept[last_of_bucket]
    return steps


def carry_forward(values: Array, valid: BoolArray, *, initial: float = np.nan) -> Array:
    """Fill each masked pixel with its latest valid value.

    Parameters
    ----------
    values : ndarray, shape (time, y, x, band)
        Backscatter (linear power) or reflectance (0..1), oldest first.
    valid : ndarray of bool, shape (time, y, x)
    initial : float
        Value before a pixel is first seen; the published pipeline uses 0.

    Returns
    -------
    ndarray, shape and dtype of `values`

    Raises
    ------
    ShapeError
        If `valid` does not match `values` in time, y and x.

    References
    ----------
    .. [1] doi:10.1016/j.softx.2023.101369
    """
    if values.ndim != 4 or valid.shape != values.shape[:3]:
        raise ShapeError(f"values {values.shape} must be (time, y, x, band) and valid {valid.shape} its (time, y, x)")
    filled = np.empty_like(values)
    frame = np.full(values.shape[1:], initial, values.dtype)
    for time in range(len(values)):
        frame[valid[time]] = values[time][valid[time]]
        filled[time] = frame
    return filled


def latest_index(times: TimeArray, steps: TimeArray) -> Array:
    """For each step, the index of the newest acquisition not after it; -1 before the first. Both ascending."""
    return np.searchsorted(times, steps, side="right") - 1


def stack(
    streams: Sequence[tuple[TimeArray, Array, BoolArray]], steps: TimeArray, *, initial: float = 0.0
) -> FloatArray:
    """The network's input over steps: every stream's carried-forward values, side by side.

    Parameters
    ----------
    streams : sequence of (times, values, valid)
        In channel order; times (n,) ascending, values (n, y, x, band), valid (n, y, x).
    steps : ndarray, shape (step,)
        As from `time_steps`.
    initial : float
        Value before a pixel is first seen; 0 as in the published pipeline.

    Returns
    -------
    ndarray of float32, shape (step, y, x, sum of bands)

    Raises
    ------
    ShapeError
        If a stream's arrays do not belong together.
    """
    parts = []
    for times, values, valid in streams:
        if len(times) != len(values):
            raise ShapeError(f"{len(times)} times for {len(values)} acquisitions; every acquisition has one time")
        newest = latest_index(times, steps)
        carried = carry_forward(values, valid, initial=initial)
        part = np.full((len(steps), *values.shape[1:]), initial, np.float32)
        part[newest >= 0] = carried[newest[newest >= 0]]
        parts.append(part)
    return np.concatenate(parts, axis=-1)
