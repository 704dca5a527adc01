"""A transfer as Lightning sees it: its settings, and the module whose loss is that of the maximum over windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from urbandelta.errors import TrainingError
from urbandelta.model import Network
from urbandelta.network import BLOCKS, Variant
from urbandelta.training.draws import AUGMENTATIONS
from urbandelta.training.lightning import TrainingModule
from urbandelta.training.losses import loss_of
from urbandelta.training.max_windows import maximum_over, window_gradients, with_gradients
from urbandelta.training.series import TensorSeries
from urbandelta.training.settings import BatchNormMode, InputScale, LossName, Monitor, Optimiser, TrainingSettings

Freeze: TypeAlias = Literal["none", "encoder"]
ADAMW_RATE = 1e-3
"""A quarter of that of a first training: what is known already should be kept."""


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How to transfer.

    Parameters
    ----------
    windows : int
        Windows whose maximum is compared with the labels (k); fewer where the years hold fewer.
    first, increment : (int, int), optional
        First step of the first window, and steps from one window to the next, at least and at most; by default those of
        the era's row.
    epochs : int
        Of every training tile once, in one of its augmented forms.
    samples : int, optional
        Samples of an epoch on all devices, in place of every tile once.
    batch : int
        Tiles of a batch on each device.
    optimiser : {"adamw", "sgd"}
        As `TrainingSettings` has them; `sgd` is published.
    rate : float, optional
        0.001; for `sgd` times the devices.
    loss : {"tanimoto", "tanimoto+bce"}
        Tanimoto of each sample, then the mean; the other adds binary cross entropy.
    augment : {"published", "flips", "rich", "none"}
        See `draws.AUGMENTATIONS`.
    freeze : {"none", "encoder"}
        `encoder` leaves the convolution blocks before the recurrence as they are, statistics included.
    batch_norm, dropout, input_scale, balance, monitor, patience, seed
        As in `TrainingSettings`.
    """

    windows: int = 10
    first: tuple[int, int] | None = None
    increment: tuple[int, int] | None = None
    epochs: int = 20
    samples: int | None = None
    batch: int = 8
    optimiser: Optimiser = "adamw"
    rate: float | None = None
    loss: LossName = "tanimoto"
    augment: str = "published"
    freeze: Freeze = "none"
    batch_norm: BatchNormMode = "images"
    dropout: float = 0.0
    input_scale: InputScale | None = None
    balance: float | None = None
    monitor: Monitor = "pr_auc"
    patience: int | None = None
    seed: int = 0

    def training(self, variant: Variant, devices: int) -> TrainingSettings:
        """What the loop and the module share with any training, completed.

        Raises
        ------
        TrainingError
            If a value is out of range or unknown.
        """
        if self.windows < 1:
            raise TrainingError(f"windows {self.windows} is out of range; a maximum needs at least 1")
        if self.samples is not None and self.samples < 1:
            raise TrainingError(f"samples {self.samples} is out of range; it must be at least 1")
        if self.augment not in AUGMENTATIONS:
            raise TrainingError(f"augment {self.augment!r} is unknown; choose one of {', '.join(AUGMENTATIONS)}")
        if self.freeze not in get_args(Freeze):
            raise TrainingError(f"freeze {self.freeze!r} is unknown; choose one of {', '.join(get_args(Freeze))}")
        for name, low in (("first", 0), ("increment", 1)):
            pair = getattr(self, name)
            if pair is not None and not low <= pair[0] <= pair[1]:
                raise TrainingError(f"{name} {pair[0]} to {pair[1]} is no range of steps from {low} on")
        return TrainingSettings(
            variant=variant,
            epochs=self.epochs,
            batch=self.batch,
            optimiser=self.optimiser,
            rate=ADAMW_RATE if self.rate is None and self.optimiser == "adamw" else self.rate,
            loss=self.loss,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            input_scale=self.input_scale,
            balance=self.balance,
            augment="flips" if AUGMENTATIONS[self.augment].turns else "none",
            monitor=self.monitor,
            patience=self.patience,
            seed=self.seed,
        ).completed(devices)


class TransferModule(TrainingModule):
    """The network with the loss of the maximum over windows.

    Parameters
    ----------
    network, settings, total
        As in `TrainingModule`.
    freeze : {"none", "encoder"}
    """

    def __init__(self, network: Network, settings: TrainingSettings, *, total: int, freeze: Freeze = "none") -> None:
        super().__init__(network, settings, total=total)
        self._frozen = [
            network.path(name).get_submodule(f"block{number}")
            for name in network.config.paths
            for number in range(1, BLOCKS[name] + 1)
            if freeze == "encoder"
        ]
        for block in self._frozen:
            block.requires_grad_(False)

    def on_train_start(self) -> None:
        """Lightning's hook; earlier it would wonder at modules in evaluation mode."""
        self.train()

    def train(self, mode: bool = True) -> TransferModule:
        """Training mode but for the blocks that are frozen, whose moving statistics stay too."""
        super().train(mode)
        for block in self._frozen:
            block.eval()
        return self

    def _score(self, batch: TensorSeries, number: int) -> Tensor:
        """Scores of one window before the sigmoid, whose order the maximum shares; the same whenever it is asked."""
        if self.settings.dropout and self.network.training:
            entropy = np.random.SeedSequence((self.settings.seed, self.trainer.global_step, self.global_rank, number))
            torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
        scores: Tensor = self(batch.window(number))
        return scores.float()

    def _loss(self, truth: Tensor, scores: Tensor) -> Tensor:
        return loss_of(self.settings.loss, truth, scores, per_sample=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning prescribes it
        """Lightning's hook."""
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        loss, gradients = window_gradients(
            lambda number: self._score(batch, number),
            batch.rows,
            len(batch),
            lambda maximum: self._loss(batch.truth, maximum),
            self.network,
            parameters,
        )
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=len(batch))
        self.log("rate", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=len(batch))
        return with_gradients(loss, parameters, gradients)

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Lightning's hook."""
        maximum, _ = maximum_over(lambda number: self._score(batch, number), batch.rows, len(batch))
        self._losses.append((self._loss(batch.truth, maximum), len(batch)))
        self.figures.update(batch.truth, torch.sigmoid(maximum))
