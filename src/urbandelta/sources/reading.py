"""Read a pass of an archive onto the cube's grid: its bands at the same time, its rows in blocks.

Everything goes through `base.read_scene`, as for imported files, so that both store the same bits. Here is only when
bytes are asked for: all bands of a block of rows at once, and the next acquisitions ahead of the one being stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.sources.base import Layer, Part, Scene, WrappedLayer, read_scene
from urbandelta.sources.harmonise import check_offset
from urbandelta.sources.resample import covering_window, crop
from urbandelta.sources.stac import AssetLayer, Pass
from urbandelta.types import Acquisition, Array, BoolArray

Pixels: TypeAlias = tuple[Array, BoolArray | None]

# Where a layer does not reach the grid, `read_scene` asks for one pixel to learn its type.
_ANY_PIXEL = (slice(0, 1), slice(0, 1))


class OffsetContradiction(SourceError):
    """The numbers of an acquisition contradict what its item says about baseline 04.00's offset."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read: onto which grid, with whose threads, how many rows at a time (None: all)."""

    grid: Grid
    threads: Executor
    block_rows: int | None = None
    refuse_contradictions: bool = True


@dataclass(frozen=True, eq=False)
class _ReadAhead(WrappedLayer):
    """A layer whose window is being read already."""

    pixels: Future[Pixels]

    def read(self, rows: slice, columns: slice) -> Pixels:  # noqa: ARG002 - the window was known when reading began
        """What was read ahead."""
        return self.pixels.result()


def read_pass(one: Pass, reading: Reading) -> Acquisition:
    """Read one acquisition onto the grid.

    Raises
    ------
    FetchError, SourceError
        If any of its bytes cannot be had or understood: then nothing of it is returned.
    OffsetContradiction
        If its reflectances contradict the offset that its items declare, and that is to be refused.
    """
    scene = _opened(one.scene, reading.threads)
    # Rules that look at neighbours want the whole scene.
    rows = reading.block_rows or reading.grid.height
    if one.recipe.masking is not None:
        # Borders and clouds are found by looking at neighbours: blocks would give other masks at their seams.
        rows = reading.grid.height
    whole: Acquisition | None = None
    values: Array | None = None
    for top, block in _blocks(reading.grid, rows):
        part = read_scene(_ahead(scene, block, reading.threads), one.recipe, block)
        if block.shape == reading.grid.shape:
            whole = part
            break
        if whole is None or values is None:
            values = np.empty((*reading.grid.shape, part.values.shape[2]), part.values.dtype)
            whole = replace(part, values=values, mask=np.empty(reading.grid.shape, np.uint8))
        values[top : top + block.height] = part.values
        whole.mask[top : top + block.height] = part.mask
    assert whole is not None
    return _checked(whole, one, refuse=reading.refuse_contradictions)


def _checked(acquisition: Acquisition, one: Pass, *, refuse: bool) -> Acquisition:
    provenance = {**acquisition.provenance, **one.provenance()}
    if one.offset_present is not None:
        finding = check_offset(acquisition, offset_present=one.offset_present)
        if finding.verdict == "contradiction" and refuse:
            raise OffsetContradiction(
                f"{one.item_id}: {finding.reason}; it is not stored (offset_check: warn in the monitor file would)"
            )
        provenance["offset_check"] = finding.as_dict()
    return replace(acquisition, provenance=provenance)


def _opened(scene: Scene, threads: Executor) -> Scene:
    """The scene with all files open; their headers are read at the same time."""
    waiting = [
        {
            band: threads.submit(layer.opened) if isinstance(layer, AssetLayer) else layer
            for band, layer in part.layers.items()
        }
        for part in scene.parts
    ]
    parts = [
        Part(
            {band: layer.result() if isinstance(layer, Future) else layer for band, layer in layers.items()},
            part.item_id,
        )
        for part, layers in zip(scene.parts, waiting, strict=True)
    ]
    return replace(scene, parts=tuple(parts))


def _ahead(scene: Scene, block: Grid, threads: Executor) -> Scene:
    return replace(
        scene,
        parts=tuple(
            Part({band: _begin(layer, block, threads) for band, layer in part.layers.items()}, part.item_id)
            for part in scene.parts
        ),
    )


def _begin(layer: Layer, block: Grid, threads: Executor) -> _ReadAhead:
    window = covering_window(layer.grid, block) or _ANY_PIXEL
    return _ReadAhead(layer, threads.submit(layer.read, *window))


def _blocks(grid: Grid, rows: int) -> Iterator[tuple[int, Grid]]:
    for top in range(0, grid.height, rows):
        yield top, crop(grid, slice(top, min(top + rows, grid.height)), slice(0, grid.width))
