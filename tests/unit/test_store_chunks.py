"""Reading and appending pixels chunk by chunk give what Zarr's own ways give, bit by bit."""

import json

import numpy as np
import numpy.testing as npt
import pytest
import zarr
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from urbandelta.chunks import PixelChunks, append_pixels

SHAPE = (5, 40, 25, 3)
BANDS_APART = [TransposeCodec(order=(0, 3, 1, 2))]


def array_of(dtype, *, bands=True, filters=(), compressor=None, fill=0):
    """Stored values of which one chunk holds nothing but the fill value and is therefore not written."""
    shape, chunks = (SHAPE, (1, 16, 10, 3)) if bands else (SHAPE[:3], (1, 16, 10))
    array = zarr.create_array(
        MemoryStore(),
        name="group/values",
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        filters=filters,
        compressors=[compressor or BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
        fill_value=fill,
    )
    values = (np.random.default_rng(1).random(shape) * 200).astype(dtype)
    values[2, :16, :10] = fill
    array[...] = values
    return array


def read(array, times, y, x):
    out = np.empty((len(times), y.stop - y.start, x.stop - x.start, *array.shape[3:]), array.dtype)

    def place(n, rows, columns, raw):
        out[n, rows, columns] = raw

    PixelChunks(array).read(times, y, x, place)
    return out


@pytest.mark.parametrize(
    "block",
    [
        (slice(0, 40), slice(0, 25)),
        (slice(16, 32), slice(10, 20)),  # one whole chunk
        (slice(15, 33), slice(9, 21)),  # one pixel more on each side
        (slice(39, 40), slice(24, 25)),
        (slice(7, 7), slice(0, 25)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint8", "int16"])
def test_blocks_equal_what_zarr_reads(dtype, block):
    array = array_of(dtype, filters=BANDS_APART)
    npt.assert_array_equal(read(array, [0, 1, 2, 3, 4], *block), array[(slice(None), *block)])


@pytest.mark.parametrize("compressor", [ZstdCodec(level=3), BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")])
@pytest.mark.parametrize("bands", [True, False])
def test_other_codecs_and_no_bands(compressor, bands):
    array = array_of("uint8", bands=bands, compressor=compressor, fill=7)
    block = slice(3, 30), slice(2, 23)
    assert read(array, [2], *block)[0, 0, 0].max() == 7
    npt.assert_array_equal(read(array, [2, 4, 0], *block), array[(slice(None), *block)][[2, 4, 0]])


def test_big_endian_values_are_decoded():
    array = array_of(">u2", filters=BANDS_APART)
    npt.assert_array_equal(read(array, [3], slice(0, 40), slice(0, 25)), array[3:4])


def stored(array):
    """All keys of a store and their bytes, metadata apart from its layout as text."""
    items = {key: array.store._store_dict[key].to_bytes() for key in array.store._store_dict}
    return {key: json.loads(value) if key.endswith("json") else value for key, value in items.items()}


def twins(dtype, *, bands, filters, compressor):
    """Two arrays alike, and one more time for each: with a chunk of zeros, one of negative zeros, and edges."""
    arrays = [array_of(dtype, bands=bands, filters=filters, compressor=compressor) for _ in range(2)]
    pixels = (np.random.default_rng(2).random(arrays[0].shape[1:]) * 200).astype(dtype)
    pixels[:16, :10] = 0
    pixels[16:32, :10] = np.array(-0.0).astype(dtype)
    pixels[32:, 20:] = 0
    return *arrays, pixels


@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint8", "int16", "float64"])
@pytest.mark.parametrize(
    ("bands", "filters", "compressor"),
    [
        (True, BANDS_APART, BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")),
        (True, (), BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", blocksize=256)),
        (True, BANDS_APART, BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle")),
        (False, (), ZstdCodec(level=3)),
        (False, (), ZstdCodec(level=1, checksum=True)),
    ],
)
def test_appended_bytes_equal_what_zarr_writes(dtype, bands, filters, compressor):
    ours, theirs, pixels = twins(dtype, bands=bands, filters=filters, compressor=compressor)
    sync(append_pixels(ours.store, ours.path, pixels))
    theirs.with_config({"write_empty_chunks": False}).append(pixels[np.newaxis])
    assert stored(ours) == stored(theirs)
    appended = [key for key in stored(ours) if key.startswith(f"{ours.path}/c/{SHAPE[0]}/")]
    assert len(appended) == 9 - (2 if np.dtype(dtype).kind == "f" else 3)


def test_append_takes_pixels_that_are_not_contiguous():
    ours, theirs, pixels = twins("float32", bands=True, filters=BANDS_APART, compressor=None)
    sync(append_pixels(ours.store, ours.path, pixels[::-1]))
    theirs.append(pixels[np.newaxis, ::-1])
    npt.assert_array_equal(zarr.open_array(ours.store, path=ours.path)[-1], theirs[-1])
