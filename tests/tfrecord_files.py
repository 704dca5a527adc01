"""Writes TFRecord files as TensorFlow does, independently of the reader: for tests."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "|u1": 4, "<i2": 5, "<i8": 9, "|b1": 10, "<u2": 17}


def crc32c(content: bytes) -> int:
    """Bit by bit, as the standard has it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(content: bytes, checksum: Any = crc32c) -> bytes:
    crc = checksum(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(content: bytes, checksum: Any = crc32c) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + masked(length, checksum) + content + masked(content, checksum)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(array: Any) -> bytes:
    array = np.asarray(array)
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    return field(1, TYPES[array.dtype.str]) + field(2, shape) + field(4, array.tobytes())


def example(arrays: Mapping[str, Any]) -> bytes:
    entries = (
        field(1, field(1, name.encode()) + field(2, field(1, field(1, tensor(array)))))
        for name, array in arrays.items()
    )
    return field(1, b"".join(entries))


def write(path: Path, records: Iterable[bytes], compression: str = "gzip", checksum: Any = crc32c) -> Path:
    content = b"".join(record(item, checksum) for item in records)
    pack = {"gzip": gzip.compress, "zlib": zlib.compress, "plain": bytes}[compression]
    path.write_bytes(pack(content))
    return path


def write_metadata(folder: Path, *, tile: int, deadzone: int = 0, bands: tuple[int, int] = (1, 7)) -> None:
    document = {
        "tile_size_y": tile,
        "tile_size_x": tile,
        "bands_sar": bands[0],
        "bands_opt": bands[1],
        "deadzone_y": deadzone,
        "deadzone_x": deadzone,
    }
    (folder / "metadata.json").write_text(json.dumps(document))
