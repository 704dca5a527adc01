"""Snapshots of an Icechunk repository: which there are, which stay, and deleting the others.

The last snapshot of each batch of commits stays under a tag. Expiring the others cuts the ancestry at those that stay,
so the history is put together from the branch and the tags.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import icechunk

BRANCH = "main"
_TAG = "batch-"


@dataclass(frozen=True)
class Commit:
    """One snapshot of a store: its id, when it was written (UTC), what it did, and what was recorded with it."""

    snapshot: str
    time: datetime
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def history(repo: icechunk.Repository, snapshot: str) -> list[Commit]:
    """Commits up to a snapshot, newest first; of a batch that was compacted, the last one."""
    entries = _ancestry(repo, snapshot_id=snapshot)
    kept = list(_tags(repo))
    if entries[-1].id in kept:
        older = kept[: kept.index(entries[-1].id)]
        entries += [repo.lookup_snapshot(each) for each in reversed(older)]
    return [
        Commit(entry.id, entry.written_at.astimezone(UTC), entry.message, dict(entry.metadata)) for entry in entries
    ]


def oldest(repo: icechunk.Repository) -> str:
    """The empty snapshot that Icechunk begins with; no compaction drops it."""
    return str(list(repo.ancestry(branch=BRANCH))[-1].id)


def tag_batch_ends(repo: icechunk.Repository) -> bool:
    """Tag the last snapshot of each batch, oldest first; whether there are others that may be dropped.

    Metadata `appended` numbers the commits of a batch from 1; a commit without it is a batch of its own.
    """
    entries = _ancestry(repo, branch=BRANCH)
    starts = [entry.metadata.get("appended", 1) == 1 for entry in entries]
    ends = [entry.id for entry, newer_starts in zip(entries, [True, *starts], strict=False) if newer_starts]
    if len(ends) == len(entries):
        return False
    _tag(repo, reversed(ends))
    return True


def drop_untagged(repo: icechunk.Repository, *, before: datetime) -> None:
    """Cut from the history what is older than `before`, but for the tip and what is tagged; files stay."""
    repo.expire_snapshots(older_than=before)


def delete_unreachable(repo: icechunk.Repository, *, before: datetime) -> int:
    """Delete files older than `before` that no branch or tag reaches; returns their bytes."""
    return int(repo.garbage_collect(before).bytes_deleted)


def _tag(repo: icechunk.Repository, snapshots: Iterable[str]) -> None:
    tags = _tags(repo)
    numbers = itertools.count(max(tags.values(), default=0) + 1)
    for snapshot in snapshots:
        if snapshot not in tags:
            repo.create_tag(f"{_TAG}{next(numbers):04d}", snapshot)


def _tags(repo: icechunk.Repository) -> dict[str, int]:
    """Snapshots that end a batch, oldest first, each with the number of its tag."""
    numbers = sorted(int(tag.removeprefix(_TAG)) for tag in repo.list_tags() if tag.startswith(_TAG))
    return {str(repo.lookup_tag(f"{_TAG}{number:04d}")): number for number in numbers}


def _ancestry(repo: icechunk.Repository, **start: str) -> list[icechunk.SnapshotInfo]:
    """Snapshots from `start` back, newest first, without the empty one that Icechunk begins with."""
    return list(repo.ancestry(**start))[:-1]
