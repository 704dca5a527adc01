"""Indices and colours to the bytes of a tile."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image

from urbandelta.web.mercator import TILE_PX
from urbandelta.web.pyramids import LEVELS, OUTSIDE, UNKNOWN, Bytes

ColourMap = Literal["inferno", "viridis", "cividis"]
"""Perceptually even and monotone in lightness: readable in grey and by colour-blind people."""
_UNKNOWN_RGBA = (128, 132, 136, 96)
_FADE_FROM, _FADE_TO = 0.05, 0.5


@dataclass(frozen=True)
class MapClass:
    """What a value of a map of classes means, and how it is drawn."""

    value: int
    title: str
    rgb: tuple[int, int, int]


@cache
def palette(name: ColourMap, fade: bool) -> Bytes:
    """RGBA of each index (256, 4).

    With `fade`, low scores let through what lies below: nothing of 0.05, all of 0.5 and more.
    """
    position = np.linspace(0, 1, LEVELS)
    colours = np.zeros((256, 4), np.uint8)
    colours[:LEVELS] = (255 * matplotlib.colormaps[name](position)).round()
    if fade:
        share = np.clip((position - _FADE_FROM) / (_FADE_TO - _FADE_FROM), 0, 1)
        colours[:LEVELS, 3] = (240 * share).round()
    colours[UNKNOWN] = _UNKNOWN_RGBA
    colours[OUTSIDE] = 0
    colours.flags.writeable = False
    return colours


@cache
def class_palette(classes: tuple[MapClass, ...]) -> Bytes:
    """RGBA of each index (256, 4), where an index is the value of a class; others are transparent."""
    colours = np.zeros((256, 4), np.uint8)
    for each in classes:
        colours[each.value] = (*each.rgb, 255)
    colours.flags.writeable = False
    return colours


def legend(name: ColourMap, fade: bool) -> list[str]:
    """Some colours from low to high as CSS, for a legend."""
    chosen = palette(name, fade)[np.linspace(0, LEVELS - 1, 24).round().astype(int)]
    return [f"rgba({r}, {g}, {b}, {a / 255:.3f})" for r, g, b, a in chosen.tolist()]


def indexed_png(index: Bytes, colours: Bytes, *, show_unknown: bool = True) -> bytes:
    """Indices (y, x) as a PNG with a palette (256, 4); pixels without a value as it says, or transparent."""
    if not show_unknown:
        colours = colours.copy()
        colours[UNKNOWN] = 0
    image = Image.fromarray(index, "L")
    image.putpalette(colours[:, :3].tobytes(), "RGB")
    buffer = io.BytesIO()
    # Level 1 is a third of the time of the default level, for a fifth more bytes that never leave the machine.
    image.save(buffer, "PNG", compress_level=1, transparency=colours[:, 3].tobytes())
    return buffer.getvalue()


def colour_webp(rgba: Bytes) -> bytes:
    """Colours (y, x, 4) as WebP."""
    buffer = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(buffer, "WEBP", quality=88, method=0)
    return buffer.getvalue()


@cache
def empty_png() -> bytes:
    """A tile in which nothing is drawn."""
    return indexed_png(np.full((TILE_PX, TILE_PX), OUTSIDE, np.uint8), palette("inferno", False))


@cache
def empty_webp() -> bytes:
    """A tile in which nothing is drawn."""
    buffer = io.BytesIO()
    Image.new("RGBA", (TILE_PX, TILE_PX)).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()
