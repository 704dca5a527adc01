"""Reading blocks of pixels chunk by chunk: fetch the bytes of many chunks at once, decode each into its place.

Zarr's own reading takes each chunk through several coroutines, threads and copies: at 128 x 128 px that costs more than
the decoding. The bytes and their meaning are the same; `docs/cube.md` describes them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc, Zstd
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from urbandelta.types import Array

Place = Callable[[int, slice, slice, Array], None]
"""Receives a time (counted from the first one read), rows and columns of the block, and raw values (y, x, ...)."""

# Bounds the compressed bytes in memory, and is enough to keep a disk or an object store busy.
_AT_ONCE = 32


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
        self._trailing = (0,) * (array.ndim - 3)
        self._rows, self._columns = array.chunks[1:3]
        order = next((codec.order for codec in array.filters if isinstance(codec, TransposeCodec)), range(array.ndim))
        self._stored_shape = tuple(array.chunks[axis] for axis in order)
        self._axes = tuple(int(axis) for axis in np.argsort(order))
        self._dtype = np.dtype(array.dtype).newbyteorder("<")
        # Zarr's codecs wrap those of numcodecs, and the encoded bytes tell all that decoding needs.
        (compressor,) = (codec for codec in array.compressors if isinstance(codec, BloscCodec | ZstdCodec))
        self._codec = Blosc() if isinstance(compressor, BloscCodec) else Zstd()

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
        stored = np.empty(self._stored_shape, dtype=self._dtype)
        pixels = stored.transpose(self._axes)[0]
        parts = self._parts(times, y, x)
        while group := list(itertools.islice(parts, _AT_ONCE)):
            for part, encoded in zip(group, sync(_fetch(self._array.store, group)), strict=True):
                if encoded is None:  # Zarr does not write chunks that hold nothing but the fill value
                    stored[...] = self._array.fill_value
                else:
                    self._codec.decode(encoded.as_numpy_array(), out=stored)
                place(part.time, *part.put, pixels[part.taken])

    def _parts(self, times: Iterable[int], y: slice, x: slice) -> Iterator[_Part]:
        for n, time in enumerate(times):
            for row, rows, put_y in _cut(y, self._rows):
                for column, columns, put_x in _cut(x, self._columns):
                    key = self._array.metadata.encode_chunk_key((int(time), row, column, *self._trailing))
                    yield _Part(f"{self._array.path}/{key}", n, (rows, columns), (put_y, put_x))


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
