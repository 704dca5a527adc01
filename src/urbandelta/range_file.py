"""A file at a distance that can be read at any place: blocks in a bounded cache, ranges fetched at the same time.

Several files of one address that are open at the same time share their blocks, and what one of them is fetching the
others wait for: the bands of a file are read side by side but transferred once. They share a version as well, so that
a file which is exchanged meanwhile is an error for all of them.
"""

from __future__ import annotations

import io
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from urbandelta.errors import FetchError
from urbandelta.http_answers import Answer, ExchangedError, Version

Span: TypeAlias = tuple[int, int]
"""Half-open range of bytes."""
Blocks: TypeAlias = dict[int, memoryview]
"""Blocks of a file by number."""
Ask: TypeAlias = Callable[[Span, Version | None], Answer]


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Bytes of a cached block, a first and another unforeseen read, gaps read along, one request, all at once."""

    block: int
    first: int
    ahead: int
    gap: int
    request: int
    most: int


class Contents(Protocol):
    """Bytes of one resource."""

    @property
    def origin(self) -> str:
        """Address for messages."""

    @property
    def size(self) -> int:
        """Of the whole."""

    def read(self, start: int, end: int, held: Blocks) -> bytes:
        """A range inside the resource; `held` are blocks that the reader keeps."""

    def hold(self, spans: Sequence[Span]) -> Blocks:
        """Blocks that cover some ranges, for `read`."""


class RangeFile(io.RawIOBase):
    """A seekable, read-only binary file over ranges; every failure is a `FetchError`.

    `read_range` and `prefetch` may be called from several threads, `seek` and `read` only from one at a time.
    """

    def __init__(self, contents: Contents, *, most: int) -> None:
        super().__init__()
        self._contents = contents
        self._most = most
        self._held: Blocks = {}
        self._position = 0

    def __repr__(self) -> str:
        return f"RangeFile({self.origin!r})"

    @property
    def origin(self) -> str:
        """Address without query and user, for messages."""
        return self._contents.origin

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._contents.size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self.origin}: no place {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the file."""
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        data = self.read_range(self._position, end)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All that is left."""
        return self.read(-1)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes of a half-open range, cut at the end of the file."""
        start, end = max(start, 0), min(end, self.size)
        if start >= end:
            return b""
        if end - start > self._most:
            raise FetchError(f"{self.origin}: {end - start} bytes at once are not read, at most {self._most}")
        return self._contents.read(start, end, self._held)

    def prefetch(self, ranges: Iterable[Span]) -> None:
        """Fetch half-open ranges, neighbours together and several at the same time, and hold them until the next call.

        Parts of ranges beyond the end of the file are left out.
        """
        spans = [(max(start, 0), min(end, self.size)) for start, end in ranges]
        spans = [(start, end) for start, end in spans if start < end]
        total = sum(end - start for start, end in spans)
        if total > self._most:
            raise FetchError(f"{self.origin}: {total} bytes at once are not fetched, at most {self._most}")
        self._held = self._contents.hold(spans)

    def close(self) -> None:
        """Let go of what is held."""
        self._held = {}
        super().close()


