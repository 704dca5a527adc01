"""Labels in memory, as the label store gives them."""

from __future__ import annotations

import numpy as np

from urbandelta.plan import cube_steps
from urbandelta.store import Cube
from urbandelta.types import FloatArray, TimeArray, Window
from urbandelta.windows import find_windows


class FakeLabels:
    """Random labels of every window: some pixels do not count, and few hold change."""

    def __init__(self, cube: Cube, *, stride: int = 3, changed: float = 0.002, seed: int = 5) -> None:
        era = cube.era
        self.steps: TimeArray = cube_steps(cube, cube.streams)[0]
        length = np.timedelta64(era.window_days, "D")
        found = find_windows(self.steps, length=length, min_obs=era.min_obs, max_obs=era.max_obs, stride=stride)
        self.windows: tuple[Window, ...] = tuple(found)
        rng = np.random.default_rng(seed)
        shape = (len(found), *cube.grid.shape)
        self.truth = np.where(rng.random(shape) < changed, 1, 0.1 * rng.random(shape)).astype(np.float32)
        self.truth[rng.random(shape) < 0.1] = np.nan
        self.read_count = 0

    def read(self, window: int | slice, y: slice, x: slice) -> FloatArray:
        self.read_count += 1
        part = slice(window, window + 1) if isinstance(window, int) else window
        return self.truth[part, y, x]
