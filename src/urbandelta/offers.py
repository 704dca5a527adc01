"""What a source offers to a cube: acquisitions that can be read, wherever they come from, known before a pixel is read.

An `Offer` is small; its `read` does the work, in a thread of the fetch. Which offers are taken is decided purely, from
what the cube and the ledger hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from urbandelta.grid import Grid
from urbandelta.ledger import Ledger, LedgerEntry
from urbandelta.types import Acquisition

Action: TypeAlias = Literal["fetch", "stored", "noted", "late"]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a read is given: the grid, threads for its bands, and rows to read at a time (None: all)."""

    grid: Grid
    threads: Executor
    block_rows: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Offer:
    """One acquisition that a source has.

    `read` raises `FetchError` or `SourceError` where its pixels cannot be had; then nothing of it is returned.
    `bytes` is what reading transfers, about; None if that is unknown.
    """

    stream: str
    time: np.datetime64
    item_id: str
    read: Callable[[Workspace], Acquisition]
    updated: str = ""
    platform: str = ""
    relative_orbit: int = -1
    bands: int = 0
    bytes: int | None = None
    pass_seconds: float = 120.0
    """Acquisitions of one satellite and orbit closer than this are one pass."""

    @property
    def moment(self) -> str:
        """Its time in UTC, to the second."""
        return f"{np.datetime_as_string(self.time, 's')}Z"


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """An item that a source has and that cannot become an acquisition."""

    item_id: str
    time: np.datetime64
    reason: str
    updated: str = ""

    @property
    def moment(self) -> str:
        """Its time in UTC, to the second."""
        return f"{np.datetime_as_string(self.time, 's')}Z"


@dataclass(frozen=True, kw_only=True)
class StreamOffers:
    """All that a source has for one stream, in order of time.

    `failure` says why the source could not be asked; then there are no offers, and that is no answer.
    """

    stream: str
    offers: tuple[Offer, ...] = ()
    unusable: tuple[Unusable, ...] = ()
    superseded: int = 0
    failure: str = ""
    where: str = ""


@dataclass(frozen=True, eq=False)
class Held:
    """What a cube holds of a stream, as far as choosing needs it."""

    times: npt.NDArray[np.datetime64] = field(default_factory=lambda: np.array([], "datetime64[ns]"))
    item_ids: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    relative_orbits: tuple[int, ...] = ()

    def has(self, offer: Offer) -> bool:
        """Whether this very acquisition is stored, by name and time."""
        return any(self.item_ids[index] == offer.item_id for index in np.flatnonzero(self.times == offer.time))

    def of_same_pass(self, offer: Offer) -> str | None:
        """Item id of the stored acquisition of the same pass, if there is one."""
        near = np.abs(self.times - offer.time) <= np.timedelta64(round(offer.pass_seconds * 1e9), "ns")
        for index in np.flatnonzero(near):
            same_satellite = "" in (self.platforms[index], offer.platform) or self.platforms[index] == offer.platform
            orbits = {self.relative_orbits[index], offer.relative_orbit} - {-1}
            if self.times[index] == offer.time or (same_satellite and len(orbits) < 2):
                return self.item_ids[index] or str(np.datetime_as_string(self.times[index], "s"))
        return None


def next_action(offer: Offer, held: Held, ledger: Ledger) -> tuple[Action, str]:
    """What to do with an offer, and why.

    `stored`: the cube has this very item. `noted`: the ledger says why it is not stored, and it has not changed since.
    `late`: the cube has its pass from other items; what is stored never changes. Otherwise it is to be fetched.
    """
    if held.has(offer):
        return "stored", ""
    entry = ledger.knows(offer.stream, offer.item_id, offer.moment, offer.updated)
    if entry is not None:
        return "noted", entry.reason
    other = held.of_same_pass(offer)
    if other is not None:
        return "late", f"its pass is stored from {other}"
    return "fetch", ""


def entry_of(
    offer: Offer | Unusable, stream: str, verdict: Literal["empty", "refused", "late"], reason: str
) -> LedgerEntry:
    """Line of the ledger about an offer."""
    return LedgerEntry(
        stream=stream,
        item_id=offer.item_id,
        time=offer.moment,
        verdict=verdict,
        reason=reason,
        updated=offer.updated,
    )


def total_bytes(offers: Sequence[Offer]) -> int | None:
    """Bytes that reading some offers transfers, about; None if it is unknown of any."""
    sizes = [offer.bytes for offer in offers]
    return None if None in sizes else sum(size for size in sizes if size is not None)
