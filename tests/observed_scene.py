"""A cube in memory that shows what `event_scene` scores: seasons, then a still site, then a still building."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from event_scene import DAY, GRID, START

from urbandelta.eras import ERAS
from urbandelta.grid import Grid

ERA = ERAS["s12"]
BANDS = ("B03", "B04", "B08", "B11")
SITE, BUILT = (0.12, 0.14, 0.19, 0.24), (0.30, 0.32, 0.36, 0.38)
CLEARING_DAYS, RISING_DAYS = 8, 40
Works = tuple[slice, slice, int, int]
"""Rows, columns, first and last day of works, counted from `START`."""


class FakeCube:
    """What `observed_dates` asks of a `store.Cube` with one stream, from arrays."""

    def __init__(
        self,
        values: np.ndarray,
        days: np.ndarray,
        mask: np.ndarray | None = None,
        grid: Grid = GRID,
        stream: str = "optical",
    ) -> None:
        self.grid, self.era, self.streams = grid, ERA, (stream,)
        self.values, self.days = np.asarray(values, np.float32), np.asarray(days)
        self.mask = np.zeros(self.values.shape[:3], np.uint8) if mask is None else mask
        self.read_days = 0

    def times(self, name: str) -> Any:
        assert name in self.streams
        return START + self.days * DAY

    def bands(self, name: str) -> tuple[str, ...]:
        return BANDS if name == "optical" else ERA.stream(name).bands

    def read(self, name: str, time: slice, y: slice, x: slice) -> Any:
        assert name in self.streams
        self.read_days += time.stop - time.start
        return self.values[time, y, x], self.mask[time, y, x]

    def until(self, day: float) -> FakeCube:
        """The cube as it was before its acquisitions from a day on."""
        known = self.days < day
        return FakeCube(self.values[known], self.days[known], self.mask[known], self.grid, *self.streams)


class BothCube:
    """Two fake cubes with a stream each as one."""

    def __init__(self, one: FakeCube, other: FakeCube) -> None:
        self.grid, self.era, self.streams = one.grid, ERA, (*other.streams, *one.streams)
        self._of = {name: cube for cube in (one, other) for name in cube.streams}

    def times(self, name: str) -> Any:
        return self._of[name].times(name)

    def bands(self, name: str) -> tuple[str, ...]:
        return self._of[name].bands(name)

    def read(self, name: str, time: slice, y: slice, x: slice) -> Any:
        return self._of[name].read(name, time, y, x)


def cube_of(works: Iterable[Works], *, every: int = 5, days: int = 560, grid: Grid = GRID, seed: int = 1) -> FakeCube:
    """Images every few days of ground that turns green and brown, and of some works on it."""
    rng = np.random.default_rng(seed)
    day = np.arange(0, days, every)
    green = 0.5 + 0.4 * np.sin(day / 58)[:, None, None]
    ground = [0.09 - 0.02 * green, 0.12 - 0.06 * green, 0.22 + 0.22 * green, 0.3 - 0.1 * green]
    values = np.stack(np.broadcast_arrays(*ground), axis=-1) * np.ones((1, *grid.shape, 1))
    for rows, columns, first, last in works:
        cleared = np.clip((day - first) / CLEARING_DAYS, 0, 1)[:, None, None, None]
        risen = np.clip((day - last) / RISING_DAYS + 1, 0, 1)[:, None, None, None]
        now = np.array(SITE) * (1 - risen) + np.array(BUILT) * risen
        values[:, rows, columns] = values[:, rows, columns] * (1 - cleared) + now * cleared
    return FakeCube(values * np.exp(0.02 * rng.standard_normal(values.shape)), day, grid=grid)


def radar_of(works: Iterable[Works], *, every: int = 6, days: int = 560, seed: int = 2) -> FakeCube:
    """Radar images every few days, on which walls are brighter than open ground."""
    rng = np.random.default_rng(seed)
    day = np.arange(0, days, every)
    level = np.zeros((day.size, *GRID.shape, 2)) + np.log([0.08, 0.015])
    for rows, columns, _, last in works:
        level[:, rows, columns] += 1.0 * np.clip((day - last) / RISING_DAYS + 1, 0, 1)[:, None, None, None]
    return FakeCube(np.exp(level + 0.3 * rng.standard_normal(level.shape)), day, stream="s1_asc")
