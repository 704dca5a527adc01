"""The ledger of a monitor: items that were looked at and not stored, and why, so that they are not fetched again.

One JSON object a line, added by one write each and never changed: a kill leaves whole lines, or a torn last one, which
is skipped when reading. An item whose `updated` differs from the ledger's is looked at again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from urbandelta.errors import StoreError

Verdict: TypeAlias = Literal["empty", "refused", "late"]

FILE_NAME = "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """An acquisition that is not stored.

    `verdict` is `empty` (no pixel over the area), `refused` (it cannot be stored rightly) or `late` (its pass is stored
    already, from other items). `updated` is the catalogue's own time of change, `noted` ours.
    """

    stream: str
    item_id: str
    time: str
    verdict: Verdict
    reason: str
    updated: str = ""
    noted: str = ""


class Ledger:
    """A ledger file; made when the first entry is added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = {_key(entry): entry for entry in self.entries()}

    def entries(self) -> list[LedgerEntry]:
        """All entries, oldest first.

        Raises
        ------
        StoreError
            If a line other than the last is no entry: the file was changed by hand.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found.append(LedgerEntry(**json.loads(line)))
            except (ValueError, TypeError) as error:
                # A torn line has another after it once more was added: it is skipped for good.
                if not line.endswith(b"}"):
                    continue
                raise StoreError(
                    f"{self.path}:{number}: is no entry of a ledger ({error}); correct it or delete the line"
                ) from error
        return found

    def knows(self, stream: str, item_id: str, time: str, updated: str) -> LedgerEntry | None:
        """The entry of an item, unless the item changed since."""
        return self._known.get((stream, item_id, time, updated))

    def add(self, entry: LedgerEntry) -> None:
        """Append an entry; one that is there already is left alone."""
        if _key(entry) in self._known:
            return
        noted = entry.noted or datetime.now(UTC).isoformat(timespec="seconds")
        entry = LedgerEntry(**{**asdict(entry), "noted": noted})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" + line if torn else line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._known[_key(entry)] = entry

    def add_all(self, entries: Iterable[LedgerEntry]) -> None:
        """Append several entries."""
        for entry in entries:
            self.add(entry)


def _key(entry: LedgerEntry) -> tuple[str, str, str, str]:
    return entry.stream, entry.item_id, entry.time, entry.updated
