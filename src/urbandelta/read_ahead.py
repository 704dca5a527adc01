"""Acquisitions of several streams, read at the same time and handed over in order, within some memory.

The network is slow and far, decoding and storing take the processor: while an acquisition is stored, the next ones, of
the next stream too, are on their way.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeAlias

from urbandelta.errors import FetchError, SourceError
from urbandelta.grid import Grid
from urbandelta.offers import Offer, Workspace
from urbandelta.types import Acquisition

Outcome: TypeAlias = Acquisition | Exception

_MEMORY_BYTES = 768 * 2**20
"""For acquisitions that are read ahead: raw bands, resampled bands and the stack of them."""
_COPIES = 3
_BLOCK_BYTES = 128 * 2**20
_MOST_AHEAD = 16
# Most of them wait for bytes: of the bands of one file, which often come together, and of several files.
_THREADS = 32
_GIVE_UP = 8
"""Failures in a row after which an archive is taken to be down; the rest is listed as missing, to be tried later."""


def read_in_order(
    offers: Sequence[Offer], grid: Grid, *, workers: int | None = None, block_rows: int | None = None
) -> Generator[tuple[Offer, Outcome]]:
    """Acquisitions in the order of the offers, or why they cannot be had.

    Parameters
    ----------
    offers : sequence of Offer
    grid : Grid
        Onto which they are read.
    workers : int, optional
        Acquisitions that are read at the same time, besides the one that was handed over last; by default as many as
        fit some memory, at least one.
    block_rows : int, optional
        Rows of an acquisition that are read at a time; chosen by memory.
    """
    remaining = deque(offers)
    waiting: deque[tuple[Offer, Future[Acquisition] | None]] = deque()
    failures: Counter[str] = Counter()  # in a row, by stream

    def is_room() -> bool:
        if workers is not None:
            return len(waiting) < workers
        needed = sum(_bytes(grid, offer.bands) for offer, _ in waiting) + _bytes(grid, remaining[0].bands)
        return not waiting or (len(waiting) < _MOST_AHEAD and needed <= _MEMORY_BYTES)

    def begin(readers: Executor, threads: Executor) -> None:
        while remaining and is_room():
            offer = remaining.popleft()
            rows = block_rows or _rows(grid, offer.bands)
            workspace = Workspace(grid=grid, threads=threads, block_rows=rows)
            down = failures[offer.stream] >= _GIVE_UP
            waiting.append((offer, None if down else readers.submit(offer.read, workspace)))

    def outcome_of(offer: Offer, future: Future[Acquisition] | None) -> Outcome:
        if future is None or failures[offer.stream] >= _GIVE_UP:
            if future is not None:
                future.cancel()
            return FetchError(f"not tried, as the {_GIVE_UP} acquisitions before it could not be had")
        try:
            acquisition = future.result()
        except (FetchError, SourceError) as error:
            failures[offer.stream] += isinstance(error, FetchError)
            return error
        failures[offer.stream] = 0
        return acquisition

    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="bands") as threads,
        ThreadPoolExecutor(workers or _MOST_AHEAD, thread_name_prefix="acquisitions") as readers,
    ):
        try:
            begin(readers, threads)
            while waiting:
                offer = waiting[0][0]
                outcome = outcome_of(*waiting.popleft())
                begin(readers, threads)
                yield offer, outcome
                del outcome  # before the next is waited for
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _bytes(grid: Grid, bands: int) -> int:
    return _COPIES * 4 * grid.height * grid.width * max(bands, 1)


def _rows(grid: Grid, bands: int) -> int | None:
    rows = _BLOCK_BYTES // (4 * grid.width * max(bands, 1))
    # Whole multiples of what archives tile by, so that no tile is asked for twice but at the seams of other CRSs.
    return None if rows >= grid.height else max(512, rows // 512 * 512)
