"""Pixels chunk by chunk: a block is read from many chunks at once, one time is appended a row of chunks a thread.

Zarr's own ways take each chunk through several coroutines, threads and copies: at 128 x 128 px that costs more than
the codecs. The bytes and their meaning are the same; `docs/cube.md` describes them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import zarr
from numcodecs import Blosc, Zstd
from zarr.abc.store import Store
from zarr.api.asynchronous import open_array
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync

from urbandelta.types import Array

Place = Callable[[int, slice, slice, Array], None]
"""Receives a time (counted from the first one read), rows and columns of the block, and raw values (y, x, ...)."""

# Bounds the compressed bytes in memory, and is enough to keep a disk or an object store busy.
_AT_ONCE = 32
_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}

_Encoded: TypeAlias = tuple[str, bytes]
"""Key of a chunk, and its bytes."""


class _ChunkFormat:
    """How the chunks of an array are laid out and encoded: of those that hold one time and everything behind x."""

    def __init__(self, metadata: ArrayV3Metadata) -> None:
        ndim = len(metadata.chunks)
        self._metadata = metadata
        self.rows, self.columns = metadata.chunks[1:3]
        self.order = next((codec.order for codec in metadata.codecs if isinstance(codec, TransposeCodec)), range(ndim))
        self.stored_shape = tuple(metadata.chunks[axis] for axis in self.order)
        self.dtype = np.dtype(metadata.data_type.to_native_dtype()).newbyteorder("<")
        # Zarr's codecs wrap those of numcodecs.
        (compressor,) = (codec for codec in metadata.codecs if isinstance(codec, BloscCodec | ZstdCodec))
        self.codec: Blosc | Zstd = _numcodec(compressor)

    def key(self, time: int, row: int, column: int) -> str:
        """Key of a chunk within the array."""
        behind = (0,) * (len(self.order) - 3)
        return self._metadata.encode_chunk_key((time, row, column, *behind))


def _numcodec(codec: BloscCodec | ZstdCodec) -> Blosc | Zstd:
    if isinstance(codec, ZstdCodec):
        return Zstd(level=codec.level, checksum=codec.checksum)
    return Blosc(
        cname=codec.cname.value,
        clevel=codec.clevel,
        shuffle=_SHUFFLES[codec.shuffle.value],
        blocksize=codec.blocksize,
        typesize=codec.typesize,
    )


@dataclass(frozen=True)
class _Part:
    """What a block takes of one chunk: the chunk's key, the part `taken`, and where in the block it is `put`."""

    key: str
    time: int
    taken: tuple[slice, slice]
    put: tuple[slice, slice]


class PixelChunks:
    """The chunks of one array (time, y, x, ...) of which each holds one time and everything behind x."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        assert isinstance(array.metadata, ArrayV3Metadata)
        self._format = _ChunkFormat(array.metadata)
        self._axes = tuple(int(axis) for axis in np.argsort(self._format.order))

    def read(self, times: Iterable[int], y: slice, x: slice, place: Place) -> None:
        """Hand over the values of a block, each chunk's part to one call of `place`.

        Parameters
        ----------
        times : iterable of int
            Stored positions, in any order.
        y, x : slice
            Pixels, with start and stop.
        place : callable
            The array that it is given is overwritten after the call.
        """
        stored = np.empty(self._format.stored_shape, dtype=self._format.dtype)
        pixels = stored.transpose(self._axes)[0]
        parts = self._parts(times, y, x)
        while group := list(itertools.islice(parts, _AT_ONCE)):
            for part, encoded in zip(group, sync(_fetch(self._array.store, group)), strict=True):
                if encoded is None:  # Zarr does not write chunks that hold nothing but the fill value
                    stored[...] = self._array.fill_value
                else:
                    self._format.codec.decode(encoded.as_numpy_array(), out=stored)
                place(part.time, *part.put, pixels[part.taken])

    def _parts(self, times: Iterable[int], y: slice, x: slice) -> Iterator[_Part]:
        for n, time in enumerate(times):
            for row, rows, put_y in _cut(y, self._format.rows):
                for column, columns, put_x in _cut(x, self._format.columns):
                    key = self._format.key(int(time), row, column)
                    yield _Part(f"{self._array.path}/{key}", n, (rows, columns), (put_y, put_x))


async def append_pixels(store: Store, path: str, pixels: Array) -> None:
    """Add pixels (y, x, ...) at the end of an array (time, y, x, ...) whose chunks are one time deep and filled with 0.

    As Zarr does, chunks that hold nothing but 0 are not written.
    """
    array = await open_array(store=store, path=path, mode="r+", zarr_format=3)
    assert isinstance(array.metadata, ArrayV3Metadata)
    chunks = _ChunkFormat(array.metadata)
    time = array.shape[0]
    await array.resize((time + 1, *array.shape[1:]))
    rows = range(-(-pixels.shape[0] // chunks.rows))
    prototype = default_buffer_prototype()

    async def append_row(row: int) -> None:
        encoded = await asyncio.to_thread(_encode_row, chunks, pixels, time, row)
        await asyncio.gather(*(store.set(f"{path}/{key}", prototype.buffer.from_bytes(raw)) for key, raw in encoded))

    await asyncio.gather(*(append_row(row) for row in rows))


def _encode_row(chunks: _ChunkFormat, pixels: Array, time: int, row: int) -> list[_Encoded]:
    encoded = []
    band = pixels[row * chunks.rows : (row + 1) * chunks.rows]
    for column in range(-(-pixels.shape[1] // chunks.columns)):
        part = band[:, column * chunks.columns : (column + 1) * chunks.columns]
        stored = part[np.newaxis].transpose(chunks.order)
        if stored.shape == chunks.stored_shape:
            stored = np.ascontiguousarray(stored, dtype=chunks.dtype)
        else:  # at the edges
            whole = np.zeros(chunks.stored_shape, dtype=chunks.dtype)
            whole[tuple(map(slice, stored.shape))] = stored
            stored = whole
        # As bits, since the zero that is filled in is the positive one; the first byte saves most of the search.
        bits = stored.view(np.uint8)
        if bits.flat[0] or bits.any():
            encoded.append((chunks.key(time, row, column), bytes(chunks.codec.encode(stored))))
    return encoded


async def _fetch(store: Store, parts: list[_Part]) -> list[Buffer | None]:
    prototype = default_buffer_prototype()
    return await asyncio.gather(*(store.get(part.key, prototype) for part in parts))


def _cut(part: slice, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Cut pixels into chunks of `size`: number of the chunk, pixels within it, pixels within the part."""
    if part.stop <= part.start:
        return
    for chunk in range(part.start // size, (part.stop - 1) // size + 1):
        low, high = max(part.start, chunk * size), min(part.stop, (chunk + 1) * size)
        yield chunk, slice(low - chunk * size, high - chunk * size), slice(low - part.start, high - part.start)
