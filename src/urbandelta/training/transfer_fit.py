"""`transfer`: a few labelled tiles and weights in, weights for that place out; folds to judge and to combine them.

References
----------
.. [1] Zitzlsberger et al., International Journal of Remote Sensing (2023), doi:10.1080/01431161.2023.2243021
.. [2] Zitzlsberger et al., arXiv:2309.08607 (2023)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbandelta.assemble import Moment
from urbandelta.errors import TrainingError
from urbandelta.inputs import resolve_inputs
from urbandelta.model import network_from
from urbandelta.samples import CubeSet, SampleSource
from urbandelta.store import Cube, open_cube
from urbandelta.training.draws import AUGMENTATIONS, StartRule
from urbandelta.training.fit import kept_scale, weights_writer
from urbandelta.training.loop import Hardware
from urbandelta.training.loop import run as run_training
from urbandelta.training.run_folder import claim
from urbandelta.training.series import SeriesSource, series_tensors
from urbandelta.training.start import warm_network
from urbandelta.training.tile_labels import LabelTile, TileLabels, deal_folds, fold_plan, read_tile_labels
from urbandelta.training.transfer_module import TransferModule, TransferSettings
from urbandelta.training_plan import BUFFER_PX, TrainingPlan
from urbandelta.truth import TruthOptions
from urbandelta.types import Progress
from urbandelta.weights import Weights, find_weights, load_weights

log = logging.getLogger(__name__)

BUDGET_BYTES = 2_000_000_000
"""Pixels kept in memory: a block of tiles over all years is larger than one over a window."""


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """One network: `fold` is None where all tiles trained, and then there are no scores."""

    fold: int | None
    out: Path
    run: Path
    sha256: str
    tiles: Mapping[str, int]
    """Tiles that train, that validate, and that are left out because they lie too near to these."""
    epochs: int
    batches: int
    best_epoch: int
    scores: Mapping[str, float]
    resumed_at: int | None
    done_before: bool


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """The networks of a transfer, and the file that lists them, if there are folds."""

    folds: tuple[FoldResult, ...]
    summary: Path | None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """All that the folds share."""

    labels: tuple[TileLabels, ...]
    settings: TransferSettings
    weights: Weights
    hardware: Hardware
    substitutions: tuple[str, ...]
    accepted: tuple[str, ...]
    tile: int
    buffer_px: int
    checkpoint_every: int
    restart: bool
    budget_bytes: int
    description: Mapping[str, Any]

    def rules(self) -> list[StartRule]:
        """Where windows are drawn in each cube."""
        given = self.settings
        return [
            StartRule(
                first=given.first or item.cube.era.transfer_first,
                increment=given.increment or item.cube.era.transfer_increment,
            )
            for item in self.labels
        ]


def transfer(
    cubes: Sequence[str | Cube],
    *,
    labels: str | os.PathLike[str],
    out: str | os.PathLike[str],
    init: Weights | str | os.PathLike[str],
    start: Moment | None = None,
    end: Moment | None = None,
    truth: TruthOptions | None = None,
    tiles: str | os.PathLike[str] | None = None,
    tile: int = 32,
    folds: int | None = None,
    fold: Sequence[int] = (),
    buffer_px: int = BUFFER_PX,
    settings: TransferSettings | None = None,
    run: str | os.PathLike[str] | None = None,
    restart: bool = False,
    hardware: Hardware | None = None,
    checkpoint_every: int = 25,
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
    budget_bytes: int = BUDGET_BYTES,
    description: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TransferResult:
    """Adapt weights to a place by tiles that say whether anything changed within some years.

    Called again with the same arguments it goes on where it was stopped, even by `kill -9`, and on a CPU ends with the
    same weights as if it had not been.

    Parameters
    ----------
    cubes : sequence of str or Cube
        Of the era of the weights.
    labels : path
        Polygons or a raster of what changed, see `truth.read_truth`; must touch every cube.
    out : path-like
        Weights to write (.safetensors); with folds, a file of each: OUT.fold0.safetensors and so on.
    init : Weights, path, or name of a shipped set
        What to go on from.
    start, end : moment, optional
        The years that the labels speak of, half-open; by default all that a cube holds.
    truth : TruthOptions, optional
        How `labels` is read.
    tiles : path, optional
        Footprints of the labelled tiles, outside of which nothing is known.
    tile : int
        Side of a tile in pixels.
    folds : int, optional
        Cross-validation: tiles are dealt to so many folds by blocks, and each fold's network is judged by its own.
        Without folds there is one network, trained on all tiles, of the last epoch.
    fold : sequence of int
        Train only these folds, from 0; all by default.
    buffer_px : int
        Tiles nearer than this to a tile that validates do not train.
    settings : TransferSettings, optional
    run : path-like, optional
        Folder of checkpoints and logs; by default that of each weights file, with the suffix `.run`.
    restart : bool
        Forget what the folders hold.
    hardware : Hardware, optional
    checkpoint_every : int
        Batches between checkpoints.
    substitutions, accepted : sequence of str
        As `predict` has them.
    budget_bytes : int
        What pixels may take in memory.
    description : mapping, optional
        Joins the description in the weights file.
    progress : callable, optional

    Raises
    ------
    TrainingError
        If nothing changed in any tile that trains, an option is out of range, or a folder holds another training.
    TruthError
        If the labels cannot be read or do not touch a cube.
    ContractError
        If a cube is of another era than the weights, or lacks what they read.
    TooFewObservations
        If the years hold no window.
    """
    out = Path(out)
    hardware = hardware or Hardware()
    settings = settings or TransferSettings()
    if out.suffix != ".safetensors":
        raise TrainingError(f"{out}: weights are written as .safetensors; choose that suffix")
    chosen = _chosen_folds(folds, fold)
    weights = init if isinstance(init, Weights) else find_weights(init)
    settings.training(weights.config.variant, hardware.devices)  # raises before anything is read
    if not cubes:
        raise TrainingError("no cube to train on; name one at least")
    opened = [open_cube(cube) if isinstance(cube, str) else cube for cube in cubes]
    read = tuple(
        read_tile_labels(
            cube,
            os.fspath(labels),
            resolve_inputs(cube, weights, substitutions=substitutions, accepted=accepted).sources,
            options=truth,
            start=start,
            end=end,
            tile=tile,
            footprints=None if tiles is None else os.fspath(tiles),
        )
        for cube in opened
    )
    if not any(item.changed for part in read for item in part.tiles):
        raise TrainingError(
            f"{labels}: nothing changed in any of {sum(len(part.tiles) for part in read)} tiles between the dates; "
            "a network cannot learn change from that; check the dates (--start, --end) and the values that mean change"
        )
    for note in dict.fromkeys(note for part in read for note in part.notes):
        log.warning("%s: %s", labels, note)
    job = _Job(
        labels=read,
        settings=settings,
        weights=weights,
        hardware=hardware,
        substitutions=tuple(substitutions),
        accepted=tuple(accepted),
        tile=tile,
        buffer_px=buffer_px,
        checkpoint_every=checkpoint_every,
        restart=restart,
        budget_bytes=budget_bytes,
        description=description or {},
    )
    _warn_uncovered(job)
    dealt = [[0] * len(part.tiles) for part in read]
    if folds is not None:
        dealt = deal_folds([part.tiles for part in read], folds, tile=tile, buffer_px=buffer_px, seed=settings.seed)
    plans = {number: _plans(job, dealt, number) for number in chosen}
    results = []
    for position, (number, plan) in enumerate(plans.items()):
        target = out if number is None else out.with_suffix(f".fold{number}.safetensors")
        folder = target.with_suffix(".run")
        if run is not None:
            folder = Path(run) if number is None else Path(run) / f"fold{number}"
        results.append(
            _run_fold(job, plan, number, target, folder, progress=_shared(progress, number, position, len(plans)))
        )
    summary = None
    if folds is not None:
        summary = out.with_suffix(".folds.json")
        if _leads():
            _write_summary(summary, folds, results)
    return TransferResult(folds=tuple(results), summary=summary)


def _chosen_folds(folds: int | None, fold: Sequence[int]) -> list[int | None]:
    if folds is None:
        if fold:
            raise TrainingError("fold is given but not the number of folds (--folds)")
        return [None]
    if folds < 2:
        raise TrainingError(f"{folds} folds: cross-validation needs at least 2")
    if wrong := [number for number in fold if not 0 <= number < folds]:
        raise TrainingError(f"fold {wrong[0]} is none of {folds}; they count from 0 to {folds - 1}")
    return [*sorted(set(fold))] if fold else [*range(folds)]


def _warn_uncovered(job: _Job) -> None:
    """Say so where k windows end long before the years do: change after them would be learned as none."""
    for item, rule in zip(job.labels, job.rules(), strict=True):
        reach = sum(rule.first) // 2 + (job.settings.windows - 1) * (sum(rule.increment) // 2) + item.starts[0].count
        if reach < 0.9 * len(item.steps):
            log.warning(
                "%s: %d windows reach about %d of the %d steps between the dates, so that what changes later is not "
                "seen; take more windows (--windows) or shorten the years",
                item.cube.url, job.settings.windows, reach, len(item.steps),
            )  # fmt: skip


def _plans(job: _Job, dealt: Sequence[Sequence[int]], fold: int | None) -> tuple[TrainingPlan, ...]:
    """The roles of each cube's tiles in a fold; raises where a role has nothing to work with."""
    plans = tuple(
        fold_plan(part, numbers, fold, tile=job.tile, buffer_px=job.buffer_px, seed=job.settings.seed)
        for part, numbers in zip(job.labels, dealt, strict=True)
    )
    training = [item for part, plan in zip(job.labels, plans, strict=True) for item in _with_role(part, plan, "train")]
    name = "all tiles" if fold is None else f"fold {fold}"
    if not any(item.changed for item in training):
        raise TrainingError(
            f"{name}: of {len(training)} tiles left to train on, none holds change; ask for fewer folds, a smaller "
            "buffer (--buffer), or label more tiles"
        )
    return plans


