"""Training samples drawn straight from cubes: batches of windows of tiles, with their truth. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from urbandelta.inputs import InputNeeds
from urbandelta.network import Path
from urbandelta.split import Role, TrainingPlan
from urbandelta.store import Cube
from urbandelta.types import BoolArray, FloatArray, TimeArray, Window

IntArray: TypeAlias = npt.NDArray[np.int64]
Augment: TypeAlias = Literal["flips"]


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of one tile and window each, channels first.

    `frames` holds the distinct images of a path (N, C, H, W) in physical units, channels in the network's order: steps
    at which a path's streams did not change share one. `index` (B, T) is the row of `frames` that a path sees at a
    step; where `valid` (B, T) is False, the step is padding and its index any row. `truth` (B, H, W) is 0..1, NaN where
    a pixel does not count.
    """

    frames: Mapping[Path, FloatArray]
    index: Mapping[Path, IntArray]
    valid: BoolArray
    truth: FloatArray

    def __len__(self) -> int:
        return len(self.truth)


class LabelReader(Protocol):
    """What training needs of labels; `label_store.open_labels` gives it."""

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows that have labels; `first` and `last` are indices into `steps`."""

    @property
    def steps(self) -> TimeArray:
        """The steps that the windows are made of."""

    def read(self, window: int | slice, y: slice, x: slice) -> FloatArray:
        """Labels (window, y, x) 0..1, NaN where a pixel does not count."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeSet:
    """One cube to train on: its labels, and the plan that says which tiles and windows play which role."""

    cube: Cube
    labels: LabelReader
    plan: TrainingPlan
    substitutions: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


class SampleSource:
    """Batches from cubes, epoch by epoch."""

    def __init__(
        self,
        cubes: Sequence[CubeSet],
        needs: InputNeeds,
        *,
        role: Role,
        batch_size: int = 32,
        samples: int | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        balance: float | None = None,
        max_steps: int | None = None,
        look_back: bool = True,
        budget_bytes: int = 1_000_000_000,
    ) -> None:
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Samples of an epoch, of all ranks together."""
        raise NotImplementedError

    def batches(self, *, rank: int = 0, world: int = 1) -> int:
        """Batches that a rank gets in an epoch."""
        raise NotImplementedError

    def epoch(self, number: int, *, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Batch]:
        """Batches of one epoch: a function of the seed and the arguments alone; `skip` leaves out the first batches."""
        raise NotImplementedError
