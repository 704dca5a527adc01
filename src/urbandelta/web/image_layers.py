"""Pyramids of acquisitions in true colour (radar: grey in decibels), masked pixels hatched."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.composites import MID_GREY, shrink
from urbandelta.eras import Stream
from urbandelta.store import Cube
from urbandelta.types import BoolArray, FloatArray
from urbandelta.web.cache import ByteCache
from urbandelta.web.pyramids import Bytes, level_shape, most_level

THUMBNAIL_LEVEL = 3
"""From this level on, pixels come from a thumbnail of the whole area, made once for each acquisition."""
_SAMPLE_ACQUISITIONS = 6
_SAMPLE_PX = 256
_STRIP_BYTES = 24 * 2**20
_HATCH_PX = 6
_HATCH = np.array([204, 102, 190], np.float32)
"""Reddish purple of Okabe and Ito, lightened: no ground has this colour, and colour-blind people tell it apart."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """How a stream's values become 0..1: cut at percentiles of clear acquisitions, then one gamma.

    The same for all acquisitions of a stream, so that equal ground looks equal at two dates.
    """

    bands: tuple[int, ...]
    low: FloatArray
    high: FloatArray
    gamma: float
    decibels: bool

    def colours(self, values: FloatArray) -> tuple[Bytes, BoolArray]:
        """RGB (y, x, 3) of values (y, x, band) of the chosen bands, and where they are known."""
        shown = _decibels(values) if self.decibels else values
        known = np.asarray(np.isfinite(shown).all(axis=-1))
        scaled = np.clip((np.where(known[..., None], shown, self.low) - self.low) / (self.high - self.low), 0, 1)
        bright = (255 * scaled**self.gamma).round().astype(np.uint8)
        return np.broadcast_to(bright, (*bright.shape[:2], 3)), known


@dataclass(frozen=True, eq=False)
class ImagePyramid:
    """One acquisition of a stream as RGBA; pixels without a value are transparent."""

    cube: Cube
    stream: str
    position: int
    stretch: Stretch
    thumbnails: ByteCache[Bytes]

    @property
    def key(self) -> Hashable:
        """Cube, snapshot, stream and acquisition."""
        return ("image", self.cube.snapshot, self.stream, self.position)

    @property
    def brick_px(self) -> int:
        """Two chunks of the cube a side."""
        return 256

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the cube."""
        return self.cube.grid.shape

    @property
    def most_level(self) -> int:
        """Down to about 64 pixels a side."""
        return most_level(self.shape)

    def read(self, level: int, rows: slice, columns: slice) -> Bytes:
        """Colours (y, x, 4) of a level."""
        if level >= THUMBNAIL_LEVEL:
            whole = self.thumbnails.get(self.key, self._thumbnail)
            factor = 2 ** (level - THUMBNAIL_LEVEL)
            return whole[::factor, ::factor][rows, columns]
        factor = 2**level
        y = slice(rows.start * factor, min(rows.stop * factor, self.shape[0]))
        x = slice(columns.start * factor, min(columns.stop * factor, self.shape[1]))
        return self._colours(y, x, factor)

    def values(self, y: slice, x: slice) -> FloatArray:
        """Physical values (y, x, band) of the bands that are shown, NaN where masked."""
        raw, mask = self.cube.read_raw(self.stream, slice(self.position, self.position + 1), y, x)
        values = self.cube.physical(self.stream, raw[0][..., list(self.stretch.bands)])
        values[mask[0] != 0] = np.nan
        return values

    def _thumbnail(self) -> Bytes:
        height, width = level_shape(self.shape, THUMBNAIL_LEVEL)
        factor = 2**THUMBNAIL_LEVEL
        found = np.zeros((height, width, 4), np.uint8)
        for top in range(0, height, 32):
            rows = slice(top * factor, min((top + 32) * factor, self.shape[0]))
            found[top : top + 32] = self._colours(rows, slice(0, self.shape[1]), factor)
        return found

    def _colours(self, y: slice, x: slice, factor: int) -> Bytes:
        parts = []
        # All bands of a chunk are decoded together, so a strip is bounded by all of them.
        per_row = 4 * len(self.cube.bands(self.stream)) * (x.stop - x.start)
        step = max(_STRIP_BYTES // per_row // factor, 1) * factor
        for top in range(y.start, y.stop, step):
            rows = slice(top, min(top + step, y.stop))
            raw, mask = self.cube.read_raw(self.stream, slice(self.position, self.position + 1), rows, x)
            values = self.cube.physical(self.stream, raw[0][..., list(self.stretch.bands)])
            hidden = shrink((mask[0] != 0).astype(np.float32), factor) >= 0.5
            rgb, known = self.stretch.colours(shrink(values, factor))
            parts.append(_hatched(rgb, known, hidden, first_row=top // factor, first_column=x.start // factor))
        return np.concatenate(parts)


def shown_bands(stream: Stream, stored: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of the bands that stand for red, green and blue on a screen; one band means grey."""
    visible = tuple(stream.roles[role] for role in ("red", "green", "blue") if role in stream.roles)
    if stream.kind == "optical" and len(visible) == 3 and set(visible) <= set(stored):
        return tuple(stored.index(band) for band in visible)
    return (0, 1, 2) if stream.kind == "optical" and len(stored) >= 3 else (0,)


def find_stretch(cube: Cube, stream: str) -> Stretch:
    """The stretch of a stream: 1st and 98th percentile of a few clear acquisitions, the median lifted to mid grey."""
    row = cube.era.stream(stream)
    bands = shown_bands(row, cube.bands(stream))
    samples = [values for values, _ in _samples(cube, stream)]
    shown = np.concatenate([values[..., list(bands)] for values in samples]) if samples else np.zeros((1, len(bands)))
    if row.kind == "sar":
        shown = _decibels(shown)
    shown = shown[np.isfinite(shown).all(axis=-1)]
    if not shown.size:
        shown = np.zeros((1, len(bands)))
    low, high = np.percentile(shown, (1, 98), axis=0)
    high = np.maximum(high, low + 1e-6)
    middle = float(np.median(np.clip((shown - low) / (high - low), 0, 1)))
    gamma = float(np.clip(np.log(MID_GREY) / np.log(np.clip(middle, 0.02, 0.98)), 0.4, 1.2))
    return Stretch(bands, low.astype(np.float32), high.astype(np.float32), gamma, row.kind == "sar")


def _samples(cube: Cube, stream: str) -> list[tuple[FloatArray, int]]:
    """Valid values (pixel, band) of the clearest acquisitions, all seasons, from the middle of the area."""
    share = cube.valid_fraction(stream)
    if not share.size:
        return []
    # The clearest of each of a few equal runs: the clearest of all may be one summer's.
    runs = np.array_split(np.arange(share.size), min(_SAMPLE_ACQUISITIONS, share.size))
    chosen = [int(run[share[run].argmax()]) for run in runs]
    height, width = cube.grid.shape
    y = slice(max(height - _SAMPLE_PX, 0) // 2, max(height - _SAMPLE_PX, 0) // 2 + min(_SAMPLE_PX, height))
    x = slice(max(width - _SAMPLE_PX, 0) // 2, max(width - _SAMPLE_PX, 0) // 2 + min(_SAMPLE_PX, width))
    found = []
    for position in chosen:
        values, mask = cube.read(stream, slice(position, position + 1), y, x)
        found.append((values[0][mask[0] == 0], position))
    return found


def mean_reflectance(cube: Cube, stream: str) -> FloatArray:
    """Mean (1, 1, band) over the valid pixels of a few clear acquisitions' samples; NaN where there is none."""
    samples = [values for values, _ in _samples(cube, stream)]
    values = np.concatenate(samples) if samples else np.zeros((0, len(cube.bands(stream))), np.float32)
    mean = values.mean(axis=0) if values.size else np.full(values.shape[1], np.nan)
    return np.asarray(mean, np.float32)[None, None]


def _hatched(rgb: Bytes, known: BoolArray, hidden: BoolArray, *, first_row: int, first_column: int) -> Bytes:
    """RGBA with diagonal strokes over masked pixels, counted from the grid's corner so that bricks join."""
    stroke = _strokes(rgb.shape[0], rgb.shape[1], first_row, first_column) & hidden
    picture = np.empty((*rgb.shape[:2], 4), np.uint8)
    picture[..., :3] = rgb
    picture[stroke, :3] = (0.35 * picture[stroke, :3] + 0.65 * _HATCH).astype(np.uint8)
    picture[..., 3] = np.where(known, 255, np.where(stroke, 120, 0))
    return picture


def _strokes(height: int, width: int, row: int, column: int) -> BoolArray:
    diagonal: npt.NDArray[np.intp] = np.add.outer(np.arange(row, row + height), np.arange(column, column + width))
    return np.asarray(diagonal % _HATCH_PX < 2)


def _decibels(values: npt.NDArray[np.floating]) -> FloatArray:
    positive = np.where(values > 0, values, np.nan)
    return np.asarray(10 * np.log10(positive), np.float32)
