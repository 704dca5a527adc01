"""Bytes at a distance: ranges over HTTP(S), asked for until they are whole, or an error that says what is lacking.

A body counts only if status, `Content-Range`, length and `ETag` agree with what was asked for: a file that is cut,
answered in part or exchanged while it is read is a failure, never data. Signatures are made just before a request and
again when one is refused; neither they nor any query appear in a message.
"""

from __future__ import annotations

import io
import logging
import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

import urllib3

from urbandelta.errors import FetchError
from urbandelta.sources.item_facts import without_query

log = logging.getLogger(__name__)

_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_REFUSED = frozenset((401, 403))
_SECRET_HEADERS = ("Authorization", "Cookie", "Ocp-Apim-Subscription-Key")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_EXPIRY_MARGIN = timedelta(seconds=30)


@dataclass(frozen=True)
class SignedUrl:
    """An address that may be read, headers to send with it, and when that ends."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    expires: datetime | None = None


Signer: TypeAlias = Callable[[str], SignedUrl]
"""Called just before reading, and again after a refusal (401, 403) or when `expires` has passed."""


@dataclass(frozen=True, kw_only=True)
class TransportOptions:
    """How patient a transport is and how much it keeps.

    `tries` counts requests for one range. Pauses between them double from `pause_seconds` to `longest_pause`, and are
    as long as `Retry-After` asks up to `longest_wait`.
    """

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    tries: int = 6
    pause_seconds: float = 0.5
    longest_pause: float = 30.0
    longest_wait: float = 300.0
    connections: int = 16
    block_bytes: int = 128 * 1024
    cache_bytes: int = 32 * 2**20
    merge_bytes: int = 256 * 1024
    largest_document: int = 256 * 2**20


class Transport:
    """Reads resources by address; safe to share between threads."""

    def __init__(self, options: TransportOptions | None = None, *, sign: Signer | None = None) -> None:
        self.options = options or TransportOptions()
        self._sign = sign
        self._signed: dict[str, SignedUrl] = {}
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(
            maxsize=self.options.connections,
            retries=urllib3.Retry(
                connect=0, read=0, other=0, status=0, redirect=5, remove_headers_on_redirect=_SECRET_HEADERS
            ),
            timeout=urllib3.Timeout(connect=self.options.connect_seconds, read=self.options.read_seconds),
            headers={"User-Agent": "urbandelta", "Accept-Encoding": "identity"},
        )

    def open(self, href: str) -> RangeFile:
        """A file to read at any place; its size is known. Local paths and file:// are read from disk.

        Raises
        ------
        FetchError
            If it cannot be reached.
        """
        path = _local(href)
        return RangeFile(_LocalRanges(path) if path is not None else _HttpRanges(self, href), self.options)

    def get(self, href: str) -> bytes:
        """A whole resource, such as a JSON document; raises `FetchError`."""
        path = _local(href)
        if path is not None:
            try:
                return path.read_bytes()
            except OSError as error:
                raise FetchError(f"{path}: {error.strerror or error}") from error
        return self.request(href).body

    def request(self, href: str, span: tuple[int, int] | None = None, *, etag: str = "") -> Answer:
        """One resource or the bytes `span` (half-open) of it, whole; raises `FetchError` after all tries."""
        where = without_query(href)
        cause, pause = "", self.options.pause_seconds
        for attempt in range(1, self.options.tries + 1):
            signed = self._signed_for(href)
            try:
                return self._once(where, signed, span, etag)
            except _AgainError as problem:
                cause, wait = problem.cause, problem.wait
                if problem.refused:
                    if self._sign is None or attempt > 2:
                        break
                    self._forget(href, signed)
                    wait = 0.0
            if attempt < self.options.tries:
                seconds = pause * (0.5 + random.random() / 2) if wait is None else min(wait, self.options.longest_wait)
                log.info("%s: %s; try %d in %.1f s", where, cause, attempt + 1, seconds)
                time.sleep(seconds)
                pause = min(2 * pause, self.options.longest_pause)
        raise FetchError(f"{where}: {cause}, {attempt} times; run the same command again later")

    def _once(self, where: str, signed: SignedUrl, span: tuple[int, int] | None, etag: str) -> Answer:
        headers = dict(signed.headers)
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        try:
            response = self._pool.request("GET", signed.url, headers=headers, preload_content=False)
            try:
                return _answer(where, response, span, etag, self.options.largest_document)
            except BaseException:
                response.close()  # what is left of the body must not be taken for the next answer
                raise
        except urllib3.exceptions.LocationParseError:
            raise FetchError(f"{where}: is no address") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # The library's own words name the whole address, signature and all.
            raise _AgainError(_plain(error)) from None

    def _signed_for(self, href: str) -> SignedUrl:
        if self._sign is None:
            return SignedUrl(href)
        with self._lock:
            known = self._signed.get(href)
        if known is not None and (known.expires is None or known.expires > datetime.now(UTC) + _EXPIRY_MARGIN):
            return known
        fresh = self._sign(href)
        with self._lock:
            self._signed[href] = fresh
        return fresh

    def _forget(self, href: str, refused: SignedUrl) -> None:
        with self._lock:
            if self._signed.get(href) == refused:
                del self._signed[href]


@dataclass(frozen=True, eq=False)
class Answer:
    """Bytes that were asked for, the size of the whole resource, and its version."""

    body: bytes
    size: int
    etag: str


class RangeFile(io.RawIOBase):
    """A seekable file over ranges, with a bounded cache of blocks."""

    def __init__(self, ranges: _HttpRanges | _LocalRanges, options: TransportOptions) -> None:
        super().__init__()
        self._ranges = ranges
        self._options = options
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._position = 0
        self._keep(0, ranges.first(options.block_bytes))
        self.size = ranges.size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; raises `FetchError` where they cannot be had."""
        end = self.size if size < 0 else min(self.size, self._position + size)
        data = self.read_range(self._position, end)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All that is left."""
        return self.read(-1)

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes of a half-open range."""
        if start >= end:
            return b""
        step = self._options.block_bytes
        first, last = start // step, (end - 1) // step
        blocks = self._load(range(first, last + 1))
        data = b"".join(blocks[number] for number in range(first, last + 1))
        return data[start - first * step : end - first * step]

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch half-open ranges into the cache, neighbouring ones together and several at the same time."""
        step = self._options.block_bytes
        wanted = {
            number for start, end in ranges if start < end for number in range(start // step, (end - 1) // step + 1)
        }
        self._load(sorted(wanted))

    def _load(self, numbers: Sequence[int]) -> dict[int, bytes]:
        with self._lock:
            found = {number: self._blocks[number] for number in numbers if number in self._blocks}
        runs = _runs([number for number in numbers if number not in found], self._options)
        if len(runs) == 1:
            parts = [self._fetch(runs[0])]
        elif runs:
            with ThreadPoolExecutor(min(len(runs), 4)) as threads:
                parts = list(threads.map(self._fetch, runs))
        else:
            parts = []
        for part in parts:
            for number, block in part.items():
                found[number] = block
                self._keep(number, block)
        return found

    def _fetch(self, run: tuple[int, int]) -> dict[int, bytes]:
        step = self._options.block_bytes
        data = self._ranges.read(run[0] * step, min(run[1] * step, self.size))
        return {number: data[(number - run[0]) * step : (number - run[0] + 1) * step] for number in range(*run)}

    def _keep(self, number: int, block: bytes) -> None:
        with self._lock:
            self._blocks[number] = block
            self._blocks.move_to_end(number)
            while len(self._blocks) * self._options.block_bytes > self._options.cache_bytes and len(self._blocks) > 1:
                self._blocks.popitem(last=False)


class _HttpRanges:
    def __init__(self, transport: Transport, href: str) -> None:
        self._transport, self._href = transport, href
        self.size, self._etag = 0, ""

    def first(self, size: int) -> bytes:
        answer = self._transport.request(self._href, (0, size))
        self.size, self._etag = answer.size, answer.etag
        return answer.body

    def read(self, start: int, end: int) -> bytes:
        answer = self._transport.request(self._href, (start, end), etag=self._etag)
        if answer.size != self.size:
            raise FetchError(f"{without_query(self._href)}: changed while it was read; run the same command again")
        return answer.body


class _LocalRanges:
    def __init__(self, path: Path) -> None:
        try:
            self._file: BinaryIO = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise FetchError(f"{path}: {error.strerror or error}") from error
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def first(self, size: int) -> bytes:
        return self.read(0, min(size, self.size))

    def read(self, start: int, end: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)


class _AgainError(Exception):
    """A request that may succeed when it is made again."""

    def __init__(self, cause: str, *, wait: float | None = None, refused: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.wait, self.refused = cause, wait, refused


def _answer(
    where: str, response: urllib3.BaseHTTPResponse, span: tuple[int, int] | None, etag: str, largest: int
) -> Answer:
    status = response.status
    if status in _REFUSED:
        raise _AgainError(f"refused ({status})", refused=True)
    if status in _RETRIED:
        raise _AgainError(f"answered {status}", wait=_retry_after(response.headers.get("Retry-After")))
    if status == 416 and span is not None and span[0] == 0:
        raise FetchError(f"{where}: is empty")
    if status not in (200, 206):
        raise FetchError(f"{where}: answered {status}; is the address right?")
    version = response.headers.get("ETag", "")
    if etag and version and version != etag:
        raise FetchError(f"{where}: changed while it was read; run the same command again")
    declared = response.headers.get("Content-Length")
    if declared is not None and int(declared) > largest:
        raise FetchError(f"{where}: answered {int(declared)} bytes at once, more than {largest}; it gives no ranges")
    body = response.read(largest + 1)
    if declared is not None and len(body) != int(declared):
        raise _AgainError(f"ends after {len(body)} of {declared} bytes")
    if len(body) > largest:
        raise FetchError(f"{where}: is larger than {largest} bytes")
    if span is None:
        return Answer(body, len(body), version)
    if status == 200:  # a server that gives no ranges
        return Answer(body[span[0] : span[1]], len(body), version)
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        raise _AgainError("answered a part without saying which")
    start, last, size = (int(text) for text in match.groups())
    if start != span[0] or last + 1 != min(span[1], size):
        raise _AgainError(f"answered bytes {start}-{last} of {size} where {span[0]}-{span[1] - 1} were asked for")
    if len(body) != last + 1 - start:
        raise _AgainError(f"gave {len(body)} of {last + 1 - start} bytes")
    return Answer(body, size, version)


def _retry_after(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _runs(numbers: Sequence[int], options: TransportOptions) -> list[tuple[int, int]]:
    """Half-open runs of blocks; gaps smaller than `merge_bytes` are read as well."""
    runs: list[tuple[int, int]] = []
    gap = options.merge_bytes // options.block_bytes
    for number in numbers:
        if runs and number - runs[-1][1] <= gap:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def _local(href: str) -> Path | None:
    parts = urlsplit(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in href else Path(href)


def _plain(error: Exception) -> str:
    """What went wrong, without the address that the library's message holds."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        return _plain(error.reason)
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "does not answer in time"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "stops sending"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "cannot be reached"
    if isinstance(error, urllib3.exceptions.IncompleteRead):
        return "ends before its end"
    if isinstance(error, urllib3.exceptions.SSLError):
        return "its certificate is not accepted"
    return f"the connection breaks ({type(error).__name__})"
