"""Months of a score store as indices at halving resolutions, made block by block and kept packed.

A chunk of the store holds a dozen windows and is decoded as a whole, so one look at a block of pixels gives all months
of a *run*: those whose first windows share a chunk. Of each month the highest score of its windows is kept at all
levels down to the coarse one, as Zstandard of uint8, which takes a fiftieth of the decoded chunks or less. Packed
blocks lie in a scratch file, or in memory where that has no room. The coarse level of the whole area is kept apart in
memory: it is small, and makes every zoomed-out tile of a run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import xarray as xr
from numcodecs import Zstd

from urbandelta.composites import shrink
from urbandelta.repository import icechunk_errors
from urbandelta.types import FloatArray
from urbandelta.web.cache import ByteCache
from urbandelta.web.pyramids import LEVELS, UNKNOWN, Bytes, level_shape, quantise, size_of
from urbandelta.web.scratch import Scratch

BLOCK_PX = 256
COARSE_LEVEL = 3
"""The coarse level of an area of up to `_COARSE_PX * 2**COARSE_LEVEL` pixels a side; larger ones have a higher one."""
_COARSE_PX = 512
_MOST_WINDOWS = 32
"""Windows that are decoded at once, whatever the chunks of a foreign store are."""
_PACKER = Zstd(level=1)


class Block:
    """Arrays of uint8, packed one by one, in a scratch file or in memory."""

    def __init__(self, parts: Sequence[Bytes], scratch: Scratch) -> None:
        packed = [_PACKER.encode(np.ascontiguousarray(part)) for part in parts]
        self._ends = tuple(itertools.accumulate(len(one) for one in packed))
        together = b"".join(packed)
        self._scratch = scratch
        self._at = scratch.put(together)
        self._packed = together if self._at is None else b""

    def part(self, number: int, shape: tuple[int, ...]) -> Bytes:
        """An array by its number."""
        start, end = self._ends[number - 1] if number else 0, self._ends[number]
        at = self._at
        packed = self._packed[start:end] if at is None else self._scratch.get(at + start, end - start)
        return np.frombuffer(_PACKER.decode(packed), np.uint8).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return len(self._packed) + 36 * len(self._ends) + 300


class Kept:
    """What is kept of one snapshot, within bounds, and who makes it.

    Parameters
    ----------
    block_bytes, coarse_bytes : int
        Bounds of memory.
    scratch_bytes : int
        Bound of the scratch file; 0 for none.
    """

    def __init__(self, block_bytes: int, coarse_bytes: int, scratch_bytes: int) -> None:
        self.blocks: ByteCache[Block] = ByteCache(block_bytes, lambda block: block.nbytes)
        self.coarse: ByteCache[Bytes] = ByteCache(coarse_bytes, size_of)
        self.scratch = Scratch(scratch_bytes)
        # Two: decoding and reducing leave Python's lock, and more would only take memory.
        self.builders = ThreadPoolExecutor(2, thread_name_prefix="blocks")

    def close(self) -> None:
        """Begin nothing more: the process ends."""
        self.builders.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Run:
    number: int
    months: tuple[tuple[int, ...], ...]
    """Windows of each month."""


class MonthMaps:
    """The months of one snapshot of a score store. Safe to use from several threads.

    Parameters
    ----------
    scores : Dataset
        From `open_scores`.
    months : sequence of sequence of int
        Windows of each month; none is empty.
    kept : Kept
        Of the same snapshot.
    """

    def __init__(self, scores: xr.Dataset, months: Sequence[Sequence[int]], kept: Kept) -> None:
        self.snapshot = str(scores.attrs["snapshot"])
        self.shape: tuple[int, int] = (scores.sizes["y"], scores.sizes["x"])
        self._scores, self._kept = scores, kept
        step = int(scores["score"].encoding.get("preferred_chunks", {}).get("window", 1))
        self._step = min(step, _MOST_WINDOWS)
        self._runs: list[_Run] = []
        self._places: list[tuple[_Run, int]] = []
        self._find_runs(months)
        self.coarse_level = COARSE_LEVEL
        while max(level_shape(self.shape, self.coarse_level)) > _COARSE_PX:
            self.coarse_level += 1

    def read(self, month: int, level: int, rows: slice, columns: slice) -> Bytes:
        """Indices (y, x) of a month at a level: the mean of a cell's known pixels, UNKNOWN where there is none."""
        run, place = self._places[month]
        if level >= self.coarse_level:
            return _coarser(self._whole(run)[place], 2 ** (level - self.coarse_level), rows, columns)
        side, number = BLOCK_PX >> level, level * len(run.months) + place
        found = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        height, width = level_shape(self.shape, level)
        for i in range(rows.start // side, (rows.stop - 1) // side + 1):
            for j in range(columns.start // side, (columns.stop - 1) // side + 1):
                block = self._block(run, i, j)
                shape = min(side, height - i * side), min(side, width - j * side)
                _paste(found, rows.start, columns.start, block.part(number, shape), i * side, j * side)
        return found

    def values(self, months: Sequence[int], y: slice, x: slice) -> Iterator[FloatArray]:
        """Scores (y, x) of each of some months, NaN where there is none."""
        by_run: dict[_Run, list[int]] = {}
        for month in months:
            run, place = self._places[month]
            by_run.setdefault(run, []).append(place)
        for run, places in by_run.items():
            yield from self._highest([run.months[place] for place in places], y, x)

    def preparation(self, months: Sequence[int]) -> Iterator[Callable[[], object]]:
        """Short pieces of work after which zoomed-out tiles are at hand, and as many others as fit; newest first."""
        runs = {self._places[month][0] for month in months}
        for run in sorted(runs, key=lambda run: run.number, reverse=True):
            parts: dict[tuple[int, int], Bytes] = {}
            for at in self._block_numbers():
                yield partial(self._prepare, run, at, parts)
            yield partial(self._whole, run, parts)

    def _prepare(self, run: _Run, at: tuple[int, int], parts: dict[tuple[int, int], Bytes]) -> None:
        if not (self._kept.blocks.full and run.number in self._kept.coarse):
            parts[at] = self._coarse_part(run, at)

    def _find_runs(self, months: Sequence[Sequence[int]]) -> None:
        by_number: dict[int, list[int]] = {}
        for month, windows in enumerate(months):
            by_number.setdefault(min(windows) // self._step, []).append(month)
        places: dict[int, tuple[_Run, int]] = {}
        for number in sorted(by_number):
            run = _Run(number, tuple(tuple(sorted(months[month])) for month in by_number[number]))
            self._runs.append(run)
            places.update({month: (run, place) for place, month in enumerate(by_number[number])})
        self._places = [places[month] for month in range(len(months))]

    def _block_numbers(self) -> list[tuple[int, int]]:
        height, width = self.shape
        return [(i, j) for i in range(-(-height // BLOCK_PX)) for j in range(-(-width // BLOCK_PX))]

    def _whole(self, run: _Run, parts: Mapping[tuple[int, int], Bytes] | None = None) -> Bytes:
        """The coarse level of all of a run's months (month, y, x), from the parts that are there already."""
        return self._kept.coarse.get(run.number, partial(self._make_whole, run, parts or {}))

    def _make_whole(self, run: _Run, parts: Mapping[tuple[int, int], Bytes]) -> Bytes:
        numbers = self._block_numbers()
        missing = [at for at in numbers if at not in parts]
        made = self._kept.builders.map(partial(self._coarse_part, run), missing)
        parts = {**parts, **dict(zip(missing, made, strict=True))}
        whole = np.empty((len(run.months), *level_shape(self.shape, self.coarse_level)), np.uint8)
        side = BLOCK_PX >> self.coarse_level
        for (i, j), part in parts.items():
            whole[:, i * side : i * side + part.shape[1], j * side : j * side + part.shape[2]] = part
        return whole

    def _coarse_part(self, run: _Run, at: tuple[int, int]) -> Bytes:
        # Nobody asked for this block by itself, so it drops none that somebody did ask for.
        block = self._block(run, *at, evict=False)
        y, x = self._extent(*at)
        shape = level_shape((y.stop - y.start, x.stop - x.start), self.coarse_level)
        return block.part(self.coarse_level * len(run.months), (len(run.months), *shape))

    def _block(self, run: _Run, i: int, j: int, *, evict: bool = True) -> Block:
        return self._kept.blocks.get((run.number, i, j), partial(self._make, run, i, j), evict=evict)

    def _make(self, run: _Run, i: int, j: int) -> Block:
        levels = _levels(self._highest(run.months, *self._extent(i, j)), self.coarse_level)
        return Block([*itertools.chain.from_iterable(levels[:-1]), levels[-1]], self._kept.scratch)

    def _extent(self, i: int, j: int) -> tuple[slice, slice]:
        """Pixels (y, x) of a block."""
        height, width = self.shape
        y, x = i * BLOCK_PX, j * BLOCK_PX
        return slice(y, min(y + BLOCK_PX, height)), slice(x, min(x + BLOCK_PX, width))

    def _highest(self, months: Sequence[tuple[int, ...]], y: slice, x: slice) -> FloatArray:
        """Highest score of the windows of each of some months (month, y, x), NaN where there is none."""
        best = np.full((len(months), y.stop - y.start, x.stop - x.start), np.nan, np.float32)
        windows = sorted({window for month in months for window in month})
        for _, together in itertools.groupby(windows, key=lambda window: window // self._step):
            part = list(together)
            first, last = part[0], part[-1]
            with icechunk_errors("the scores"):
                values = self._scores["score"][first : last + 1, y, x].values
            for place, month in enumerate(months):
                for window in month:
                    if first <= window <= last:
                        np.fmax(best[place], values[window - first], out=best[place])
        return best


def _levels(maps: FloatArray, last: int) -> list[Bytes]:
    """Indices of several maps (map, y, x) at levels 0 to `last`; a cell is the mean of its known pixels."""
    levels = [quantise(maps, 0.0, 1.0)]
    height, width = maps.shape[1:]
    known = np.isfinite(maps)
    full = bool(known.all()) and height % 2**last == 0 and width % 2**last == 0
    totals = maps if full else np.where(known, maps, np.float32(0))
    counts = None if full else known.astype(np.float32)
    for level in range(1, last + 1):
        totals = _halved(totals)
        if counts is None:
            # Nearly all blocks are known throughout: nothing to count.
            levels.append(quantise(totals * np.float32(0.25**level), 0.0, 1.0))
        else:
            counts = _halved(counts)
            means = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
            levels.append(quantise(means, 0.0, 1.0))
    return levels


def _halved(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sums of 2 x 2 pixels of several maps (map, y, x); what an odd side lacks counts as 0."""
    _, height, width = values.shape
    if height % 2 or width % 2:
        values = np.pad(values, ((0, 0), (0, height % 2), (0, width % 2)))
    # Rows first: they lie next to each other in memory.
    rows = values[:, ::2] + values[:, 1::2]
    return rows[:, :, ::2] + rows[:, :, 1::2]


def _coarser(index: Bytes, factor: int, rows: slice, columns: slice) -> Bytes:
    """A part of an image of indices (y, x) at a resolution that is `factor` times coarser."""
    part = index[rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
    if factor == 1:
        return part
    values = np.where(part == UNKNOWN, np.nan, part / np.float32(LEVELS - 1)).astype(np.float32)
    return quantise(shrink(values, factor), 0.0, 1.0)


def _paste(found: Bytes, top: int, left: int, part: Bytes, y: int, x: int) -> None:
    """Put what of a part at (y, x) lies within an image at (top, left) there."""
    low_y, high_y = max(top, y), min(top + found.shape[0], y + part.shape[0])
    low_x, high_x = max(left, x), min(left + found.shape[1], x + part.shape[1])
    found[low_y - top : high_y - top, low_x - left : high_x - left] = part[
        low_y - y : high_y - y, low_x - x : high_x - x
    ]
