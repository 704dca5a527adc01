"""Score stores that grow: windows at the end are added and replaced, those before are never touched.

What is new is written on a branch of the store and becomes the store's content in one step, so readers see the old
scores or the new ones. A run that was killed goes on where it stopped if it is still the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import zarr
from zarr.abc.store import Store

from urbandelta.errors import StoreError
from urbandelta.repository import Repository, open_repository, zarr_group
from urbandelta.scores import KIND, SPREAD, ScoreWriter, write_windows
from urbandelta.stream_index import array_of
from urbandelta.types import Window

_BRANCH = "growing"
INPUTS = "window_inputs"
"""Root attribute: what each window was made from."""
_METHOD = (
    "weights_sha256",
    "engine",
    "precision",
    "mask_rule",
    "substitutions",
    "accepted",
    "tile",
    "halo",
    "block_px",
)
"""Parts of the identity that all windows of a store share, whatever acquisitions there are."""


@dataclass(frozen=True)
class StoredWindows:
    """What a score store holds: how each window was made, whether the run ended, and the attributes."""

    inputs: tuple[str, ...]
    complete: bool
    attributes: Mapping[str, Any]
    snapshot: str

    def kept(self, inputs: Sequence[str], identity: Mapping[str, Any]) -> int:
        """How many windows from the first on are as they should be.

        Raises
        ------
        StoreError
            If the store was made with other weights or options.
        """
        stored = cast("Mapping[str, Any]", self.attributes.get("identity", {}))
        for key in (*_METHOD, "start", "stride"):
            if stored.get(key) != identity.get(key):
                raise StoreError(
                    f"holds scores whose {key} is {stored.get(key)!r}, not {identity.get(key)!r}; scores of a "
                    "monitor are made in one way: give it another store, or delete the scores to make all of them anew"
                )
        if not self.complete:
            return 0
        same = [one == other for one, other in zip(self.inputs, inputs, strict=False)]
        return same.index(False) if False in same else len(same)


def stored_windows(url: str) -> StoredWindows:
    """What a score store holds; raises `StoreError` if there is none."""
    repository = open_repository(url, kind=KIND)
    snapshot = repository.tip()
    attributes = dict(zarr_group(repository, snapshot).attrs)
    inputs = cast("list[str]", attributes.get(INPUTS, []))
    return StoredWindows(tuple(inputs), bool(attributes.get("complete")), attributes, snapshot)


def grow_scores(
    url: str,
    *,
    windows: Sequence[Window],
    keep: int,
    attributes: Mapping[str, Any],
    provisional: Sequence[bool],
) -> ScoreWriter:
    """Make room for `windows` in a score store, of which the first `keep` stay as they are, or go on doing so.

    The writer's contributions are of the windows from `keep` on; its `finish` lets readers see them.

    Raises
    ------
    StoreError
        If there is no such store.
    """
    repository = open_repository(url, kind=KIND)
    wanted = {**attributes, "kept": keep}
    if repository.has_branch(_BRANCH):
        branch = repository.on_branch(_BRANCH)
        found = dict(zarr_group(branch, branch.tip()).attrs)
        if found.get("identity") == wanted.get("identity") and found.get("kept") == keep:
            return ScoreWriter(branch, first=keep)
    branch = repository.fork(_BRANCH)
    _make_room(branch, windows, keep, wanted, provisional)
    return ScoreWriter(branch, first=keep)


def _make_room(
    branch: Repository, windows: Sequence[Window], keep: int, attributes: Mapping[str, Any], provisional: Sequence[bool]
) -> None:
    def write(store: Store, _snapshot: str) -> Mapping[str, Any]:
        root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        for name in ("score", SPREAD):
            if name in root:
                array = array_of(root, name)
                array.resize((len(windows), *array.shape[1:]))
                # Of the windows that are made anew nothing may remain, or it would be added to.
                slab = array.chunks[0]
                for begin in range(keep // slab * slab, len(windows), slab):
                    array[max(begin, keep) : min(begin + slab, len(windows))] = np.nan
        write_windows(root, windows, provisional)
        root.attrs.update({**attributes, "blocks_done": [], "complete": False})
        return {"windows": len(windows), "kept": keep}

    branch.commit("grow", write)
