"""Fetch: bring every acquisition that a monitor's source has into its cube, one commit each, in order of time.

Several acquisitions are read at once and handed over in order, so the cube does not depend on which arrived first. What
cannot be read is left out and listed, never stored; what was stored stays, so a fetch that was killed goes on where it
was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from urbandelta.errors import ConfigError, StoreError
from urbandelta.grid import Grid
from urbandelta.ledger import FILE_NAME, Ledger
from urbandelta.offers import Held, Offer, StreamOffers, entry_of, next_action
from urbandelta.read_ahead import Outcome, read_in_order
from urbandelta.sources.importing import existing_cube
from urbandelta.store import Cube, create_cube
from urbandelta.types import Acquisition, BoolArray, MaskReason, Progress

if TYPE_CHECKING:
    from urbandelta.monitor import Monitor

log = logging.getLogger(__name__)

_UNSEEN = int(MaskReason.NODATA | MaskReason.BORDER_NOISE)


@dataclass(frozen=True, kw_only=True)
class MissingItem:
    """An acquisition that the source has and that could not be had."""

    item_id: str
    stream: str
    time: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """What a fetch did.

    `added` counts by stream; `skipped` were stored or noted before; `empty` have no pixel over the area, `refused`
    cannot be stored rightly, `late` belong to passes that are stored already: all three are in the ledger. `missing`
    could not be had this time.
    """

    added: Mapping[str, int]
    skipped: int = 0
    empty: int = 0
    refused: int = 0
    late: int = 0
    missing: tuple[MissingItem, ...] = ()
    snapshot: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass
class _Tally:
    added: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    empty: int = 0
    refused: int = 0
    late: int = 0
    missing: list[MissingItem] = field(default_factory=list)


def fetch(
    monitor: Monitor,
    *,
    until: np.datetime64 | str | None = None,
    streams: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    block_rows: int | None = None,
) -> FetchReport:
    """Add to a monitor's cube what its source has and the cube has not.

    Parameters
    ----------
    monitor : Monitor
    until : datetime64 or str, optional
        Leave out acquisitions from this moment on; by default the monitor's end, else now.
    streams : sequence of str, optional
        Only these streams.
    workers : int, optional
        Acquisitions read at the same time; chosen by memory.
    progress : callable, optional
        Called with (acquisitions done, in all, name).
    block_rows : int, optional
        Rows read at a time; chosen by memory. Neither this nor `workers` changes a bit of the cube.

    Returns
    -------
    FetchReport
        With everything that could not be had in `missing`; the rest is stored.

    Raises
    ------
    ConfigError
        If the source or its options make no sense.
    StoreError
        If another fetch is running, or the cube cannot hold what the source has (another grid, encoding, coefficient).
    """
    from urbandelta.offering import find_offers

    grid = monitor.make_grid()
    with _alone(monitor.folder):
        cube = cube_of(monitor)
        if cube is not None and cube.grid != grid:
            raise StoreError(
                f"{cube.url}: lies on {cube.grid}, the monitor on {grid}; correct its aoi and grid, or its store"
            )
        found = find_offers(monitor, cube, until=until, streams=streams)
        return store_offers(
            found,
            cube_url=monitor.cube_url,
            era=monitor.era,
            grid=grid,
            inside=monitor.aoi_area().inside(grid),
            ledger=Ledger(monitor.folder / FILE_NAME),
            workers=workers,
            progress=progress,
            block_rows=block_rows,
        )


def store_offers(
    found: Sequence[StreamOffers],
    *,
    cube_url: str,
    era: str,
    grid: Grid,
    inside: BoolArray,
    ledger: Ledger,
    workers: int | None = None,
    progress: Progress | None = None,
    block_rows: int | None = None,
) -> FetchReport:
    """Read and store what a cube lacks of some offers; `inside` are the pixels that an acquisition must reach."""
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    cube = existing_cube(cube_url)
    tally = _Tally(missing=[_unasked(stream) for stream in found if stream.failure])
    chosen = {stream.stream: _choose(stream, cube, ledger, tally) for stream in found}
    total = sum(len(offers) for offers in chosen.values())
    done = 0

    def advance(message: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, message)

    tally.added = dict.fromkeys(chosen, 0)
    wanted = [offer for offers in chosen.values() for offer in offers]
    outcomes = read_in_order(wanted, grid, workers=workers, block_rows=block_rows)
    with closing(outcomes):
        for stream, arriving in groupby(outcomes, key=lambda outcome: outcome[0].stream):
            good = _good(arriving, inside, ledger, tally, advance)
            first = next(good, None)
            if first is None:
                continue
            # Only now: an archive that gives nothing leaves no empty cube behind.
            cube = cube or create_cube(cube_url, era=era, grid=grid)
            report = cube.append(stream, chain([first], good))
            tally.added[stream] = report.added
            tally.skipped += report.skipped
    return FetchReport(
        added=tally.added,
        skipped=tally.skipped,
        empty=tally.empty,
        refused=tally.refused,
        late=tally.late,
        missing=tuple(tally.missing),
        snapshot=cube.snapshot if cube is not None else "",
    )


def cube_of(monitor: Monitor) -> Cube | None:
    """The cube of a monitor, open for appending; None if there is none yet."""
    return existing_cube(monitor.cube_url)


def held_by(cube: Cube | None, stream: str) -> Held:
    """What a cube holds of a stream, for choosing offers."""
    if cube is None or stream not in cube.streams:
        return Held()
    known = cube.acquisitions(stream)
    # One item id may join several, as granules of one pass are merged.
    return Held(
        times=known.time.values.astype("datetime64[ns]"),
        item_ids=tuple(str(value) for value in known["item_id"].values),
        platforms=tuple(str(value) for value in known["platform"].values),
        relative_orbits=tuple(int(value) for value in known["relative_orbit"].values),
    )


def _choose(stream: StreamOffers, cube: Cube | None, ledger: Ledger, tally: _Tally) -> list[Offer]:
    held = held_by(cube, stream.stream)
    chosen = []
    for unusable in stream.unusable:
        if ledger.knows(stream.stream, unusable.item_id, unusable.moment, unusable.updated) is None:
            ledger.add(entry_of(unusable, stream.stream, "refused", unusable.reason))
            tally.refused += 1
        else:
            tally.skipped += 1
    for offer in stream.offers:
        action, reason = next_action(offer, held, ledger)
        if action == "fetch":
            chosen.append(offer)
        elif action == "late":
            ledger.add(entry_of(offer, stream.stream, "late", reason))
            tally.late += 1
        else:
            tally.skipped += 1
    return chosen


def _good(
    outcomes: Iterator[tuple[Offer, Outcome]],
    inside: BoolArray,
    ledger: Ledger,
    tally: _Tally,
    advance: Any,
) -> Iterator[Acquisition]:
    """Acquisitions to store; notes the others."""
    from urbandelta.sources.reading import OffsetContradiction

    for offer, outcome in outcomes:
        advance(f"{offer.stream} {offer.moment}")
        if isinstance(outcome, OffsetContradiction):
            log.warning("%s", outcome)
            ledger.add(entry_of(offer, offer.stream, "refused", str(outcome)))
            tally.refused += 1
        elif isinstance(outcome, Exception):
            log.warning("%s %s: %s", offer.stream, offer.item_id, outcome)
            tally.missing.append(
                MissingItem(item_id=offer.item_id, stream=offer.stream, time=offer.moment, reason=str(outcome))
            )
        elif not np.any(inside & (outcome.mask & _UNSEEN == 0)):
            ledger.add(entry_of(offer, offer.stream, "empty", "no pixel over the area"))
            tally.empty += 1
        else:
            yield outcome


def _unasked(stream: StreamOffers) -> MissingItem:
    return MissingItem(item_id=f"(search of {stream.where})", stream=stream.stream, time="", reason=stream.failure)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second fetch of the same monitor; the lock ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "fetch.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{folder}: another fetch of this monitor is running; wait until it ends") from None
    try:
        yield
    finally:
        lock.release()
