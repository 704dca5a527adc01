"""`train_windows`: the published training windows (TFRecord) in, weights out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from urbandelta.errors import TrainingError
from urbandelta.runs import usable_cores
from urbandelta.split import SplitOptions
from urbandelta.training.fit import (
    TrainingResult,
    finished_before,
    fit_sources,
    is_leader,
    start_weights,
    weights_path,
)
from urbandelta.training.loop import Hardware
from urbandelta.training.run_folder import RunFolder, claim
from urbandelta.training.settings import TrainingSettings
from urbandelta.types import Progress
from urbandelta.weights import Weights
from urbandelta.window_files import WindowFiles, counts_of, index_windows
from urbandelta.window_samples import WindowSource, split_windows

_COUNTS = "windows.json"


def train_windows(
    folders: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    validation: Sequence[str | os.PathLike[str]] = (),
    split: SplitOptions | None = None,
    settings: TrainingSettings | None = None,
    init: Weights | str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    restart: bool = False,
    hardware: Hardware | None = None,
    checkpoint_every: int = 25,
    description: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train the network on window files as the published scripts wrote them.

    All files are read once to count their windows and to check them; the counts are kept in the run's folder.

    Parameters
    ----------
    folders : sequence of path-like
        With files `SITE_ROW_COLUMN.tfrecords`.
    validation : sequence of path-like
        Folders to validate on, whole.
    split : SplitOptions, optional
        How the tiles of each site are divided. By default spatial blocks, a fifth of them for validation; all tiles
        train where there are validation folders.
    out, settings, init, run, restart, hardware, checkpoint_every, description, progress
        As `train` has them.

    Raises
    ------
    TrainingError
        If there is nothing to train on, an option is out of range, or `run` holds another training.
    SourceError
        If a file is damaged or holds something else.
    """
    hardware = hardware or Hardware()
    settings = (settings or TrainingSettings()).completed(hardware.devices)
    if settings.balance is not None:
        raise TrainingError("windows in files are drawn as they come; leave balance out, or import the stacks")
    out = weights_path(out)
    place = out.with_suffix(".run") if run is None else Path(run)
    known = None if restart else RunFolder(place).read(_COUNTS)
    threads = hardware.threads or usable_cores()
    indexed = [
        index_windows([Path(folder) for folder in group], known=known, threads=threads, progress=progress)
        for group in (folders, validation)
        if group
    ]
    if not folders:
        raise TrainingError("no folder of windows to train on; name one at least")
    if len({(files.era.name, files.tile) for files in indexed}) > 1:
        raise TrainingError("the windows to validate on are of another era or tile than those to train on")
    parts = split_windows(indexed[0], split or settings.default_split(held_out=bool(validation)))
    if "train" not in parts:
        raise TrainingError("the split leaves no window to train on")
    held_out = parts.get("validation") if len(indexed) == 1 else indexed[1]
    era = indexed[0].era
    start, config = start_weights(init, era, settings)
    identity = {
        "settings": dataclasses.asdict(settings),
        "devices": hardware.devices,
        "train": _identity(parts["train"]),
        "validation": None if held_out is None else _identity(held_out),
        "init": start.sha256 if start else None,
    }
    folder = claim(place, identity, restart=restart, write=is_leader())
    if is_leader():
        folder.write(_COUNTS, {path: entry for files in indexed for path, entry in counts_of(files).items()})
    if (done := finished_before(folder, out)) is not None:
        return done
    source = WindowSource(parts["train"], config, role="train", **settings.draws(hardware.devices))
    judge = None
    if held_out is not None:
        judge = WindowSource(held_out, config, role="validation", **settings.judged())
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
            "data": ", ".join(str(folder) for folder in folders),
            "training": identity,
        },
        hardware=hardware,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )


def _identity(files: WindowFiles) -> dict[str, Any]:
    """What makes windows what they are: names, sizes and counts of the files, wherever they lie."""
    listed = sorted((file.path.name, file.size, file.records) for file in files.files)
    return {
        "files": len(listed),
        "windows": files.records,
        "digest": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
    }
