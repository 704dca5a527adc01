"""Simulated scenes with their scores and their truth: what the experiments `dating` and `events` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr

import urbandelta as ud
from urbandelta.errors import StoreError
from urbandelta.patches import label_components
from urbandelta.simulate import Scene, simulate

FIT_SEEDS = tuple(range(200, 220))
"""Unseen by the training of the shipped weights, which looked at 200 and 201 to choose an epoch."""
TEST_SEEDS = (7, 301, 302, 303)
"""Held out, of the weights too."""
FURTHER_SEEDS = tuple(range(304, 312))
"""Held out likewise, and drawn when everything was fitted: four scenes of twenty sites each tell little."""
SEEDS = {"test": TEST_SEEDS, "further": FURTHER_SEEDS, "all-test": TEST_SEEDS + FURTHER_SEEDS, "fit": FIT_SEEDS}
MONTHS = 24


@dataclass(frozen=True)
class Case:
    """A scene with its scores."""

    era: str
    seed: int
    scores: xr.Dataset

    @cached_property
    def scene(self) -> Scene:
        """The scene anew: the landscape does not depend on the sky."""
        return simulate(self.era, size=self.scores.sizes["y"], months=MONTHS, seed=self.seed)

    @property
    def first(self) -> npt.NDArray[np.int32]:
        """First day of construction (y, x), -1 none."""
        return self.scene.truth

    @property
    def last(self) -> npt.NDArray[np.int32]:
        """Day from which the ground has its final look (y, x), -1 none."""
        return self.scene.completed

    @cached_property
    def grounds(self) -> npt.NDArray[np.int32]:
        """Number of the building ground of each pixel (y, x), 0 none; grounds never touch."""
        return label_components(self.first >= 0)


def cases(folder: Path, era: str, seeds: tuple[int, ...]) -> Iterator[Case]:
    """The scenes of some seeds whose scores are in `folder` as ERA_SEED.scores."""
    for seed in seeds:
        try:
            scores = ud.open_scores(str(folder / f"{era}_{seed}.scores"))
        except StoreError:
            continue
        if not scores.attrs.get("complete"):
            continue
        case = Case(era, seed, scores)
        cube = Path(str(scores.attrs["cube_url"]))
        truth = cube.with_name(f"{cube.name}.truth.tif")
        if truth.exists():
            with rasterio.open(truth) as source:
                if not np.array_equal(source.read(1), case.first):
                    raise SystemExit(f"{truth}: not the truth of this scene; simulate it anew")
        yield case
