"""Run a training under Lightning: from a network, a source of batches and settings to weights on disk."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from urbandelta.errors import TrainingError
from urbandelta.model import Network
from urbandelta.network import Path
from urbandelta.runs import usable_cores
from urbandelta.training.callbacks import AtomicCheckpoints, KeepBest, KeepCheckpoint, Report, Saver
from urbandelta.training.lightning import CLIP_NORM, Convert, Loader, Source, TrainingModule, tensors
from urbandelta.training.run_folder import RunFolder
from urbandelta.training.settings import TrainingSettings
from urbandelta.types import FloatArray, Progress


class ModuleFactory(Protocol):
    """Makes what Lightning trains; `TrainingModule` is one."""

    def __call__(self, network: Network, settings: TrainingSettings, *, total: int) -> TrainingModule:
        """The module for a training of `total` batches."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where to train, as Lightning's trainer has it; decides speed, and through `devices` the batches."""

    devices: int = 1
    strategy: str = "auto"
    accelerator: str = "auto"
    threads: int | None = None
    """Of each process; by default the usable cores divided by the devices on a CPU."""

    @property
    def on_cpu(self) -> bool:
        """Whether the network runs on the processor."""
        return self.accelerator == "cpu" or (self.accelerator == "auto" and not torch.cuda.is_available())

    def trainer_options(self) -> dict[str, Any]:
        """Keyword arguments of the trainer."""
        return {
            "accelerator": "cpu" if self.on_cpu else self.accelerator,
            "devices": self.devices,
            "strategy": "ddp" if self.strategy == "auto" and self.devices > 1 else self.strategy,
        }


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    epochs: int
    batches: int
    best_epoch: int
    scores: Mapping[str, float]
    resumed_at: int | None
    leads: bool
    """Whether this process is the one of several that writes."""


def common_batches(source: Source, devices: int, role: str) -> int:
    """Batches of an epoch that every device has."""
    count = min(source.batches(rank=rank, world=devices) for rank in range(devices))
    if count < 1:
        raise TrainingError(
            f"the {role} samples do not fill one batch on each of {devices} devices; take smaller batches (--batch), "
            "larger cubes, or fewer devices"
        )
    return count


def run(
    network: Network,
    training: Source,
    validation: Source | None,
    settings: TrainingSettings,
    *,
    scale: Mapping[Path, FloatArray],
    folder: RunFolder,
    save: Saver,
    hardware: Hardware,
    checkpoint_every: int,
    progress: Progress | None,
    module: ModuleFactory = TrainingModule,
    convert: Convert = tensors,
) -> Outcome:
    """Train, from the folder's checkpoint if it has one.

    Parameters
    ----------
    network : Network
        For input divided by `scale`; trained in place.
    settings : TrainingSettings
        Completed.
    save : callable
        Called with the network whenever it is the best so far.
    module, convert : callable
        What Lightning trains, and what makes its input of a batch.
    """
    batches = common_batches(training, hardware.devices, "training")
    total = settings.epochs * batches
    keep = KeepBest(save, monitor=settings.monitor, validated=validation is not None, patience=settings.patience)
    callbacks: list[Callback] = [keep, KeepCheckpoint(folder.checkpoint, every=checkpoint_every)]
    if progress is not None:
        callbacks.append(Report(progress, total=total))
    with _quiet(), _threads(hardware):
        trainer = pl.Trainer(
            **hardware.trainer_options(),
            precision=settings.precision,
            max_epochs=settings.epochs,
            gradient_clip_val=CLIP_NORM if settings.optimiser == "adamw" else None,
            callbacks=callbacks,
            plugins=[AtomicCheckpoints()],
            logger=[CSVLogger(folder.path, name="csv"), TensorBoardLogger(folder.path, name="tensorboard", version="")],
            log_every_n_steps=min(10, batches),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder.path,
        )
        loader = Loader(training, scale, batches=batches, trainer=trainer, training=True, convert=convert)
        judge = None
        if validation is not None:
            count = common_batches(validation, hardware.devices, "validation")
            judge = Loader(validation, scale, batches=count, trainer=trainer, training=False, convert=convert)
        checkpoint = folder.checkpoint if folder.checkpoint.is_file() else None
        resumed_at = int(torch.load(checkpoint, weights_only=True)["global_step"]) if checkpoint else None
        network.train()
        try:
            trainer.fit(module(network, settings, total=total), loader, judge, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as stop:
            # So Lightning ends after Ctrl-C; what to do about it is the caller's affair.
            if trainer.interrupted:
                raise KeyboardInterrupt from stop
            raise
    return Outcome(
        trainer.current_epoch, trainer.global_step, keep.best_epoch, keep.best, resumed_at, trainer.is_global_zero
    )


@contextmanager
def _threads(hardware: Hardware) -> Iterator[None]:
    before = torch.get_num_threads()
    count = hardware.threads or (max(1, usable_cores() // hardware.devices) if hardware.on_cpu else before)
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's banners and advice; its warnings are still said."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # A training without a validation is one that was asked for.
            warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no")
            # Lightning 2.6 on torch 2.10 and later, about a name that torch has deprecated.
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
