"""Records and examples: what is read, and what is refused, in bounded memory."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import zlib

import numpy as np
import numpy.testing as npt
import pytest
from tfrecord_files import crc32c as slow_crc32c
from tfrecord_files import example, field, masked, record, tensor, write

from urbandelta.crc32c import crc32c, masked_crc32c
from urbandelta.errors import SourceError
from urbandelta.tfexample import decode_example, decode_tensor
from urbandelta.tfrecord import Limits, RecordReader, compression_of, read_records


def read(path, **limits):
    return [bytes(content) for content in read_records(path, limits=Limits(**limits))]


def test_checksum_is_the_standard_one():
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    for length in range(20):
        content = bytes(range(7, 7 + length))
        assert crc32c(content) == slow_crc32c(content)
    assert masked_crc32c(b"123456789") == struct.unpack("<I", masked(b"123456789"))[0]


@pytest.mark.parametrize("compression", ["plain", "gzip", "zlib"])
def test_records_of_every_compression(tmp_path, compression):
    contents = [b"", b"one", bytes(70_000), b"x" * 16_384]
    path = write(tmp_path / "a.tfrecords", contents, compression)
    assert read(path) == contents
    assert compression_of(path.read_bytes()[:12]) == compression


def test_joined_gzip_files_are_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(record(b"one")[:7]) + gzip.compress(record(b"one")[7:]) + gzip.compress(b""))
    assert read(path) == [b"one"]


def test_an_empty_file_has_no_records(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert read(path) == []


def test_a_plain_file_whose_length_looks_like_gzip_is_plain(tmp_path):
    content = bytes(0x8B1F)
    path = write(tmp_path / "a", [content], "plain")
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert read(path) == [content]


@pytest.mark.parametrize("compression", ["plain", "gzip", "zlib"])
def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path, compression):
    contents = [b"one", b"three bytes more"]
    path = write(tmp_path / "flipped", contents, compression)
    whole = path.read_bytes()
    unnoticed = 0
    for place in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        try:
            found = read(path)
        except SourceError as error:
            message = str(error)
        else:
            # Gzip's time and system, and the bits that fill deflate's last byte, mean nothing to the content.
            assert found == contents
            unnoticed += 1
            continue
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    assert unnoticed <= {"plain": 0, "gzip": 70, "zlib": 8}[compression]


@pytest.mark.parametrize("compression", ["plain", "gzip", "zlib"])
def test_every_cut_but_one_between_records_is_noticed(tmp_path, compression):
    path = write(tmp_path / "cut", [b"one", b"three bytes more"], compression)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        if compression == "plain" and length == len(record(b"one")):
            assert read(path) == [b"one"]
            continue
        with pytest.raises(SourceError, match="cut"):
            read(path)


def test_bytes_behind_packed_data_are_refused(tmp_path):
    path = tmp_path / "a"
    for packed in (gzip.compress(record(b"one")), zlib.compress(record(b"one"))):
        path.write_bytes(packed + b"more")
        with pytest.raises(SourceError, match=r"is damaged|other bytes follow"):
            read(path)


def test_limits_and_missing_files_are_named(tmp_path):
    path = write(tmp_path / "a", [bytes(100), bytes(101)])
    with pytest.raises(SourceError, match="record 2 is damaged: it claims 101 bytes, the limit is 100"):
        read(path, record_bytes=100)
    with pytest.raises(SourceError, match="unpacks to more than 200 bytes"):
        read(path, file_bytes=200)
    with pytest.raises(SourceError, match="cannot be read"):
        RecordReader(tmp_path / "none")
    with pytest.raises(SourceError, match="cannot be read"):
        RecordReader(tmp_path)


def test_a_wrong_checksum_of_the_content_names_the_record(tmp_path):
    good = record(b"one")
    path = tmp_path / "a"
    path.write_bytes(good + good[:-4] + b"nono")
    with pytest.raises(SourceError, match="record 2 is damaged: its checksum is wrong"):
        read(path)


_BOUNDED = """
import resource, sys
from pathlib import Path
from urbandelta.errors import SourceError
from urbandelta.tfexample import decode_example
from urbandelta.tfrecord import read_records, Limits

def read(path):
    try:
        for content in read_records(Path(path), limits=Limits(record_bytes=16 * 2**20)):
            decode_example(content)
    except SourceError as error:
        return str(error)
    return "nothing was wrong"

sane, *attacks = sys.argv[1:]
assert read(sane) == "nothing was wrong"  # compiled code is loaded
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20,) * 2)
for path in attacks:
    print(read(path))
try:
    bytearray(80 * 2**20)
except MemoryError:
    print("the limit is real")