def _with_role(labels: TileLabels, plan: TrainingPlan, role: str) -> list[LabelTile]:
    return [item for item, planned in zip(labels.tiles, plan.tiles, strict=True) if planned.role == role]


def _run_fold(
    job: _Job,
    plans: Sequence[TrainingPlan],
    fold: int | None,
    out: Path,
    run: Path,
    *,
    progress: Progress | None,
) -> FoldResult:
    weights = job.weights
    settings = job.settings.training(weights.config.variant, job.hardware.devices)
    sets = [
        CubeSet(cube=part.cube, labels=part, plan=plan, substitutions=job.substitutions, accepted=job.accepted)
        for part, plan in zip(job.labels, plans, strict=True)
    ]
    counts = {role: sum(tile.role == role for plan in plans for tile in plan.tiles) for role in _ROLES}
    identity = {
        "settings": {**dataclasses.asdict(job.settings), "rate": settings.rate, "input_scale": settings.input_scale},
        "devices": job.hardware.devices,
        "fold": fold,
        "init": weights.sha256,
        "cubes": [_identity(item, part) for item, part in zip(sets, job.labels, strict=True)],
        "substitutions": list(job.substitutions),
        "accepted": list(job.accepted),
    }
    folder = claim(run, identity, restart=job.restart, write=_leads())
    if (done := folder.result) and out.is_file() and load_weights(out).sha256 == done["sha256"]:
        return FoldResult(**done, fold=fold, out=out, run=run, tiles=counts, resumed_at=None, done_before=True)

    training = [item for item in sets if "train" in item.plan.roles]
    common: dict[str, Any] = {"batch_size": settings.batch, "seed": settings.seed, "budget_bytes": job.budget_bytes}
    source = SampleSource(
        training,
        weights,
        role="train",
        samples=_epoch_samples(job, counts["train"]),
        augment="flips" if AUGMENTATIONS[job.settings.augment].turns else None,
        balance=settings.balance,
        **common,
    )
    judging = [item for item in sets if "validation" in item.plan.roles]
    judge = SampleSource(judging, weights, role="validation", **common) if judging else None
    scale = {} if settings.input_scale == "none" else kept_scale(folder, source, weights.config, write=_leads())

    def series(samples: SampleSource, members: Sequence[CubeSet]) -> SeriesSource:
        places = [next(n for n, part in enumerate(job.labels) if part is item.labels) for item in members]
        rules = job.rules()
        return SeriesSource(
            samples,
            [job.labels[n].starts for n in places],
            [rules[n] for n in places],
            windows=job.settings.windows,
            augmentation=AUGMENTATIONS[job.settings.augment],
            seed=settings.seed,
        )

    save = weights_writer(
        dataclasses.replace(
            weights,
            name=out.stem,
            description={
                **job.description,
                "data": ", ".join(part.cube.url for part in job.labels),
                "transferred_from": {"name": weights.name, "description": dict(weights.description)},
                "transfer": {**identity, "tiles": counts},
            },
        ),
        scale,
        out,
    )

    outcome = run_training(
        warm_network(network_from(weights.parameters, weights.config), scale),
        series(source, training),
        series(judge, judging) if judge is not None else None,
        settings,
        scale=scale,
        folder=folder,
        save=save,
        hardware=job.hardware,
        checkpoint_every=job.checkpoint_every,
        progress=progress,
        module=functools.partial(TransferModule, freeze=job.settings.freeze),
        convert=series_tensors,
    )
    result: dict[str, Any] = {
        "sha256": load_weights(out).sha256,
        "epochs": outcome.epochs,
        "batches": outcome.batches,
        "best_epoch": outcome.best_epoch,
        "scores": dict(outcome.scores),
    }
    if _leads():
        folder.finish(result)
    return FoldResult(
        **result, fold=fold, out=out, run=run, tiles=counts, resumed_at=outcome.resumed_at, done_before=False
    )


