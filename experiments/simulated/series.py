"""A simulated scene as training needs it: frames carried forward, which frame every step shows, and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.simulate import LandCover, Scene
from urbandelta.types import Array, FloatArray

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Series:
    """One scene in memory.

    `frames` holds per stream (time, band, y, x) physical values divided by `scale`, each pixel carrying its latest
    valid value; `shown` (step, stream) is the index of the frame that a step shows, -1 before the first.
    """

    frames: tuple[Array, ...]
    shown: Array
    days: FloatArray
    """Days since 1970-01-01 of every step."""
    start: Array
    end: Array
    fields: Array
    window_days: int
    min_obs: int
    max_obs: int

    def window(self, first: int) -> slice:
        """Steps of the window that begins with step `first`."""
        last = np.searchsorted(self.days, self.days[first] + self.window_days)
        return slice(first, int(min(last, first + self.max_obs)))

    def windows(self, stride: int) -> Iterator[slice]:
        """Windows with enough observations that lie inside the series."""
        for first in range(0, self.days.size, stride):
            steps = self.window(first)
            complete = self.days[first] + self.window_days <= self.days[-1] + 2
            if complete and steps.stop - steps.start >= self.min_obs:
                yield steps


def series(scene: Scene, scale: dict[str, FloatArray]) -> Series:
    """Read a scene into memory; `scale` divides each stream's bands."""
    frames, times = [], []
    for stream in scene.era.streams:
        images: list[npt.NDArray[np.float16]] = []
        latest = np.zeros((len(stream.bands), *scene.grid.shape), np.float16)
        for acquisition in scene.acquisitions(stream.name):
            physical = (acquisition.values * np.float32(acquisition.scale) / scale[stream.name]).transpose(2, 0, 1)
            latest = np.where(acquisition.mask == 0, physical, latest).astype(np.float16)
            images.append(latest)
        frames.append(np.stack(images))
        times.append(np.array([visit.time for visit in scene.passes(stream.name)]))
    seconds = np.unique(np.concatenate(times)) - scene.start.astype("datetime64[ns]")
    bucket = seconds // np.timedelta64(scene.era.step_seconds, "s")
    kept = seconds[np.append(bucket[1:] != bucket[:-1], True)] + scene.start.astype("datetime64[ns]")
    return Series(
        frames=tuple(frames),
        shown=np.stack([np.searchsorted(mine, kept, side="right") - 1 for mine in times], axis=1),
        days=(kept.astype("datetime64[s]").astype(np.int64) / 86_400).astype(np.float32),
        start=scene.truth,
        end=scene.completed,
        fields=(scene.land_cover == LandCover.FIELD) & (scene.truth < 0),
        window_days=scene.era.window_days,
        min_obs=scene.era.min_obs,
        max_obs=scene.era.max_obs,
    )


def label(data: Series, first_day: float, last_day: float) -> tuple[Array, Array]:
    """Truth of one window of a series and its weight; see `label_days`."""
    return label_days(data.start, data.end, first_day, last_day, length=data.window_days)


def label_days(start: Array, end: Array, first_day: float, last_day: float, *, length: int) -> tuple[Array, Array]:
    """Truth of one window and its weight, float32 (y, x).

    1 where construction begins inside the window with time enough to be seen (a fifteenth of the window's length before
    it, a quarter after it). Weight 0 where construction goes on inside the window otherwise: both answers are fair.
    """
    changed = start >= 0
    seen = changed & (start >= first_day + length / 15) & (start <= last_day - length / 4)
    going_on = changed & (start <= last_day) & (end >= first_day)
    return seen.astype(np.float32), 1 - (going_on & ~seen).astype(np.float32)
