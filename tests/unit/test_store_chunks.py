"""Reading pixels chunk by chunk gives what Zarr's own reading gives, bit by bit."""

import numpy as np
import numpy.testing as npt
import pytest
import zarr
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.storage import MemoryStore

from urbandelta.chunks import PixelChunks

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
