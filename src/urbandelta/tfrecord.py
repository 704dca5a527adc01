"""TFRecord files without TensorFlow: records one after the other, checked, in bounded memory.

A record is its length (8 bytes), the length's checksum, the content, and the content's checksum. Files are plain or
packed as a whole by gzip or zlib. Nothing that a file says is believed before it is checked: a length is first compared
with its checksum and a limit, and memory only grows with bytes that are really there, so neither a wrong length nor a
"bomb" that unpacks to terabytes takes more than the limit.

References
----------
.. [1] https://www.tensorflow.org/tutorials/load_data/tfrecord (the format)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from urbandelta.crc32c import masked_crc32c
from urbandelta.errors import SourceError

Compression: TypeAlias = Literal["plain", "gzip", "zlib"]

_PIECE = 16 * 2**10
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS, _ZLIB_WBITS = 31, 15


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for. The published windows have records of 6 MB, 54 MB with the largest tiles."""

    record_bytes: int = 256 * 2**20
    file_bytes: int = 64 * 2**30
    """Of one file, unpacked."""


class RecordReader:
    """The records of a file, in order; `skip` passes over one, `read` gives its content.

    Between calls it holds no file open and less than 100 kB, so that thousands can stand side by side.

    Raises
    ------
    SourceError
        If the file is damaged, cut short, or asks for more than the limits; the message names file and record.
    """

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        self.path = path
        self.number = 0
        """Records passed so far."""
        self._limits = limits or Limits()
        self._bytes = _Unpacked(path)
        self._passed = 0

    def read(self) -> bytearray | None:
        """Content of the next record, or None at the end of the file."""
        header = self._take(_HEADER.size, "its length", may_end=True)
        if header is None:
            return None
        length, checksum = _HEADER.unpack(header)
        if masked_crc32c(header[:8]) != checksum:
            raise self._damaged("the checksum of its length is wrong")
        self._passed += _HEADER.size + length + _CHECKSUM.size
        if length > self._limits.record_bytes:
            raise self._damaged(f"it claims {length:,} bytes, the limit is {self._limits.record_bytes:,}")
        if self._passed > self._limits.file_bytes:
            raise self._damaged(f"the file unpacks to more than {self._limits.file_bytes:,} bytes, the limit")
        content = self._take(length, "its content")
        stored = self._take(_CHECKSUM.size, "its checksum")
        assert content is not None
        assert stored is not None
        if masked_crc32c(content) != _CHECKSUM.unpack(stored)[0]:
            raise self._damaged("its checksum is wrong")
        self.number += 1
        return content

    def skip(self) -> bool:
        """Pass over a record, checking it all the same; whether there was one."""
        return self.read() is not None

    def _take(self, count: int, what: str, *, may_end: bool = False) -> bytearray | None:
        taken = self._bytes.take(count)
        if may_end and not taken:
            return None
        if len(taken) < count:
            raise self._damaged(f"the file ends within {what}")
        return taken

    def _damaged(self, cause: str) -> SourceError:
        return SourceError(f"{self.path}: record {self.number + 1} is damaged: {cause}; fetch the file again")


def read_records(path: Path, *, limits: Limits | None = None) -> Iterator[bytearray]:
    """Contents of all records of a file, one in memory at a time.

    Raises
    ------
    SourceError
        As `RecordReader`.
    """
    reader = RecordReader(path, limits=limits)
    while (content := reader.read()) is not None:
        yield content


def compression_of(head: bytes) -> Compression:
    """How a file is packed, by its first 12 bytes: plain if they are a length with its checksum."""
    if len(head) == _HEADER.size and masked_crc32c(head[:8]) == _HEADER.unpack(head)[1]:
        return "plain"
    if head[:2] == _GZIP_MAGIC:
        return "gzip"
    if len(head) >= 2 and head[0] & 0x8F == 0x08 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib"
    return "plain"


class _Unpacked:
    """The unpacked bytes of a file. What is unpacked ahead is at most one piece."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._ready = b""
        self._packed = b""
        self._ended = False
        try:
            with path.open("rb") as file:
                self._compression = compression_of(file.read(_HEADER.size))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
        self._unpacker = None if self._compression == "plain" else self._new_unpacker()

    def take(self, count: int) -> bytearray:
        """The next `count` bytes, fewer only at the end."""
        taken = bytearray()
        while len(taken) < count and (self._ready or self._advance()):
            wanted = count - len(taken)
            taken += self._ready[:wanted]
            self._ready = self._ready[wanted:]
        return taken

    def _advance(self) -> bool:
        """Unpack a piece into `_ready`; False at the end."""
        while not self._ready and not self._ended:
            if not self._packed:
                self._packed = self._next_piece()
            if self._unpacker is None:
                self._ready, self._packed, self._ended = self._packed, b"", not self._packed
                continue
            if not self._packed:
                raise SourceError(f"{self._path}: is cut short: its {self._compression} data do not end")
            try:
                self._ready = self._unpacker.decompress(self._packed, _PIECE)
            except zlib.error as error:
                raise SourceError(f"{self._path}: is damaged ({error}); fetch the file again") from error
            self._packed = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                self._packed = self._unpacker.unused_data or self._next_piece()
                self._ended = not self._packed
                if self._packed and self._compression == "zlib":
                    raise SourceError(f"{self._path}: other bytes follow its zlib data; fetch the file again")
                self._unpacker = self._new_unpacker()  # gzip files may be joined end to end
        return bool(self._ready)

    def _next_piece(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                piece = file.read(_PIECE)
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        self._position += len(piece)
        return piece

    def _new_unpacker(self) -> zlib._Decompress:
        return zlib.decompressobj(_GZIP_WBITS if self._compression == "gzip" else _ZLIB_WBITS)
