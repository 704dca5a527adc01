"""Training as Lightning sees it: the module and the loaders.

Whatever is random follows from the seed and the number of the step, and so does the learning rate. Hence a checkpoint
holds parameters, the optimiser's state and counters only, and a training that goes on from one is the training that was
never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from urbandelta.model import Network
from urbandelta.network import Path
from urbandelta.samples import Batch
from urbandelta.training.losses import loss_of
from urbandelta.training.metrics import ValidationMetrics
from urbandelta.training.network import MOMENTUM, TensorBatch, logits
from urbandelta.training.settings import TrainingSettings
from urbandelta.types import FloatArray

WARM_UP = 30
"""Batches over which the rate of `adamw` rises."""
LOWEST_RATE = 0.02
"""Share of the rate that the cosine ends with."""
SGD_MOMENTUM = 0.8
IMAGES_MOMENTUM = 0.03
"""Share of a batch in the moving statistics; the published 0.01 takes 500 batches to forget its start."""
CLIP_NORM = 1.0


class Source(Protocol):
    """What training needs of `samples.SampleSource`."""

    def batches(self, *, rank: int = 0, world: int = 1) -> int:
        """Batches that a rank gets in an epoch."""

    def epoch(self, number: int, *, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, a function of the arguments."""


def rate_factor(step: int, total: int) -> float:
    """Share of the highest rate at batch `step` of `total`, counted from 0: a short rise, then a cosine."""
    fall = 0.5 + 0.5 * math.cos(math.pi * step / total)
    return min(1.0, (step + 1) / min(WARM_UP, total)) * (LOWEST_RATE + (1 - LOWEST_RATE) * fall)


def tensors(batch: Batch, scale: Mapping[Path, FloatArray]) -> TensorBatch:
    """A batch as tensors, each band divided by its scale."""
    return TensorBatch(
        {
            path: torch.from_numpy(batch.frames[path] / factor[:, None, None] if factor is not None else frames)
            for path, frames in batch.frames.items()
            if (factor := scale.get(path)) is not None or path in batch.frames
        },
        {path: torch.from_numpy(np.ascontiguousarray(index, np.int64)) for path, index in batch.index.items()},
        torch.from_numpy(batch.valid),
        torch.from_numpy(batch.truth),
    )


Convert: TypeAlias = Callable[[Any, Mapping[Path, FloatArray]], Any]
"""From a source's batch and the scale of the input to what the module takes."""


class TrainingModule(pl.LightningModule):
    """The network with its loss, optimiser and figures.

    Parameters
    ----------
    network : Network
        For input divided by the scale of the loaders.
    settings : TrainingSettings
        Completed.
    total : int
        Batches of the whole training.
    """

    def __init__(self, network: Network, settings: TrainingSettings, *, total: int) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.total = total
        self.figures = ValidationMetrics()
        self._losses: list[tuple[Tensor, int]] = []

    def forward(self, batch: TensorBatch) -> Tensor:
        """Scores before the sigmoid (B, H, W)."""
        return logits(
            self.network,
            batch,
            batch_norm=self.settings.batch_norm,
            momentum=MOMENTUM if self.settings.batch_norm == "published" else IMAGES_MOMENTUM,
            dropout=self.settings.dropout,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Lightning's hook."""
        rate = self.settings.rate
        assert rate is not None
        if self.settings.optimiser == "sgd":
            return torch.optim.SGD(self.parameters(), lr=rate, momentum=SGD_MOMENTUM)
        return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=1e-4)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning prescribes it
        """Everything that varies from step to step follows from the step's number."""
        step = self.trainer.global_step
        if self.settings.dropout:
            entropy = np.random.SeedSequence((self.settings.seed, step, self.global_rank))
            torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
        if self.settings.optimiser == "adamw":
            assert self.settings.rate is not None
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self.settings.rate * rate_factor(step, self.total)

    def training_step(self, batch: TensorBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Lightning's hook."""
        loss = loss_of(self.settings.loss, batch.truth, self(batch).float())
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=len(batch.truth))
        self.log("rate", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=len(batch.truth))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Lightning's hook."""
        self.figures.reset()
        self._losses.clear()

    def validation_step(self, batch: TensorBatch, batch_idx: int) -> None:  # noqa: ARG002
        """Lightning's hook."""
        scores = self(batch).float()
        self._losses.append((loss_of(self.settings.loss, batch.truth, scores), len(batch.truth)))
        self.figures.update(batch.truth, torch.sigmoid(scores))

    def on_validation_epoch_end(self) -> None:
        """Lightning's hook."""
        for name, value in self.figures.compute().items():
            # The figures are those of all devices already; their mean is the same, and Lightning asks for it.
            self.log(f"validation/{name}", value, sync_dist=True)
        total = sum(count for _, count in self._losses)
        loss = torch.stack([loss * count for loss, count in self._losses]).sum() / total
        self.log("validation/loss", loss, sync_dist=True)

    def transfer_batch_to_device(self, batch: TensorBatch, device: torch.device, dataloader_idx: int) -> TensorBatch:  # noqa: ARG002
        """Lightning's hook."""
        return batch.to(device)


class Loader:
    """Batches of a role for Lightning, one read ahead by a thread while the network computes."""

    def __init__(
        self,
        source: Source,
        scale: Mapping[Path, FloatArray],
        *,
        batches: int,
        trainer: pl.Trainer,
        training: bool,
        convert: Convert = tensors,
    ) -> None:
        self.source, self.scale, self.count = source, scale, batches
        self.trainer, self.training, self.convert = trainer, training, convert

    def __len__(self) -> int:
        return self.count

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's step says where to go on. Its presence tells Lightning that the loader can."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""

    def __iter__(self) -> Iterator[Any]:
        # The body runs at the first `next`, when Lightning has restored the counters.
        number, skip = divmod(self.trainer.global_step, self.count) if self.training else (0, 0)
        batches = self.source.epoch(number, rank=self.trainer.global_rank, world=self.trainer.world_size, skip=skip)
        left = self.count - skip
        with ThreadPoolExecutor(1, "batches") as ahead:
            pending = ahead.submit(next, batches)
            for n in range(left):
                batch = pending.result()
                if n + 1 < left:
                    pending = ahead.submit(next, batches)
                yield self.convert(batch, self.scale)
