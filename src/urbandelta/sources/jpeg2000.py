"""Where the tiles of a JPEG 2000 file lie, so that those of a window can be fetched together.

Only lengths are followed (ISO/IEC 15444-1, annexes A and I): from box to box to the codestream, and from tile-part to
tile-part in it, or by its table of tile-parts (TLM) where it has one. What is not understood is left out: the decoder
then asks for those bytes itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

ReadRange: TypeAlias = Callable[[int, int], bytes]
Span: TypeAlias = tuple[int, int]

_CODESTREAM, _SOC, _SIZ, _SOT, _TLM = b"jp2c", 0xFF4F, 0xFF51, 0xFF90, 0xFF55
_SOT_BYTES = 12
_MOST_BOXES, _MOST_MARKERS, _MOST_PARTS = 1000, 10_000, 100_000


@dataclass(frozen=True)
class TileMap:
    """Tile-parts by tile, tiles counted row by row."""

    width: int
    height: int
    left: int  # of the image on the first tile
    top: int
    columns: int
    parts: dict[int, list[Span]] = field(default_factory=dict)

    def spans(self, rows: slice, columns: slice) -> list[Span]:
        """Half-open byte ranges of all tiles that a window of pixels touches."""
        found: list[Span] = []
        for row in range((rows.start + self.top) // self.height, (rows.stop - 1 + self.top) // self.height + 1):
            for column in range(
                (columns.start + self.left) // self.width, (columns.stop - 1 + self.left) // self.width + 1
            ):
                found += self.parts.get(row * self.columns + column, [])
        return found


def read_tile_map(read: ReadRange, size: int) -> TileMap | None:
    """Tile map of a file of `size` bytes; None if it is not understood. `read` gives bytes of a half-open range."""
    try:
        start = _find_codestream(read, size)
        return None if start is None else _read_codestream(read, start, size)
    except (struct.error, ZeroDivisionError):
        return None


def _find_codestream(read: ReadRange, size: int) -> int | None:
    if read(0, 4) == struct.pack(">HH", _SOC, _SIZ):
        return 0
    place = 0
    for _ in range(_MOST_BOXES):
        length, kind = struct.unpack(">I4s", read(place, place + 8))
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", read(place + 8, place + 16))
            header = 16
        if kind == _CODESTREAM:
            return place + header
        if length < header or place + length >= size:
            return None
        place += length
    return None


def _read_codestream(read: ReadRange, start: int, size: int) -> TileMap | None:
    marker, siz = struct.unpack(">HH", read(start, start + 4))
    if (marker, siz) != (_SOC, _SIZ):
        return None
    x1, _, x0, y0, width, height, tile_x0, tile_y0 = struct.unpack(">8I", read(start + 8, start + 40))
    columns = -(-(x1 - tile_x0) // width)
    if not 0 < columns < _MOST_PARTS or height == 0:
        return None
    tiles = TileMap(width, height, x0 - tile_x0, y0 - tile_y0, columns)
    place = start + 2
    listed: list[tuple[int | None, int]] = []
    for _ in range(_MOST_MARKERS):
        marker, length = struct.unpack(">HH", read(place, place + 4))
        if marker == _SOT:
            break
        if marker == _TLM:
            listed += _table(read(place + 4, place + 2 + length))
        place += 2 + length
    else:
        return None
    if listed:
        for number, (tile, length) in enumerate(listed):
            tiles.parts.setdefault(number if tile is None else tile, []).append((place, place + length))
            place += length
        return tiles
    for _ in range(_MOST_PARTS):
        head = read(place, place + _SOT_BYTES)
        if len(head) < _SOT_BYTES or head[:2] != struct.pack(">H", _SOT):
            break
        tile, length = struct.unpack(">HI", head[4:10])
        end = place + length if length else size
        tiles.parts.setdefault(tile, []).append((place, end))
        if length < _SOT_BYTES:
            break
        place = end
    return tiles


def _table(data: bytes) -> list[tuple[int | None, int]]:
    """Tile (None: they come in order) and length of each tile-part in a TLM segment, after its length field."""
    kind = data[1]
    tile_format = {0: "", 1: "B", 2: "H"}[kind >> 4 & 3] if kind >> 4 & 3 < 3 else ""
    entry = struct.Struct(f">{tile_format}{'I' if kind & 0x40 else 'H'}")
    whole = data[2 : 2 + (len(data) - 2) // entry.size * entry.size]
    return [((None, *values) if not tile_format else values)[:2] for values in entry.iter_unpack(whole)]
