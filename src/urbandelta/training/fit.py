"""`train`: cubes and labels in, weights out. Decides everything first, then hands it to Lightning."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from urbandelta import __version__
from urbandelta.eras import Era
from urbandelta.errors import TrainingError
from urbandelta.inputs import NewNetwork
from urbandelta.label_store import open_labels
from urbandelta.model import Network, network_from
from urbandelta.network import NetworkConfig
from urbandelta.network import Path as NetworkPath
from urbandelta.samples import CubeSet, SampleSource, cube_set
from urbandelta.split import SplitOptions, TrainingPlan
from urbandelta.store import Cube, open_cube
from urbandelta.training.callbacks import Saver
from urbandelta.training.lightning import Source
from urbandelta.training.loop import Hardware
from urbandelta.training.loop import run as run_training
from urbandelta.training.run_folder import RunFolder, claim
from urbandelta.training.settings import TrainingSettings
from urbandelta.training.start import input_scale, new_network, scaled_parameters, warm_network
from urbandelta.types import FloatArray, Progress
from urbandelta.weights import Weights, input_contract, load_weights, save_weights

SCALE_BATCHES = 4
"""Batches from which the scale of the input is taken."""
_SCALE = "input_scale.json"


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training ended with; `scores` are those of the saved weights, empty without a validation."""

    out: Path
    run: Path
    sha256: str
    epochs: int
    batches: int
    best_epoch: int
    scores: Mapping[str, float]
    resumed_at: int | None
    """Batch that the training went on from, or None."""
    done_before: bool = False
    """Whether an earlier call had finished this training, and nothing was computed."""


