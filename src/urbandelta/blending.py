"""Weights that blend neighbouring tiles into a map without seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urbandelta.grid import Tile
from urbandelta.types import FloatArray


@dataclass(frozen=True, eq=False)
class Span:
    """What a tile contributes along one axis: the pixels and their weights."""

    pixels: slice
    weights: FloatArray


def axis_spans(cores: Sequence[slice], patches: Sequence[slice], *, overlap: int) -> dict[int, Span]:
    """Contribution of every tile along one axis, by the start of its core.

    A tile's weight is 1 inside and falls linearly to 0 from `overlap` px before to `overlap` px behind each border
    that it shares with a neighbour; the weights of all tiles sum to 1 at each pixel. Without overlap a tile
    contributes its core.

    Parameters
    ----------
    cores, patches : sequences of slice
        Of the tiles along the axis, ascending; the cores partition 0..size.
    overlap : int
        In pixels, at most the halo.
    """
    size = cores[-1].stop
    pixels = [
        slice(max(core.start - overlap, patch.start), min(core.stop + overlap, patch.stop))
        for core, patch in zip(cores, patches, strict=True)
    ]
    raw = [_trapezoid(core, part, size=size, overlap=overlap) for core, part in zip(cores, pixels, strict=True)]
    total = np.zeros(size)
    for part, weights in zip(pixels, raw, strict=True):
        total[part] += weights
    return {
        core.start: Span(part, (weights / total[part]).astype(np.float32))
        for core, part, weights in zip(cores, pixels, raw, strict=True)
    }


def _trapezoid(core: slice, pixels: slice, *, size: int, overlap: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    weights = np.ones(pixels.stop - pixels.start)
    if overlap:
        centre = np.arange(pixels.start, pixels.stop) + 0.5
        if core.start > 0:
            weights = np.minimum(weights, (centre - core.start + overlap) / (2 * overlap))
        if core.stop < size:
            weights = np.minimum(weights, (core.stop + overlap - centre) / (2 * overlap))
    return weights


@dataclass(frozen=True)
class Blend:
    """Contributions of all tiles of a grid."""

    rows: Mapping[int, Span]
    columns: Mapping[int, Span]

    @classmethod
    def of_tiles(cls, tiles: Sequence[Sequence[Tile]], *, overlap: int) -> Blend:
        """Blend of the tiles that `grid.tiles` gives."""
        first_column, first_row = [row[0] for row in tiles], tiles[0]
        return cls(
            axis_spans([t.core[0] for t in first_column], [t.patch[0] for t in first_column], overlap=overlap),
            axis_spans([t.core[1] for t in first_row], [t.patch[1] for t in first_row], overlap=overlap),
        )

    def of(self, tile: Tile) -> tuple[Span, Span]:
        """A tile's contribution along y and x."""
        return self.rows[tile.core[0].start], self.columns[tile.core[1].start]
