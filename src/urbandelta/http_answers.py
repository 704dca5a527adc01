"""What an HTTP answer must be before its bytes count as data.

Status, `Content-Range`, lengths and version have to agree with what was asked for and with what was read of the same
file before. A body is read against a deadline and a limit, so neither a server that drips nor one that never ends holds
or fills this process. No message quotes an address, a header or a body: any of them may hold a secret.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import urllib3

from urbandelta.errors import FetchError

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_REFUSED = frozenset((401, 403))
_GONE = frozenset((404, 410))
_CHANGED = frozenset((412, 416))
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from another: its size, and what the server says of it."""

    size: int
    etag: str = ""
    modified: str = ""

    def same(self, other: Version) -> bool:
        """Whether both can be the same content; the date counts only where an entity tag is lacking."""
        if self.size != other.size:
            return False
        if self.etag and other.etag:
            return self.etag == other.etag
        return not (self.modified and other.modified) or self.modified == other.modified


@dataclass(frozen=True, eq=False)
class Answer:
    """Bytes that were asked for, in the pieces that they came in; `whole` if they are all of the file."""

    pieces: tuple[bytes, ...]
    version: Version
    whole: bool

    @property
    def body(self) -> bytes:
        """All bytes."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: of which resource (for messages), which half-open span (None: all), and of which version."""

    where: str
    span: tuple[int, int] | None = None
    version: Version | None = None
    signed: bool = False
    largest: int = 256 * 2**20


class ExchangedError(FetchError):
    """The file is not the one any more that reading began with."""


class AskAgainError(Exception):
    """An answer that may be better next time; `wait` is what the server asked for, `refused` a matter of signature."""

    def __init__(self, cause: str, *, wait: float | None = None, refused: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.wait, self.refused = cause, wait, refused


def read_answer(
    response: urllib3.BaseHTTPResponse,
    asked: Asked,
    *,
    seconds_left: Callable[[], float],
    now: Callable[[], datetime],
) -> Answer:
    """Bytes of an answer that is right in all that can be checked.

    Raises
    ------
    FetchError
        If asking again would not help.
    AskAgainError
        If it may.
    """
    _check_status(response, asked, now)
    length = _content_length(response)
    part = response.status == 206 and asked.span is not None
    start, last, size = _content_range(response, asked) if part and asked.span is not None else (0, -1, 0)
    expected = last + 1 - start if part else length
    if expected is not None and expected > asked.largest:
        lack = " and gives no ranges" if asked.span is not None else ""
        raise FetchError(f"{asked.where}: sends {expected} bytes at once{lack}; more than {asked.largest} are not read")
    if part and length is not None and length != expected:
        raise AskAgainError(f"announced {length} bytes for a range of {expected}")
    pieces = _read_body(response, expected, asked, seconds_left)
    pieces = _decoded(pieces, response.headers.get("Content-Encoding", ""), asked)
    version = Version(size if part else sum(map(len, pieces)), response.headers.get("ETag", ""), _modified(response))
    if asked.version is not None and not asked.version.same(version):
        raise _changed(asked)
    if part or asked.span is None:
        return Answer(pieces, version, whole=not part or (start == 0 and last + 1 == size))
    return Answer(pieces, version, whole=True)


def _check_status(response: urllib3.BaseHTTPResponse, asked: Asked, now: Callable[[], datetime]) -> None:
    status = response.status
    # S3 answers 400 to a token that has run out.
    if status in _REFUSED or (status == 400 and asked.signed):
        raise AskAgainError(f"refused ({status})", refused=True)
    if status in _AGAIN:
        raise AskAgainError(f"answered {status}", wait=retry_after(response.headers.get("Retry-After"), now()))
    if status in _GONE:
        raise FetchError(f"{asked.where}: is not there ({status}); is the address right?")
    if status in _CHANGED and asked.span is not None:
        if asked.version is not None:
            raise _changed(asked)
        raise FetchError(f"{asked.where}: is empty, or gives no ranges ({status})")
    if status not in (200, 206) or (status == 206 and asked.span is None):
        raise FetchError(f"{asked.where}: answered {status}; is the address right?")


def _changed(asked: Asked) -> ExchangedError:
    return ExchangedError(f"{asked.where}: was exchanged while it was read; run the same command again")


def _content_range(response: urllib3.BaseHTTPResponse, asked: Asked) -> tuple[int, int, int]:
    assert asked.span is not None
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        raise AskAgainError("sent a part without saying which part of how many bytes")
    start, last, size = (int(text) for text in match.groups())
    if asked.version is not None and size != asked.version.size:
        raise _changed(asked)
    if start != asked.span[0] or last + 1 != min(asked.span[1], size):
        wanted = f"{asked.span[0]}-{asked.span[1] - 1}"
        raise AskAgainError(f"sent bytes {start}-{last} of {size} where {wanted} were asked for")
    return start, last, size


def _content_length(response: urllib3.BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _modified(response: urllib3.BaseHTTPResponse) -> str:
    return str(response.headers.get("Last-Modified", ""))


def _read_body(
    response: urllib3.BaseHTTPResponse, expected: int | None, asked: Asked, seconds_left: Callable[[], float]
) -> tuple[bytes, ...]:
    limit = asked.largest if expected is None else expected
    pieces, length = [], 0
    # `read1` comes back with each arrival, so that the deadline is looked at however slowly they come.
    while piece := response.read1(_PIECE_BYTES, decode_content=False):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            raise FetchError(f"{asked.where}: sends more than {limit} bytes; that is not read")
        if seconds_left() < 0:
            raise AskAgainError("sent too slowly")
    if expected is not None and length != expected:
        raise AskAgainError(f"ended after {length} of {expected} bytes")
    return tuple(pieces)


def _decoded(pieces: tuple[bytes, ...], encoding: str, asked: Asked) -> tuple[bytes, ...]:
    if encoding.strip().lower() in ("", "identity"):
        return pieces
    if asked.span is not None:
        raise FetchError(f"{asked.where}: is sent compressed, so ranges of it mean nothing; use another server")
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise FetchError(f"{asked.where}: is sent in an encoding that was not asked for; use another server")
    try:
        decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)
        plain = decoder.decompress(b"".join(pieces), asked.largest + 1)
    except zlib.error:
        raise AskAgainError("sent a damaged body") from None
    if len(plain) > asked.largest:
        raise FetchError(f"{asked.where}: unpacks to more than {asked.largest} bytes; that is not read")
    if not decoder.eof:
        raise AskAgainError("sent a body that is cut")
    return (plain,)


def retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` asks for, in seconds or as a date; None if it says nothing that is understood."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds())


def plain_cause(error: Exception) -> str:
    """What went wrong with a connection, without the address that the library's own words hold."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its host is not known"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "cannot be reached"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "did not answer in time"
    if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
        return "stopped sending"
    if isinstance(error, urllib3.exceptions.IncompleteRead):
        return "ended before its end"
    return f"broke the connection ({type(error).__name__})"
