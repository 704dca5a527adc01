"""CRC-32C (Castagnoli), the checksum of TFRecord files.

numpy and Python have none. Eight bytes go through eight tables at once ("slicing-by-8"), which is fast enough not to
matter beside unpacking.

References
----------
.. [1] RFC 3720, appendix B.4
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from urbandelta.types import Array

_POLYNOMIAL = np.uint32(0x82F63B78)
_MASK_DELTA = 0xA282EAD8


def crc32c(content: bytes | bytearray | memoryview) -> int:
    """CRC-32C of some bytes; that of b"123456789" is 0xE3069283."""
    return int(_update(np.frombuffer(content, np.uint8), _TABLES))


def masked_crc32c(content: bytes | bytearray | memoryview) -> int:
    """CRC-32C as TFRecord files store it: turned by 15 bits and shifted by a constant."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _tables() -> Array:
    tables = np.zeros((8, 256), np.uint32)
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, row >> 1 ^ _POLYNOMIAL, row >> 1).astype(np.uint32)
    tables[0] = row
    for n in range(1, 8):
        tables[n] = tables[0][tables[n - 1] & 0xFF] ^ tables[n - 1] >> 8
    return tables


_TABLES = _tables()


@njit(cache=True, nogil=True)
def _update(data: Any, tables: Any) -> Any:
    crc = np.uint32(0xFFFFFFFF)
    whole = len(data) // 8 * 8
    for n in range(0, whole, 8):
        low = crc ^ (
            np.uint32(data[n])
            | np.uint32(data[n + 1]) << np.uint32(8)
            | np.uint32(data[n + 2]) << np.uint32(16)
            | np.uint32(data[n + 3]) << np.uint32(24)
        )
        crc = np.uint32(
            tables[7, low & np.uint32(0xFF)]
            ^ tables[6, low >> np.uint32(8) & np.uint32(0xFF)]
            ^ tables[5, low >> np.uint32(16) & np.uint32(0xFF)]
            ^ tables[4, low >> np.uint32(24)]
            ^ tables[3, data[n + 4]]
            ^ tables[2, data[n + 5]]
            ^ tables[1, data[n + 6]]
            ^ tables[0, data[n + 7]]
        )
    for n in range(whole, len(data)):
        crc = np.uint32(tables[0, (crc ^ np.uint32(data[n])) & np.uint32(0xFF)] ^ crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)
