"""Acquisitions of an import without an observed pixel: left out, and remembered so that they are not read again.

They are noted in a ledger beside a local cube, by item, time and a digest of what decides about emptiness: options,
grid and the files as they are. Changed files or other options are looked at again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from urbandelta.ledger import Ledger, LedgerEntry
from urbandelta.masking import is_empty
from urbandelta.repository import local_path
from urbandelta.sources.base import Scene, SceneSource, bands_of, origins
from urbandelta.types import Acquisition


@dataclass
class Empties:
    """What one import knows of empty acquisitions; `count` grows while `left_out` is drawn from."""

    ledger: Ledger | None
    source: SceneSource
    unknown: tuple[Scene, ...]
    """Scenes that are to be read."""
    noted: int
    """Scenes that an earlier import found empty."""
    count: int = 0

    @classmethod
    def of(cls, cube: str, source: SceneSource) -> Empties:
        """For an import into the cube at a path or URL; on an object store nothing is remembered."""
        path = local_path(cube)
        if path is None:
            return cls(None, source, source.scenes, 0)
        ledger = Ledger(path.with_name(f"{path.name}.ledger.jsonl"))
        unknown = tuple(scene for scene in source.scenes if not _knows(ledger, scene, source))
        return cls(ledger, source, unknown, len(source.scenes) - len(unknown))

    def left_out(self, acquisitions: Iterator[Acquisition]) -> Iterator[Acquisition]:
        """The acquisitions that are not empty; `acquisitions` are those of `unknown`, in order."""
        for acquisition, scene in zip(acquisitions, self.unknown, strict=True):
            if not is_empty(acquisition):
                yield acquisition
                continue
            self.count += 1
            if self.ledger is not None:
                self.ledger.add(
                    LedgerEntry(
                        stream=self.source.recipe.stream.name,
                        item_id=scene.item_id,
                        time=_moment(scene),
                        verdict="empty",
                        reason="no pixel with data on the grid",
                        updated=_version(scene, self.source),
                    )
                )


def _knows(ledger: Ledger, scene: Scene, source: SceneSource) -> bool:
    # Without entries no file is looked at: a folder may hold thousands.
    if not ledger.path.exists():
        return False
    name = source.recipe.stream.name
    return ledger.knows(name, scene.item_id, _moment(scene), _version(scene, source)) is not None


def _moment(scene: Scene) -> str:
    return f"{np.datetime_as_string(scene.time, 'ms')}Z"


def _version(scene: Scene, source: SceneSource) -> str:
    """Digest of options, grid, and the size and time of change of the files."""
    masks = tuple(rule.band for rule in source.recipe.encoding.masks)
    files = [[origin, *_state(origin)] for origin in origins(scene, (*bands_of(scene, source.recipe.stream), *masks))]
    document = [source.recipe.as_dict(), str(source.grid), files]
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _state(origin: str) -> tuple[int, int]:
    # Origins may name a band or a member behind the file.
    for path in (origin, origin.rpartition(":")[0], origin.partition("!")[0], origin.rpartition(" ")[0]):
        try:
            known = Path(path).stat()
        except (OSError, ValueError):
            continue
        return known.st_size, known.st_mtime_ns
    return 0, 0
