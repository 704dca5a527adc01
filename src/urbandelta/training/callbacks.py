"""What a training keeps on disk and tells its caller while it runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from urbandelta.model import Network
from urbandelta.training.lightning import TrainingModule
from urbandelta.types import Progress


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed, and read without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ARG002
        """Lightning's hook."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Lightning's hook."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded


class KeepCheckpoint(Callback):
    """Save the newest state every so many batches and at the end of each epoch.

    Not in the last batch of an epoch: its validation would be missing from the state.
    """

    def __init__(self, path: Path, *, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Lightning's hook."""
        batches = int(trainer.num_training_batches)
        if trainer.global_step % self.every == 0 and trainer.global_step % batches:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Lightning's hook."""
        trainer.save_checkpoint(self.path)


class Saver(Protocol):
    """Writes the network as weights."""

    def __call__(self, network: Network, *, epoch: int, scores: Mapping[str, float]) -> None:
        """Replace what was saved before."""


class KeepBest(Callback):
    """Write the weights whenever they validate best; without a validation, after every epoch."""

    def __init__(self, save: Saver, *, monitor: str, validated: bool, patience: int | None) -> None:
        self.save, self.monitor, self.validated, self.patience = save, monitor, validated, patience
        self.best: dict[str, float] = {}
        self.best_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self.best, self.best_epoch = dict(state_dict["best"]), state_dict["best_epoch"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; comes after the validation."""
        assert isinstance(pl_module, TrainingModule)
        scores = {
            name.removeprefix("validation/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        epoch = trainer.current_epoch + 1
        if not self.validated or self._better(scores):
            self.best, self.best_epoch = scores, epoch
            if trainer.is_global_zero:
                self.save(pl_module.network, epoch=epoch, scores=scores)
        if self.patience is not None and epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True

    def _better(self, scores: Mapping[str, float]) -> bool:
        if not self.best:
            return True
        sign = -1 if self.monitor == "loss" else 1
        # Where no pixel changed there is no PR-AUC, and the loss decides.
        pairs = [(sign * scores[self.monitor], sign * self.best[self.monitor]), (-scores["loss"], -self.best["loss"])]
        for new, old in pairs:
            if new != old and not (math.isnan(new) or math.isnan(old)):
                return new > old
        return False


class Report(Callback):
    """Tell the caller how far the training is."""

    def __init__(self, progress: Progress, *, total: int) -> None:
        self.progress, self.total = progress, total

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:  # noqa: ARG002
        """Lightning's hook."""
        if trainer.is_global_zero:
            self.progress(trainer.global_step, self.total, f"loss {float(outputs['loss']):.3f}")
