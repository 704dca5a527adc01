"""urbandelta: watch cities change from space.

The names below are the public contract; they are imported when first used, so that `import urbandelta` is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urbandelta.assemble import carry_forward as carry_forward
    from urbandelta.assemble import time_steps as time_steps
    from urbandelta.ensemble import combine_scores as combine_scores
    from urbandelta.eras import ERAS as ERAS
    from urbandelta.errors import UrbandeltaError as UrbandeltaError
    from urbandelta.evaluation import evaluate as evaluate
    from urbandelta.indices import endisi as endisi
    from urbandelta.indices import endisi_beta as endisi_beta
    from urbandelta.infer import predict as predict
    from urbandelta.labels import synthetic_label as synthetic_label
    from urbandelta.losses import tanimoto_loss as tanimoto_loss
    from urbandelta.omnibus import omnibus_changes as omnibus_changes
    from urbandelta.recurrence import frame_mask as frame_mask
    from urbandelta.recurrence import score_windows as score_windows
    from urbandelta.store import create_cube as create_cube
    from urbandelta.store import open_cube as open_cube
    from urbandelta.store import open_scores as open_scores
    from urbandelta.training import TrainingSettings as TrainingSettings
    from urbandelta.training import TransferSettings as TransferSettings
    from urbandelta.training import train as train
    from urbandelta.training import transfer as transfer
    from urbandelta.types import Window as Window
    from urbandelta.weights import load_weights as load_weights
    from urbandelta.weights import save_weights as save_weights
    from urbandelta.windows import find_windows as find_windows

try:
    __version__ = version("urbandelta")
except PackageNotFoundError:  # running from a source tree that was not installed
    __version__ = "0+unknown"

_HOMES = {
    "ERAS": "eras",
    "TrainingSettings": "training",
    "TransferSettings": "training",
    "UrbandeltaError": "errors",
    "Window": "types",
    "carry_forward": "assemble",
    "combine_scores": "ensemble",
    "create_cube": "store",
    "endisi": "indices",
    "endisi_beta": "indices",
    "evaluate": "evaluation",
    "find_windows": "windows",
    "frame_mask": "recurrence",
    "load_weights": "weights",
    "omnibus_changes": "omnibus",
    "open_cube": "store",
    "open_scores": "store",
    "predict": "infer",
    "save_weights": "weights",
    "score_windows": "recurrence",
    "synthetic_label": "labels",
    "tanimoto_loss": "losses",
    "time_steps": "assemble",
    "train": "training",
    "transfer": "training",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'urbandelta' has no attribute {name!r}")
    value = getattr(import_module(f"urbandelta.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
