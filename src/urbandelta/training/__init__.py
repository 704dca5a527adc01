"""Fitting the network; needs the extra `train` (torch, lightning, torchmetrics, tensorboard) to compute."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from urbandelta.errors import TrainingError

if TYPE_CHECKING:
    from urbandelta.training.fit import TrainingResult as TrainingResult
    from urbandelta.training.fit import train as train
    from urbandelta.training.loop import Hardware as Hardware
    from urbandelta.training.settings import TrainingSettings as TrainingSettings
    from urbandelta.training.transfer_fit import TransferResult as TransferResult
    from urbandelta.training.transfer_fit import transfer as transfer
    from urbandelta.training.transfer_module import TransferSettings as TransferSettings

_HOMES = {
    "Hardware": "loop",
    "TrainingResult": "fit",
    "TrainingSettings": "settings",
    "TransferResult": "transfer_fit",
    "TransferSettings": "transfer_module",
    "train": "fit",
    "train_windows": "fit_windows",
    "transfer": "transfer_fit",
}

__all__ = [
    "Hardware",
    "TrainingResult",
    "TrainingSettings",
    "TransferResult",
    "TransferSettings",
    "train",
    "train_windows",
    "transfer",
]


def require_extra() -> None:
    """Raise `TrainingError` unless everything that training needs is installed."""
    if missing := [name for name in ("torch", "lightning", "torchmetrics", "tensorboard") if find_spec(name) is None]:
        raise TrainingError(f"training needs {', '.join(missing)}; install it with: pip install 'urbandelta[train]'")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'urbandelta.training' has no attribute {name!r}")
    if _HOMES[name] != "settings":
        require_extra()
    return getattr(import_module(f"urbandelta.training.{_HOMES[name]}"), name)
