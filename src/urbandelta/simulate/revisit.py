"""When which satellite passes: repeat cycles, times of day, satellites that fail, acquisitions that never arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urbandelta.simulate.noise import generator
from urbandelta.types import TimeArray

_SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Orbit:
    """One platform on one track: passes every `repeat_days`, the first `phase_days` after the series begins."""

    platform: str
    relative_orbit: int
    repeat_days: int
    phase_days: int
    utc_hours: float
    service: tuple[float, float] = (0.0, 1.0)
    """Part of the series during which the platform flies, as fractions of its length."""
    winter_loss: float = 0.0
    """Chance that a pass from December to February is not acquired."""


@dataclass(frozen=True)
class Pass:
    """One acquisition to come: when, from where, and its number within the stream."""

    time: np.datetime64
    platform: str
    relative_orbit: int
    number: int


_MISSED = 0.04


def _pass_seconds(rng: np.random.Generator, orbit: Orbit, days: int) -> TimeArray:
    day = np.arange(orbit.phase_days, days, orbit.repeat_days)
    in_service = (day >= orbit.service[0] * days) & (day < orbit.service[1] * days)
    seconds = day * _SECONDS_A_DAY + round(orbit.utc_hours * 3600) + rng.integers(-20, 21, day.size)
    return (seconds * in_service - (~in_service)).astype("timedelta64[s]")


def passes(
    seed: int,
    stream_number: int,
    orbits: tuple[Orbit, ...],
    *,
    start: np.datetime64,
    days: int,
    lost: tuple[str, float, float] | None,
) -> tuple[Pass, ...]:
    """Acquisitions of one stream in time order.

    Parameters
    ----------
    seed, stream_number : int
    orbits : tuple of Orbit
    start : datetime64
        Midnight at which the series begins.
    days : int
        Length of the series.
    lost : (platform, from, to) or None
        A platform that fails for a part of the series (fractions of its length).
    """
    rng = generator(seed, 5, stream_number)
    found: list[tuple[np.datetime64, str, int]] = []
    for orbit in orbits:
        offsets = _pass_seconds(rng, orbit, days)
        luck = rng.random((2, offsets.size))
        for offset, missed, winter in zip(offsets, luck[0] < _MISSED, luck[1] < orbit.winter_loss, strict=True):
            time = (start + offset).astype("datetime64[ns]")
            month = int(time.astype("datetime64[M]").astype(int)) % 12 + 1
            share = offset / np.timedelta64(days, "D")
            gone = lost is not None and orbit.platform == lost[0] and lost[1] <= share < lost[2]
            if offset >= np.timedelta64(0, "s") and not missed and not gone and not (winter and month in (12, 1, 2)):
                found.append((time, orbit.platform, orbit.relative_orbit))
    found.sort()
    return tuple(Pass(*entry, number) for number, entry in enumerate(found))