"""


def honest_length(length):
    """Header of a record that claims a length, with the right checksum."""
    packed = struct.pack("<Q", length)
    return packed + masked(packed)


def packed_zeros(head, count):
    """Gzip data of a head and then `count` zeros, without ever holding those."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = bytes(2**20)
    return packer.compress(head) + b"".join(packer.compress(zeros) for _ in range(count >> 20)) + packer.flush()


ATTACKS = {
    "a bomb of zeros": (lambda: packed_zeros(b"", 2**28), "checksum of its length"),
    "a bomb with a length": (lambda: packed_zeros(honest_length(2**28), 2**28), "claims 268,435,456 bytes"),
    "a bomb within the limit": (lambda: packed_zeros(honest_length(16 * 2**20), 2**28), "its checksum is wrong"),
    "a length of exabytes": (lambda: honest_length(2**63) + b"x", "claims 9,223,372,036,854,775,808 bytes"),
    "a length beyond the file": (lambda: honest_length(15 * 2**20) + b"x", "ends within its content"),
    "a tensor of exabytes": (
        lambda: record(
            field(
                1, field(1, field(1, b"x") + field(2, field(1, field(1, field(1, 1) + field(2, shape(2**31, 2**31))))))
            ),
        ),
        "feature x is a tensor of shape",
    ),
    "a field of exabytes": (lambda: record(b"\x0a\xff\xff\xff\xff\xff\xff\xff\x7f"), "are left"),
    "a million features": (
        lambda: record(field(1, b"".join(field(1, field(1, b"%d" % n)) for n in range(20_000)))),
        "more than 1000 features",
    ),
}


def shape(*sizes):
    return b"".join(field(2, field(1, size)) for size in sizes)


def test_lying_files_are_refused_in_bounded_memory(tmp_path):
    """All read by one process that may take 64 MB beyond what it has when it starts to read them."""
    sane = write(tmp_path / "sane", [example({"x": np.zeros(20)})])
    paths = []
    for number, (make, _) in enumerate(ATTACKS.values()):
        paths.append(tmp_path / f"attack{number}")
        paths[-1].write_bytes(make())
    words = [sys.executable, "-c", _BOUNDED, *map(str, (sane, *paths))]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    *messages, last = found.stdout.splitlines()
    for (name, (_, expected)), message in zip(ATTACKS.items(), messages, strict=True):
        assert expected in message, name
    assert last == "the limit is real"


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1", "i2", "i8", "?", "u2"])
def test_tensors_of_numbers(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = decode_tensor(tensor(array))
    assert found.dtype == array.dtype
    assert not found.flags.writeable
    npt.assert_array_equal(found, array)
    npt.assert_array_equal(decode_tensor(tensor(array[0, 0, 0])), array[0, 0, 0])


def test_examples_by_name():
    arrays = {"a": np.float32([1, 2]), "b": np.float64(3), "c": np.zeros((0, 4), np.float32)}
    found = decode_example(example(arrays))
    assert found.keys() == arrays.keys()
    assert found["c"].shape == (0, 4)
    assert set(decode_example(example(arrays), ["b"])) == {"b"}
    with pytest.raises(SourceError, match="no feature d; it has a, b, c"):
        decode_example(example(arrays), ["d"])


def feature(content):
    return field(1, field(1, field(1, b"x") + field(2, content)))


def only(content):
    return feature(field(1, field(1, content)))


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("field 0", b"\x02\x00"),
        ("wire type 3", b"\x0b\x00"),
        ("ends within a number", b"\x0a\x80"),
        ("more than 10 bytes", b"\x0a" + b"\x80" * 11),
        ("no tf.train.Example", field(3, b"")),
        ("no tf.train.Example", field(1, field(2, b""))),
        ("SequenceExample", field(1, b"") + field(2, b"")),
        ("list of numbers", feature(field(2, b""))),
        ("is empty", feature(b"")),
        ("not one byte string", feature(field(1, field(1, b"") + field(1, b"")))),
        ("type 7", only(field(1, 7))),
        ("listed numbers", only(field(1, 1) + field(5, b"1234"))),
        ("has 4 bytes", only(field(1, 1) + field(2, shape(2)) + field(4, b"1234"))),
        ("unknown rank", only(field(1, 1) + field(2, field(3, 1)))),
        ("unknown length", only(field(1, 1) + field(2, field(2, b"\x08" + b"\xff" * 9 + b"\x01")))),
        ("up to 8 axes", only(field(1, 1) + field(2, shape(*[1] * 9)))),
        ("names a feature by more", field(1, field(1, field(1, b"n" * 1001)))),
    ],
)
def test_other_messages_are_named(message, content):
    with pytest.raises(SourceError, match=message):
        decode_example(content)