class BlockCache:
    """Blocks of many files, in the runs that they arrived in; for several threads.

    Beyond a number of bytes the run that was not used for longest is dropped whole, as its blocks are views into one
    body. That saves a copy of all that is transferred.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: OrderedDict[int, tuple[tuple[int, int], Sequence[int]]] = OrderedDict()
        self._blocks: dict[tuple[int, int], tuple[int, memoryview]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes_kept(self) -> int:
        """Bytes of all runs."""
        return self._bytes

    def find(self, file: int, numbers: Sequence[int]) -> dict[int, memoryview]:
        """Those of some blocks of a file that are there."""
        found = {}
        with self._lock:
            for number in numbers:
                known = self._blocks.get((file, number))
                if known is not None:
                    found[number] = known[1]
                    self._runs.move_to_end(known[0])
        return found

    def keep(self, file: int, blocks: Mapping[int, memoryview]) -> None:
        """Keep the blocks of a run."""
        size = sum(map(len, blocks.values()))
        with self._lock:
            run = next(_numbers)
            self._runs[run] = ((file, size), tuple(blocks))
            self._blocks.update(((file, number), (run, block)) for number, block in blocks.items())
            self._bytes += size
            while self._bytes > self._limit:
                self._drop(*self._runs.popitem(last=False))

    def _drop(self, run: int, what: tuple[tuple[int, int], Sequence[int]]) -> None:
        (file, size), numbers = what
        self._bytes -= size
        for number in numbers:
            # A later run may have brought the same block.
            if self._blocks[file, number][0] == run:
                del self._blocks[file, number]


_numbers = itertools.count()


class DistantContents:
    """One resource behind a way to ask for its ranges; shared by all files that are open on it."""

    def __init__(self, origin: str, ask: Ask, cache: BlockCache, executor: Executor, options: BlockOptions) -> None:
        self.origin = origin
        self.stale = False
        self._ask, self._cache, self._executor, self._options = ask, cache, executor, options
        self._key = next(_numbers)
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._version: Version | None = None
        self._whole: memoryview | None = None
        self._pending: dict[int, Future[Blocks]] = {}

    @property
    def size(self) -> int:
        """Of the whole."""
        assert self._version is not None
        return self._version.size

    def ensure_open(self) -> None:
        """Read the first bytes, which tell size and version; does nothing the second time."""
        with self._opening:
            if self._version is None:
                answer = self._ask((0, self._options.first), None)
                self._note(answer)
                if self._whole is None:
                    self._cache.keep(self._key, cut(answer.pieces, 0, self._options.block))
                self._version = answer.version

    def read(self, start: int, end: int, held: Blocks) -> bytes:
        """A range inside the resource."""
        if self._whole is not None:
            return bytes(self._whole[start:end])
        step = self._options.block
        numbers = range(start // step, (end - 1) // step + 1)
        lacking = [number for number in numbers if number not in held]
        found = self._load(lacking, ahead=True) if lacking else {}
        data = b"".join([held.get(number) or found[number] for number in numbers])
        offset = numbers[0] * step
        return data if offset == start and len(data) == end - start else data[start - offset : end - offset]

    def hold(self, spans: Sequence[Span]) -> Blocks:
        """Blocks that cover some ranges."""
        if self._whole is not None:
            return {}
        step = self._options.block
        wanted = {number for start, end in spans for number in range(start // step, (end - 1) // step + 1)}
        return self._load(sorted(wanted))

    def _load(self, numbers: Sequence[int], *, ahead: bool = False) -> Blocks:
        """Blocks by number, out of the cache, from requests that are under way, and by new ones."""
        waiting: list[Future[Blocks]] = []
        with self._lock:
            found = self._cache.find(self._key, numbers)
            absent = []
            for number in numbers:
                if number in found:
                    continue
                if number in self._pending:
                    waiting.append(self._pending[number])
                else:
                    absent.append(number)
            if ahead and absent:
                blocks = -(-self.size // self._options.block)
                until = min(blocks, absent[0] + self._options.ahead // self._options.block)
                absent = sorted({*absent, *range(absent[0], until)} - self._pending.keys())
            for run in runs_of(absent, self._options):
                try:
                    future = self._executor.submit(self._fetch, run)
                except RuntimeError:
                    raise FetchError(f"{self.origin}: reading was stopped; run the same command again") from None
                waiting.append(future)
                self._pending.update(dict.fromkeys(range(*run), future))
        wanted = set(numbers)
        failure = ""
        for future in dict.fromkeys(waiting):
            # All are waited for, whatever happens, so that nothing of a failed read is under way when it is repeated.
            try:
                found.update((number, block) for number, block in future.result().items() if number in wanted)
            except FetchError as error:
                failure = failure or str(error)
            except CancelledError:
                failure = failure or f"{self.origin}: reading was stopped; run the same command again"
        if failure:
            # Several threads may wait for the same request; each raises an error of its own.
            raise FetchError(failure) from None
        return found

    def _fetch(self, run: Span) -> Blocks:
        step = self._options.block
        try:
            start, end = run[0] * step, min(run[1] * step, self.size)
            answer = self._ask((start, end), self._version)
            self._note(answer)
            pieces = (answer.body[start:end],) if answer.whole else answer.pieces
            blocks = cut(pieces, run[0], step)
            self._cache.keep(self._key, blocks)
            return blocks
        except ExchangedError:
            self.stale = True  # who opens the file anew shall begin anew
            raise
        finally:
            with self._lock:
                for number in range(*run):
                    self._pending.pop(number, None)

    def _note(self, answer: Answer) -> None:
        if answer.whole:
            self._whole = memoryview(answer.body)


class LocalContents:
    """A file on disk; nothing is kept of it."""

    def __init__(self, path: Path) -> None:
        self.origin = str(path)
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise FetchError(f"{path}: {error.strerror or error}") from error
        self.size = os.fstat(self._file.fileno()).st_size

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def read(self, start: int, end: int, held: Blocks) -> bytes:  # noqa: ARG002 - the disk is near enough
        """A range inside the file."""
        pieces = []
        while start < end:
            try:
                piece = os.pread(self._file.fileno(), end - start, start)
            except OSError as error:
                raise FetchError(f"{self.origin}: {error.strerror or error}") from error
            if not piece:
                raise FetchError(f"{self.origin}: was cut while it was read")
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def hold(self, spans: Sequence[Span]) -> Blocks:  # noqa: ARG002
        """Nothing: the system caches."""
        return {}


def runs_of(numbers: Sequence[int], options: BlockOptions) -> list[Span]:
    """Half-open runs of blocks to ask for: small gaps are read along, long runs are split to come at the same time."""
    gap = options.gap // options.block
    runs: list[Span] = []
    for number in numbers:
        if runs and number - runs[-1][1] <= gap:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    most = max(1, options.request // options.block)
    pieces = []
    for first, end in runs:
        # Equal pieces, rather than a long one and a crumb.
        count = -(-(end - first) // most)
        edges = [first + (end - first) * piece // count for piece in range(count + 1)]
        pieces += list(itertools.pairwise(edges))
    return pieces


def cut(pieces: Iterable[bytes], first: int, step: int) -> Blocks:
    """Blocks of `step` bytes, numbered from `first`, out of pieces of any length; copied only across their seams."""
    blocks: Blocks = {}
    begun: list[memoryview] = []
    lacking = step
    for piece in pieces:
        view = memoryview(piece)
        if begun:
            begun.append(view[:lacking])
            lacking -= len(begun[-1])
            if lacking:
                continue
            blocks[first + len(blocks)] = memoryview(b"".join(begun))
            view = view[len(begun[-1]) :]
        whole = len(view) // step * step
        for place in range(0, whole, step):
            blocks[first + len(blocks)] = view[place : place + step]
        begun = [view[whole:]] if whole < len(view) else []
        lacking = step - (len(view) - whole)
    if begun:
        blocks[first + len(blocks)] = memoryview(b"".join(begun))
    return blocks
