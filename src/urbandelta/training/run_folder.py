"""The folder of a training: its configuration, the newest checkpoint, the input's scale, the result."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urbandelta.errors import TrainingError
from urbandelta.training.settings import differences

_CONFIGURATION = "config.json"
_RESULT = "result.json"


@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one training; made by `claim`."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Where the newest checkpoint is, or will be."""
        return self.path / "last.ckpt"

    @property
    def result(self) -> dict[str, Any] | None:
        """What the training ended with, if it has ended."""
        return self.read(_RESULT)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Note what the training ended with."""
        self.write(_RESULT, result)

    def read(self, name: str) -> dict[str, Any] | None:
        """A document of the folder, or None."""
        path = self.path / name
        return dict(json.loads(path.read_text())) if path.is_file() else None

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document beside its place, then rename it."""
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(document, indent=2) + "\n")
        temporary.replace(self.path / name)


def claim(path: Path, identity: Mapping[str, Any], *, restart: bool, write: bool) -> RunFolder:
    """The folder for the training that `identity` (JSON values) describes.

    Parameters
    ----------
    restart : bool
        Empty it first, whatever training it holds.
    write : bool
        Whether this process makes the folder; of several, one does.

    Raises
    ------
    TrainingError
        If the folder holds another training, or something else.
    """
    folder = RunFolder(path)
    if restart and write and folder.read(_CONFIGURATION) is not None:
        shutil.rmtree(path)
    before = folder.read(_CONFIGURATION)
    if before is not None:
        if changed := differences(before, json.loads(json.dumps(identity))):
            raise TrainingError(
                f"{path}: holds a training that differs in {'; '.join(changed[:4])}; choose another folder (--run), or "
                "start over (--restart)"
            )
    elif write:
        if path.is_dir() and any(path.iterdir()):
            raise TrainingError(f"{path}: holds other files and no training; choose another folder (--run)")
        path.mkdir(parents=True, exist_ok=True)
        folder.write(_CONFIGURATION, identity)
    return folder
