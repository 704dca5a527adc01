"""Series of a batch with the windows drawn from them; a window's images are gathered only when it is scored.

A batch of `samples.SampleSource` whose only label window spans all years holds each distinct image once. The windows
drawn over it are indices into those images, so that memory is that of the series and of one window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from urbandelta.network import Path
from urbandelta.samples import Batch, IntArray, SampleSource
from urbandelta.training.draws import Augmentation, StartRule, augmented, draw_windows, middle_windows
from urbandelta.training.lightning import tensors
from urbandelta.training.network import TensorBatch
from urbandelta.types import BoolArray, FloatArray, Window


@dataclass(frozen=True, eq=False)
class WindowView:
    """One window of each sample that has it: `rows` (b,) of the batch.

    `images` are the rows of the batch's frames that a path sees, `index` (b, T) the row of `images` at a step.
    """

    rows: IntArray
    images: Mapping[Path, IntArray]
    index: Mapping[Path, IntArray]
    valid: BoolArray


@dataclass(frozen=True, eq=False)
class SeriesBatch:
    """Samples of whole series, and the windows drawn from each."""

    batch: Batch
    views: tuple[WindowView, ...]


class SeriesSource:
    """Batches of series with their windows: a `lightning.Source`.

    Parameters
    ----------
    source : SampleSource
        Whose labels have one window, all steps of the years.
    starts : sequence of sequence of Window
        For each cube, the windows that start at its steps.
    rules : sequence of StartRule
        For each cube, where windows are drawn.
    windows : int
        Windows of a sample, at most.
    augmentation : Augmentation
        Of training samples.
    seed : int
    """

    def __init__(
        self,
        source: SampleSource,
        starts: Sequence[Sequence[Window]],
        rules: Sequence[StartRule],
        *,
        windows: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.source, self.windows, self.augmentation, self.seed = source, windows, augmentation, seed
        self._starts, self._rules = starts, rules

    def batches(self, *, rank: int = 0, world: int = 1) -> int:
        """Batches that a rank gets in an epoch."""
        return self.source.batches(rank=rank, world=world)

    def epoch(self, number: int, *, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Any]:
        """Batches (`SeriesBatch`) of one epoch, a function of the arguments; see `SampleSource.epoch`."""
        batches = self.source.epoch(number, rank=rank, world=world, skip=skip)
        for position, batch in enumerate(batches, start=skip):
            yield self._series(batch, (self.seed, number, rank, position))

    def _series(self, batch: Batch, key: tuple[int, ...]) -> SeriesBatch:
        cubes = [sample.cube for sample in batch.origin]
        if not self.source.trains:
            chosen = [middle_windows(self._starts[n], self._rules[n], self.windows) for n in cubes]
            return SeriesBatch(batch, window_views(batch, chosen))
        rngs = [np.random.default_rng([*key, sample]) for sample in range(len(batch))]
        chosen = [
            draw_windows(self._starts[n], self._rules[n], self.windows, rng) for n, rng in zip(cubes, rngs, strict=True)
        ]
        batch = augmented(batch, self.augmentation, rngs)
        return SeriesBatch(batch, window_views(batch, chosen))


def window_views(batch: Batch, chosen: Sequence[Sequence[Window]]) -> tuple[WindowView, ...]:
    """The windows chosen for each sample, by their number: the first of all samples, the second of all, and so on."""
    views = []
    for number in range(max(len(windows) for windows in chosen)):
        rows = [n for n, windows in enumerate(chosen) if len(windows) > number]
        lengths = np.array([chosen[n][number].count for n in rows])
        valid = np.arange(lengths.max()) < lengths[:, None]
        images, index = {}, {}
        for path, shown in batch.index.items():
            index[path] = np.zeros(valid.shape, np.int64)
            seen: list[IntArray] = []
            base = 0
            for row, n in zip(index[path], rows, strict=True):
                window = chosen[n][number]
                distinct, place = np.unique(shown[n, window.first : window.last + 1], return_inverse=True)
                row[: window.count] = place + base
                seen.append(distinct)
                base += len(distinct)
            images[path] = np.concatenate(seen)
        views.append(WindowView(np.array(rows), images, index, valid))
    return tuple(views)


@dataclass(frozen=True, eq=False)
class TensorView:
    """A `WindowView` as tensors."""

    rows: Tensor
    images: Mapping[Path, Tensor]
    index: Mapping[Path, Tensor]
    valid: Tensor


@dataclass(frozen=True, eq=False)
class TensorSeries:
    """A `SeriesBatch` as tensors; `truth` is (B, H, W)."""

    frames: Mapping[Path, Tensor]
    truth: Tensor
    views: tuple[TensorView, ...]

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def rows(self) -> list[Tensor]:
        """For each window, the samples that have it."""
        return [view.rows for view in self.views]

    def window(self, number: int) -> TensorBatch:
        """The batch of one window."""
        view = self.views[number]
        frames = {path: self.frames[path][images] for path, images in view.images.items()}
        return TensorBatch(frames, view.index, view.valid, self.truth[view.rows])

    def to(self, device: torch.device | str) -> TensorSeries:
        """The batch on another device."""

        def moved(mapping: Mapping[Path, Tensor]) -> dict[Path, Tensor]:
            return {path: item.to(device, non_blocking=True) for path, item in mapping.items()}

        views = tuple(
            TensorView(view.rows.to(device), moved(view.images), moved(view.index), view.valid.to(device))
            for view in self.views
        )
        return TensorSeries(moved(self.frames), self.truth.to(device), views)


def series_tensors(series: SeriesBatch, scale: Mapping[Path, FloatArray]) -> TensorSeries:
    """A batch of series as tensors, each band divided by its scale."""
    batch = tensors(series.batch, scale)

    def converted(mapping: Mapping[Path, IntArray]) -> dict[Path, Tensor]:
        return {path: torch.from_numpy(np.ascontiguousarray(item, np.int64)) for path, item in mapping.items()}

    views = tuple(
        TensorView(
            torch.from_numpy(np.asarray(view.rows, np.int64)),
            converted(view.images),
            converted(view.index),
            torch.from_numpy(view.valid),
        )
        for view in series.views
    )
    return TensorSeries(batch.frames, batch.truth, views)
