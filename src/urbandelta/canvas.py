"""Pictures with words on them, drawn pixel by pixel: fonts, panels, scale bars, colour bars.

For pictures that must be the same bytes on every machine, and for hundreds of frames, where a plotting library is slow.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from urbandelta.cartography import MapFrame
from urbandelta.figures import palette
from urbandelta.types import BoolArray, FloatArray

__all__ = [
    "ACCENT",
    "INK",
    "LINE",
    "MUTED",
    "PAPER",
    "SPAN",
    "Canvas",
    "hatch",
    "panel_size",
    "red_over",
    "score_colours",
]

Colour: TypeAlias = tuple[int, int, int]
PAPER, INK, MUTED, LINE = (255, 255, 255), (28, 34, 38), (90, 101, 109), (214, 218, 217)
ACCENT, SPAN = (11, 107, 115), (168, 206, 209)
RED = np.array([255, 42, 31], np.float32)
HATCH = (244, 226)
"""Greys of the stripes that stand for what is not known."""
_HATCH_PX = 4


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def panel_size(frame: MapFrame, longer: int) -> tuple[int, int]:
    """Width and height in pixels of a map whose longer side is given, as it looks on the ground."""
    width = longer if frame.aspect >= 1 else longer * frame.aspect
    height = longer if frame.aspect <= 1 else longer / frame.aspect
    return max(round(width), 1), max(round(height), 1)


def hatch(height: int, width: int) -> npt.NDArray[np.uint8]:
    """RGB (y, x, 3) of the ground that stands for "nothing known": light diagonal stripes."""
    y, x = np.mgrid[:height, :width]
    stripe = ((x + y) // _HATCH_PX % 2)[..., None]
    return np.where(stripe == 0, np.uint8(HATCH[0]), np.uint8(HATCH[1])).repeat(3, axis=-1)


def score_colours(scores: FloatArray) -> npt.NDArray[np.uint8]:
    """RGBA (y, x, 4) of scores 0..1, transparent where there is none."""
    colours = palette()
    known = np.isfinite(scores)
    index = (np.clip(np.nan_to_num(scores), 0, 1) * (len(colours) - 1)).round().astype(np.intp)
    return np.dstack([colours[index], np.where(known, 255, 0).astype(np.uint8)])


def red_over(picture: npt.NDArray[np.uint8], scores: FloatArray) -> npt.NDArray[np.uint8]:
    """RGBA (y, x, 4) with red laid over it, the more opaque the higher the score (y, x)."""
    share = np.clip(np.nan_to_num(scores), 0, 1)[..., None]
    mixed = picture.astype(np.float32)
    mixed[..., :3] = (1 - share) * mixed[..., :3] + share * RED
    return np.asarray(mixed.round(), np.uint8)


class Canvas:
    """A white picture to draw on; positions are pixels from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 13,
        bold: bool = False,
        colour: Colour = INK,
        anchor: str = "ls",
        halo: bool = False,
    ) -> None:
        """Words with their left end on the line at (x, y), or as `anchor` (Pillow's two letters) says."""
        face = font(size, bold=bold)
        rim = 2 if halo else 0
        self._draw.text((x, y), words, font=face, fill=colour, anchor=anchor, stroke_width=rim, stroke_fill=(0, 0, 0))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled rectangle, its far edges excluded; at least one pixel wide."""
        self._draw.rectangle((round(x0), round(y0), max(round(x1) - 1, round(x0)), round(y1) - 1), fill=colour)

    def map(self, x: int, y: int, width: int, height: int, rgba: npt.NDArray[np.uint8]) -> None:
        """A raster (y, x, 4) on hatched ground; pixels stay square-edged where they are enlarged."""
        ground = Image.fromarray(hatch(height, width), "RGB")
        picture = Image.fromarray(rgba, "RGBA").resize((width, height), Image.Resampling.NEAREST)
        ground.paste(picture, (0, 0), picture)
        self.image.paste(ground, (x, y))

    def outline(self, x: int, y: int, width: int, height: int, mask: BoolArray) -> None:
        """White line with a dark rim around the pixels of a mask (y, x) of a map, for eyes to which red is dull."""
        large = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST), bool)
        padded = np.pad(large, 1)
        grown = padded.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                grown |= np.roll(padded, step, axis)
        inner = large & ~_eroded(large)
        picture = np.asarray(self.image).copy()
        view = picture[y : y + height, x : x + width]
        view[grown[1:-1, 1:-1] & ~large] = INK
        view[inner] = PAPER
        self.image.paste(Image.fromarray(picture))

    def scale_bar(self, x: int, y: int, width: int, frame: MapFrame) -> None:
        """The scale bar of a map `width` pixels wide, its left end at (x, y); to be seen on any ground."""
        percent, label = frame.scale_bar
        length = width * percent / 100
        self.box(x - 1, y - 5, x + length + 1, y + 2, (0, 0, 0))
        self.box(x, y - 4, x + length, y + 1, (255, 255, 255))
        # Over the middle of a long bar; a short one would push its words over the map's edge.
        at, anchor = (x + length / 2, "ms") if length >= 48 else (x, "ls")
        self.text(at, y - 9, label, size=12, bold=True, colour=(255, 255, 255), anchor=anchor, halo=True)

    def colour_bar(self, x: int, y: int, width: int, *, threshold: float, label: str = "Change score") -> None:
        """Ramp of scores with its ends and the threshold named; its upper left corner at (x, y), 34 pixels high."""
        colours = palette()
        for k in range(width):
            red, green, blue = (int(v) for v in colours[k * (len(colours) - 1) // (width - 1)])
            self.box(x + k, y, x + k + 1, y + 10, (red, green, blue))
        at = x + threshold * (width - 1)
        self.box(at - 1, y - 3, at + 1, y + 13, INK)
        for position, words, anchor in ((x, "0", "lt"), (at, f"{threshold:g}", "mt"), (x + width, "1", "rt")):
            self.text(position, y + 16, words, size=11, colour=MUTED, anchor=anchor)
        self.text(x - 8, y + 9, label, size=11, colour=MUTED, anchor="rs")


def _eroded(mask: BoolArray) -> BoolArray:
    """Without the pixels (y, x) that touch an edge of the mask; the picture's own edge is none."""
    padded = np.pad(mask, 1, mode="edge")
    kept = padded.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            kept &= np.roll(padded, step, axis)
    return np.asarray(kept[1:-1, 1:-1])
