"""Laws of TFRecord reading: what was written is read, and nothing else ever raises but `SourceError`."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.testing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tfrecord_files import crc32c as slow_crc32c
from tfrecord_files import example, write

from urbandelta.crc32c import crc32c
from urbandelta.errors import SourceError
from urbandelta.tfexample import decode_example, decode_tensor
from urbandelta.tfrecord import Limits, read_records


def outcome(path):
    """Records up to the first error, and that."""
    read = []
    try:
        read.extend(bytes(content) for content in read_records(path, limits=Limits(record_bytes=10_000)))
    except SourceError as error:
        return read, str(error)
    return read, None


contents = st.lists(st.binary(max_size=300), max_size=5)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.uint8, np.int64]), hnp.array_shapes(min_dims=0, max_side=4)
)


@given(st.binary(max_size=100))
def test_the_checksum_is_that_of_its_definition(content):
    assert crc32c(content) == slow_crc32c(content)


@given(contents, st.sampled_from(["plain", "gzip", "zlib"]))
@settings(max_examples=60)
def test_records_are_read_as_written(tmp_path_factory, written, compression):
    path = write(tmp_path_factory.getbasetemp() / "written", written, compression)
    assert [bytes(content) for content in read_records(path)] == written


@given(st.dictionaries(st.text(max_size=5), arrays, max_size=4))
def test_examples_are_read_as_written(written):
    found = decode_example(example(written))
    assert found.keys() == written.keys()
    for name, array in written.items():
        npt.assert_array_equal(
            found[name].view("u1") if array.ndim else found[name], array.view("u1") if array.ndim else array
        )


@given(contents.filter(bool), st.sampled_from(["plain", "gzip", "zlib"]), st.data())
@settings(max_examples=100)
def test_a_damaged_file_gives_its_first_records_or_an_error(tmp_path_factory, written, compression, data):
    path = write(tmp_path_factory.getbasetemp() / "damaged", written, compression)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start, len(whole)))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:])
    read, error = outcome(path)
    assert error is None or "damaged" in error
    # A checksum of 32 bits lets no random damage pass, but damage may repeat or drop whole records of a plain file.
    assert all(content in written for content in read)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_an_example_or_an_error(content):
    for decode in (decode_example, decode_tensor):
        with suppress(SourceError):
            decode(content)


@given(st.dictionaries(st.text(max_size=3), arrays, min_size=1, max_size=2), st.data())
@settings(max_examples=200)
def test_a_damaged_example_is_an_example_or_an_error(written, data):
    content = bytearray(example(written))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with suppress(SourceError):
        for array in decode_example(bytes(content)).values():
            assert array.nbytes <= len(content)


@given(st.binary(max_size=120))
@settings(max_examples=200)
def test_any_file_is_records_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    _, error = outcome(path)
    assert error is None or error.startswith(str(path))
