"""What decides the weights that a training ends with, as plain data, and what tells two trainings apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from urbandelta.errors import TrainingError
from urbandelta.network import VARIANTS, Variant
from urbandelta.split import SplitOptions

Optimiser: TypeAlias = Literal["adamw", "sgd"]
LossName: TypeAlias = Literal["tanimoto", "tanimoto+bce"]
BatchNormMode: TypeAlias = Literal["images", "published"]
InputScale: TypeAlias = Literal["data", "none"]
Precision: TypeAlias = Literal["32", "bf16-mixed", "16-mixed"]
Monitor: TypeAlias = Literal["pr_auc", "loss"]
Augment: TypeAlias = Literal["flips", "none"]

OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
LOSSES: tuple[LossName, ...] = get_args(LossName)
BATCH_NORM_MODES: tuple[BatchNormMode, ...] = get_args(BatchNormMode)

ADAMW_RATE = 4e-3
SGD_RATE = 1e-3
"""Published, for each worker."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train.

    Parameters
    ----------
    variant : {"combined", "sar", "optical"}
    epochs : int
        An epoch is `batches` batches on every device, then a validation.
    batches : int, optional
        By default as many as show every training sample once.
    batch : int
        Samples of a batch on each device; a sample is a tile in a window.
    optimiser : {"adamw", "sgd"}
        `sgd` is published: momentum 0.8, a constant rate. `adamw` warms up over 30 batches, then falls along a cosine
        to 2 % of its rate; its gradients are clipped to norm 1.
    rate : float, optional
        Learning rate: 0.004 for `adamw`, 0.001 times the devices for `sgd`.
    loss : {"tanimoto+bce", "tanimoto"}
        `tanimoto` is published; the other adds binary cross entropy.
    batch_norm : {"images", "published"}
        See `training.network`.
    dropout : float
        Recurrent dropout; published: 0.4 for ers12ls5, 0 for s12.
    input_scale : {"data", "none"}, optional
        `data` divides each band by its standard deviation while training, and folds that into the saved weights. By
        default so, and "none" with published batch norm, whose padding of -1 is in physical units.
    max_steps : int, optional
        Show only so many steps of a window, drawn at random: faster, and a good start.
    balance : float, optional
        Share of the samples that are drawn around labelled change; by default all are drawn alike.
    augment : {"flips", "none"}
    monitor : {"pr_auc", "loss"}
        Validation figure by which the best weights are chosen.
    validation_samples : int, optional
        By default all.
    patience : int, optional
        Stop after so many validations without a better figure.
    precision : {"32", "bf16-mixed", "16-mixed"}
    seed : int
    """

    variant: Variant = "combined"
    epochs: int = 20
    batches: int | None = None
    batch: int = 16
    optimiser: Optimiser = "adamw"
    rate: float | None = None
    loss: LossName = "tanimoto+bce"
    batch_norm: BatchNormMode = "images"
    dropout: float = 0.0
    input_scale: InputScale | None = None
    max_steps: int | None = None
    balance: float | None = None
    augment: Augment = "flips"
    monitor: Monitor = "pr_auc"
    validation_samples: int | None = None
    patience: int | None = None
    precision: Precision = "32"
    seed: int = 0

    def completed(self, devices: int) -> TrainingSettings:
        """The same with every default filled in.

        Raises
        ------
        TrainingError
            If a value is out of range, or two exclude each other.
        """
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("variant", VARIANTS),
            ("optimiser", OPTIMISERS),
            ("loss", LOSSES),
            ("batch_norm", BATCH_NORM_MODES),
            ("augment", get_args(Augment)),
            ("monitor", get_args(Monitor)),
            ("precision", get_args(Precision)),
        )
        if self.input_scale is not None:
            choices += (("input_scale", get_args(InputScale)),)
        for name, known in choices:
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        for name in ("epochs", "batches", "batch", "max_steps", "validation_samples", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"{name} {value} is out of range; it must be at least 1")
        if self.rate is not None and not self.rate > 0:
            raise TrainingError(f"rate {self.rate:g} is out of range; it must be above 0")
        for name in ("dropout", "balance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < (1 if name == "dropout" else 1.000001):
                raise TrainingError(f"{name} {value:g} is out of range; it must be a share between 0 and 1")
        if self.batch_norm == "published" and self.input_scale == "data":
            raise TrainingError(
                "published batch norm counts padding of -1 in physical units, so it takes unscaled input; "
                "leave input_scale out or choose batch_norm images"
            )
        default: InputScale = "none" if self.batch_norm == "published" else "data"
        return dataclasses.replace(
            self,
            rate=self.rate or (ADAMW_RATE if self.optimiser == "adamw" else SGD_RATE * devices),
            input_scale=self.input_scale or default,
        )

    def draws(self, devices: int) -> dict[str, Any]:
        """What a source of training batches takes of this, whatever it draws from."""
        return {
            "batch_size": self.batch,
            "seed": self.seed,
            "samples": None if self.batches is None else self.batches * self.batch * devices,
            "augment": None if self.augment == "none" else self.augment,
            "max_steps": self.max_steps,
        }

    def judged(self) -> dict[str, Any]:
        """Likewise a source of batches to validate on."""
        return {"batch_size": self.batch, "seed": self.seed, "samples": self.validation_samples}

    def default_split(self, *, held_out: bool) -> SplitOptions:
        """Spatial blocks, a fifth of them for validation; all trains where something else is `held_out` for that."""
        return SplitOptions(split="whole", role="train", seed=self.seed) if held_out else SplitOptions(seed=self.seed)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two configurations (JSON values) differ in, as `name: before -> now`."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}.{line}" for line in differences(old, new)]
        elif old != new:
            found.append(f"{name}: {_short(old)} -> {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