_ROLES = ("train", "validation", "unused")


def _epoch_samples(job: _Job, tiles: int) -> int:
    """Samples of an epoch: every tile at least once, in full batches."""
    each = job.settings.batch * job.hardware.devices
    return -(-(job.settings.samples or tiles) // each) * each


def _identity(item: CubeSet, labels: TileLabels) -> dict[str, Any]:
    """What makes a cube's samples what they are."""
    plan = json.dumps(item.plan.to_json(), sort_keys=True)
    return {
        "url": item.cube.url,
        "snapshot": item.cube.snapshot,
        **labels.identity,
        "truth": hashlib.sha256(labels.truth.tobytes()).hexdigest()[:16],
        "plan": hashlib.sha256(plan.encode()).hexdigest()[:16],
    }


def _leads() -> bool:
    """Whether this is the process, of several, that writes."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _shared(progress: Progress | None, fold: int | None, position: int, count: int) -> Progress | None:
    """A fold's share of the progress of all."""
    if progress is None or fold is None:
        return progress

    def report(done: int, total: int, message: str) -> None:
        progress(position * total + done, count * total, f"fold {fold}, {message}")

    return report


def _write_summary(path: Path, folds: int, results: Sequence[FoldResult]) -> None:
    """Scores of each fold and their means, as JSON; folds of earlier calls stay listed while their weights exist."""
    listed = {}
    if path.is_file():
        before = json.loads(path.read_text())
        if before.get("folds") == folds:
            listed = {item["fold"]: item for item in before["networks"] if Path(item["out"]).is_file()}
    listed |= {item.fold: json.loads(json.dumps(dataclasses.asdict(item), default=str)) for item in results}
    networks = [listed[number] for number in sorted(listed)]
    for item in networks:
        # A fold whose tiles hold no change has no PR-AUC, and JSON has no NaN.
        item["scores"] = {n: None if v is None or math.isnan(v) else v for n, v in item["scores"].items()}
    means = {}
    for name in networks[0]["scores"]:
        known = [item["scores"][name] for item in networks if item["scores"][name] is not None]
        means[name] = sum(known) / len(known) if known else None
    document = {"folds": folds, "networks": networks, "mean": means}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)