def train(
    cubes: Sequence[str | Cube],
    *,
    out: str | os.PathLike[str],
    labels: str = "synthetic",
    validation: Sequence[str | Cube] = (),
    split: SplitOptions | TrainingPlan | None = None,
    settings: TrainingSettings | None = None,
    init: Weights | str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    restart: bool = False,
    hardware: Hardware | None = None,
    checkpoint_every: int = 25,
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
    description: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train the network on cubes that have labels.

    Called again with the same arguments it goes on where it was stopped, even by `kill -9`, and on a CPU ends with the
    same weights as if it had not been.

    Parameters
    ----------
    cubes : sequence of str or Cube
        Of one era, with labels (`label_cube`).
    out : path-like
        Weights to write (.safetensors): the best by validation so far, replaced whenever a better one is found.
    labels : str
        Name of the labels.
    validation : sequence of str or Cube
        Cubes to validate on, whole.
    split : SplitOptions or TrainingPlan, optional
        How each cube is divided, or the plan of one cube. By default spatial blocks, a fifth of them for validation;
        all of each cube trains where there are validation cubes.
    settings : TrainingSettings, optional
    init : Weights or path-like, optional
        Weights to go on from.
    run : path-like, optional
        Folder of checkpoints and logs; by default `out` with the suffix `.run`.
    restart : bool
        Forget what `run` holds.
    hardware : Hardware, optional
        Devices, strategy and threads.
    checkpoint_every : int
        Batches between checkpoints.
    substitutions, accepted : sequence of str
        As `predict` has them.
    description : mapping, optional
        Joins the description in the weights file: licence, limits, command.
    progress : callable, optional

    Raises
    ------
    TrainingError
        If there is nothing to train on, an option is out of range, or `run` holds another training.
    LabelError
        If a cube lacks the labels.
    """
    hardware = hardware or Hardware()
    devices = hardware.devices
    settings = (settings or TrainingSettings()).completed(devices)
    out = weights_path(out)
    opened = [open_cube(cube) if isinstance(cube, str) else cube for cube in cubes]
    held_out = [open_cube(cube) if isinstance(cube, str) else cube for cube in validation]
    if not opened:
        raise TrainingError("no cube to train on; name one at least")
    era = opened[0].era
    start, config = start_weights(init, era, settings)
    needs = NewNetwork(era, config)
    if isinstance(split, TrainingPlan) and len(opened) != 1:
        raise TrainingError(f"a training plan is for one cube, there are {len(opened)}; give split options")
    split = split or settings.default_split(held_out=bool(held_out))

    inputs: dict[str, Any] = {"substitutions": substitutions, "accepted": accepted}
    training_sets = [cube_set(cube, open_labels(cube, labels), split=split, **inputs) for cube in opened]
    tile = training_sets[0].plan.options.tile
    whole = SplitOptions(split="whole", role="validation", tile=tile, seed=settings.seed)
    validation_sets = [cube_set(cube, open_labels(cube, labels), split=whole, **inputs) for cube in held_out]
    validation_sets += [item for item in training_sets if "validation" in item.plan.roles]
    identity = {
        "settings": dataclasses.asdict(settings),
        "devices": devices,
        "labels": labels,
        "train": [_identity(item) for item in training_sets],
        "validation": [_identity(item) for item in validation_sets],
        "init": start.sha256 if start else None,
        "substitutions": list(substitutions),
        "accepted": list(accepted),
    }
    folder = claim(out.with_suffix(".run") if run is None else Path(run), identity, restart=restart, write=is_leader())
    if (done := finished_before(folder, out)) is not None:
        return done

    balance = settings.balance
    source = SampleSource(training_sets, needs, role="train", balance=balance, **settings.draws(devices))
    judge = None
    if validation_sets:
        judge = SampleSource(validation_sets, needs, role="validation", **settings.judged())
    return fit_sources(
        source,
        judge,
        settings,
        era=era,
        config=config,
        start=start,
        out=out,
        folder=folder,
        about={
            **(description or {}),
            "data": ", ".join(cube.url for cube in opened),
            "training": identity | {"train": _short(training_sets), "validation": _short(validation_sets)},
        },
        hardware=hardware,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )


def fit_sources(
    source: Source,
    judge: Source | None,
    settings: TrainingSettings,
    *,
    era: Era,
    config: NetworkConfig,
    start: Weights | None,
    out: Path,
    folder: RunFolder,
    about: Mapping[str, Any],
    hardware: Hardware,
    checkpoint_every: int,
    progress: Progress | None,
) -> TrainingResult:
    """Train on batches, wherever they come from, and write the best weights.

    Parameters
    ----------
    source, judge : Source
        Batches to learn from and to validate on.
    settings : TrainingSettings
        Completed.
    start : Weights, optional
        Weights to go on from.
    folder : RunFolder
        Of this training.
    about : mapping
        Description in the weights file.
    """
    leads = is_leader()
    scale = {} if settings.input_scale == "none" else kept_scale(folder, source, config, write=leads)
    network = new_network(config, seed=settings.seed)
    if start is not None:
        network = warm_network(network_from(start.parameters, start.config), scale)
    blank = Weights(
        name=out.stem, era=era, config=config, parameters={}, contract=input_contract(era), description=dict(about)
    )
    outcome = run_training(
        network,
        source,
        judge,
        settings,
        scale=scale,
        folder=folder,
        save=weights_writer(blank, scale, out),
        hardware=hardware,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    sha256 = load_weights(out).sha256
    result: dict[str, Any] = {
        "sha256": sha256,
        "epochs": outcome.epochs,
        "batches": outcome.batches,
        "best_epoch": outcome.best_epoch,
        "scores": dict(outcome.scores),
    }
    if leads:
        folder.finish(result)
    return TrainingResult(**result, out=out, run=folder.path, resumed_at=outcome.resumed_at)


def is_leader() -> bool:
    """Whether this process, of several that train together, is the one that writes.

    Processes after the first are started by Lightning, with their number in the environment.
    """
    return os.environ.get("LOCAL_RANK", "0") == "0"


def finished_before(folder: RunFolder, out: Path) -> TrainingResult | None:
    """What an earlier call ended with, if its weights are still there."""
    done = folder.result
    if done and out.is_file() and load_weights(out).sha256 == done["sha256"]:
        return TrainingResult(**done, out=out, run=folder.path, resumed_at=None, done_before=True)
    return None


def start_weights(
    init: Weights | str | os.PathLike[str] | None, era: Era, settings: TrainingSettings
) -> tuple[Weights | None, NetworkConfig]:
    """The weights to go on from, if any, and the network to train; `TrainingError` if they do not fit."""
    start = init if init is None or isinstance(init, Weights) else load_weights(init)
    config = NetworkConfig.for_era(era, settings.variant) if start is None else start.config
    if start is not None and (start.era.name != era.name or config.variant != settings.variant):
        raise TrainingError(
            f"{start.name}: {start.config.variant} weights of era {start.era.name}, to train {settings.variant} "
            f"weights of era {era.name}; choose others, or set the variant"
        )
    return start, config


def weights_path(out: str | os.PathLike[str]) -> Path:
    """Where weights are written; raises `TrainingError` for another suffix than `.safetensors`."""
    path = Path(out)
    if path.suffix != ".safetensors":
        raise TrainingError(f"{path}: weights are written as .safetensors; choose that suffix")
    return path


def _identity(item: CubeSet) -> dict[str, Any]:
    """What makes a cube's samples what they are."""
    plan = json.dumps(item.plan.to_json(), sort_keys=True)
    return {
        "url": item.cube.url,
        "snapshot": item.cube.snapshot,
        "labels_snapshot": getattr(item.labels, "snapshot", ""),
        "plan": hashlib.sha256(plan.encode()).hexdigest()[:16],
    }


def _short(sets: Sequence[CubeSet]) -> list[dict[str, Any]]:
    """Cubes and splits for the description."""
    return [
        _identity(item) | {"split": item.plan.options.split, "counts": item.plan.counts.get(item.plan.roles[0])}
        for item in sets
    ]


def weights_writer(blank: Weights, scale: Mapping[NetworkPath, FloatArray], out: Path) -> Saver:
    """What writes the weights of a run to `out`: `blank` with the network's parameters, and how they came about."""

    def save(network: Network, *, epoch: int, scores: Mapping[str, float]) -> None:
        versions = {"urbandelta": __version__, "torch": torch.__version__, "lightning": lightning.__version__}
        learned = {"epoch": epoch, "validation": dict(scores), "versions": versions}
        parameters, description = scaled_parameters(network, scale), {**blank.description, **learned}
        save_weights(dataclasses.replace(blank, parameters=parameters, description=description), out)

    return save


def kept_scale(
    folder: RunFolder, source: Source, config: NetworkConfig, *, write: bool
) -> dict[NetworkPath, FloatArray]:
    """Scale of the input: from the first batches, or what an earlier start of the run took from them."""
    stored = folder.read(_SCALE)
    if stored is None:
        scale = input_scale(islice(source.epoch(0), SCALE_BATCHES), config)
        if write:
            folder.write(_SCALE, {name: factor.tolist() for name, factor in scale.items()})
        return scale
    return {name: np.array(stored[name], np.float32) for name in config.paths}
