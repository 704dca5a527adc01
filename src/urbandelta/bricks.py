"""Bricks: what training keeps in memory of a cube, a block of pixels over a run of windows, compactly.

A frame carried forward to every step would repeat each image many times. A brick holds every acquisition once, as it is
stored, and per pixel the number of the newest valid one; what a tile shows at a step is then a gather. Its first image
is what the pixels show at the brick's first step, so that nothing older has to be kept: memory depends on the brick,
neither on the area nor on the length of the series.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from urbandelta.assemble import latest_index
from urbandelta.cube_format import CHUNK
from urbandelta.errors import ConfigError
from urbandelta.store import Cube
from urbandelta.training_plan import PlannedTile
from urbandelta.types import Array, BoolArray, FloatArray, TimeArray, Window

READ_BATCH = 8
"""Acquisitions read at a time while looking for what a pixel shows at a brick's first step."""


class LabelReader(Protocol):
    """What training needs of labels; `label_store.open_labels` gives it."""

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows that have labels, in order of time; `first` and `last` are indices into `steps`."""

    @property
    def steps(self) -> TimeArray:
        """The steps that the windows are made of."""

    def read(self, window: int | slice, y: slice, x: slice) -> FloatArray:
        """Labels (window, y, x) 0..1, NaN where a pixel does not count."""


@dataclass(frozen=True, eq=False)
class BrickStream:
    """One stream's images over a brick: `base` is number 0, `raw[n - 1]` number n.

    `newest` (n + 1, y, x) is the number of the image that each pixel shows once n acquisitions are taken in, `taken`
    how many are at each of the brick's steps.
    """

    base: FloatArray
    raw: Array
    newest: npt.NDArray[np.int16]
    taken: npt.NDArray[np.int64]
    physical: Callable[[Array], FloatArray]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.base.nbytes + self.raw.nbytes + self.newest.nbytes

    def shown(self, steps: npt.NDArray[np.int64], y: slice, x: slice) -> npt.NDArray[np.int64]:
        """Per step (an index into the brick's), after how many acquisitions the tile looked as it does then.

        Acquisitions without a valid pixel in the tile change nothing and do not count, but for those before `steps`.
        """
        taken = self.taken[steps]
        first, last = int(taken[0]), int(taken[-1])
        numbers = np.arange(first, last + 1)
        changed = (self.newest[first : last + 1, y, x] == numbers[:, None, None]).any(axis=(1, 2))
        changed[0] = True
        effective: npt.NDArray[np.int64] = np.maximum.accumulate(np.where(changed, numbers, 0))
        return effective[taken - first]

    def frames(self, counts: Sequence[int], y: slice, x: slice) -> FloatArray:
        """What a tile shows after each of these counts of acquisitions, ascending: (count, band, y, x), physical."""
        bands = self.base.shape[0]
        newest = self.newest[:, y, x]
        out = np.empty((len(counts), bands, *newest.shape[1:]), np.float32)
        frame = self._gather(newest[counts[0]], y, x)
        taken = counts[0]
        for row, count in enumerate(counts):
            # Each image differs from the one before by the new pixels only: a masked copy of a few images costs a
            # fifth of gathering every pixel of every frame.
            for number in range(taken + 1, count + 1):
                valid = newest[number] == number
                if valid.any():
                    np.copyto(frame, self.physical(self.raw[number - 1, :, y, x]), where=valid)
            taken = count
            out[row] = frame
        return out

    def _gather(self, newest: npt.NDArray[np.int16], y: slice, x: slice) -> FloatArray:
        frame = self.base[:, y, x].copy()
        for number in np.unique(newest):
            if number:
                np.copyto(frame, self.physical(self.raw[number - 1, :, y, x]), where=newest == number)
        return frame


@dataclass(frozen=True)
class BrickPlan:
    """A brick before it is read: rows and columns, its tiles, its windows (indices into the labels'), its steps.

    `first` and `last` are the brick's first and last step, inclusive; `nbytes` is what it will hold.
    """

    cube: int
    y: slice
    x: slice
    tiles: tuple[PlannedTile, ...]
    windows: tuple[int, ...]
    first: int
    last: int
    nbytes: int

    @property
    def size(self) -> int:
        """Samples: tiles times windows."""
        return len(self.tiles) * len(self.windows)


@dataclass(frozen=True, eq=False)
class Brick:
    """Streams and labels of a brick, and which of its samples hold change, or any pixel that counts.

    `truth` is (window, y, x); `strongest`, a tile's highest label (0 where none counts), and `counted` are
    (window, tile).
    """

    plan: BrickPlan
    streams: Mapping[str, BrickStream]
    truth: FloatArray
    strongest: FloatArray
    counted: BoolArray

    def place(self, tile: PlannedTile, size: int) -> tuple[slice, slice]:
        """Rows and columns of a tile within the brick."""
        top, left = tile.y - self.plan.y.start, tile.x - self.plan.x.start
        return slice(top, top + size), slice(left, left + size)


def plan_bricks(
    cube: Cube,
    labels: LabelReader,
    *,
    number: int,
    sources: Sequence[str],
    tiles: Sequence[PlannedTile],
    tile: int,
    windows: Sequence[int],
    target_bytes: int,
) -> Iterator[BrickPlan]:
    """Cut a cube's tiles and windows into bricks of at most `target_bytes`, or of one window where that is too little.

    Tiles are grouped by the chunk of the cube in which they begin, so that a chunk is read for few bricks. `windows`
    are indices into the labels' windows, in order of time; `number` is kept as `BrickPlan.cube`.
    """
    newest = {source: latest_index(cube.times(source), labels.steps) for source in sources}
    each = {source: (len(cube.bands(source)), np.dtype(cube.attributes(source).dtype).itemsize) for source in sources}

    def brick(run: Sequence[int], members: Sequence[PlannedTile]) -> BrickPlan:
        y, x = (slice(min(starts), max(starts) + tile) for starts in zip(*((t.y, t.x) for t in members), strict=True))
        first = min(labels.windows[n].first for n in run)
        last = max(labels.windows[n].last for n in run)
        images = sum(
            int(newest[source][last] - newest[source][first]) * (bands * itemsize + 2) + bands * 4 + 2
            for source, (bands, itemsize) in each.items()
        )
        nbytes = (y.stop - y.start) * (x.stop - x.start) * (images + 4 * len(run))
        return BrickPlan(number, y, x, tuple(members), tuple(run), first, last, nbytes)

    groups: dict[tuple[int, int], list[PlannedTile]] = {}
    for item in tiles:
        groups.setdefault((item.y // CHUNK, item.x // CHUNK), []).append(item)
    for members in groups.values():
        start = 0
        while start < len(windows):
            # The longest run that fits, by bisection: the bytes grow with the run.
            low, high = start + 1, len(windows)
            while low < high:
                middle = (low + high + 1) // 2
                fits = brick(windows[start:middle], members).nbytes <= target_bytes
                low, high = (middle, high) if fits else (low, middle - 1)
            yield brick(windows[start:low], members)
            start = low


def read_brick(
    plan: BrickPlan, cube: Cube, labels: LabelReader, *, sources: Sequence[str], tile: int, look_back: bool
) -> Brick:
    """Read a brick; `look_back` as in `timeline.block_timeline`."""
    steps = labels.steps[plan.first : plan.last + 1]
    streams = {source: _read_stream(cube, source, (plan.y, plan.x), steps, look_back=look_back) for source in sources}
    truth = np.concatenate([labels.read(run, plan.y, plan.x) for run in _runs(plan.windows)])
    shape = len(plan.windows), len(plan.tiles)
    strongest, counted = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    brick = Brick(plan, streams, truth, strongest, counted)
    for column, item in enumerate(plan.tiles):
        part = truth[(slice(None), *brick.place(item, tile))]
        strongest[:, column] = np.nan_to_num(part, nan=0.0).max(axis=(1, 2))
        counted[:, column] = ~np.isnan(part).all(axis=(1, 2))
    return brick


def _read_stream(
    cube: Cube, name: str, region: tuple[slice, slice], steps: TimeArray, *, look_back: bool
) -> BrickStream:
    newest = latest_index(cube.times(name), steps)
    begin, stop = int(newest[0]) + 1, int(newest[-1]) + 1
    raw, mask = cube.read_raw(name, slice(begin, stop), *region)
    numbers = np.zeros((len(raw) + 1, *mask.shape[1:]), np.int16)
    np.multiply(mask == 0, np.arange(1, len(raw) + 1, dtype=np.int16)[:, None, None], out=numbers[1:])
    np.maximum.accumulate(numbers, axis=0, out=numbers)
    return BrickStream(
        base=_base(cube, name, region, begin, look_back=look_back),
        raw=raw.transpose(0, 3, 1, 2),
        newest=numbers,
        taken=newest - newest[0],
        physical=lambda values: cube.physical(name, values),
    )


def _base(cube: Cube, name: str, region: tuple[slice, slice], stop: int, *, look_back: bool) -> FloatArray:
    """What pixels (band, y, x) show after the first `stop` acquisitions; the first valid value, or 0, before any."""
    rows, columns = region
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    frame = np.zeros((*shape, len(cube.bands(name))), np.float32)
    waiting = np.ones(shape, np.bool_)
    behind = range(stop, len(cube.times(name)), READ_BATCH) if look_back else ()
    parts = [(slice(max(end - READ_BATCH, 0), end), -1) for end in range(stop, 0, -READ_BATCH)]
    for part, direction in [*parts, *((slice(start, start + READ_BATCH), 1) for start in behind)]:
        if not waiting.any():
            break
        values, mask = cube.read(name, part, *region)
        for image, hidden in zip(values[::direction], mask[::direction], strict=True):
            fresh = (hidden == 0) & waiting
            np.copyto(frame, image, where=fresh[..., None])
            waiting &= ~fresh
    return np.ascontiguousarray(frame.transpose(2, 0, 1))


def _runs(numbers: Sequence[int]) -> Iterator[slice]:
    """Ascending numbers as runs of consecutive ones."""
    ordered = np.asarray(numbers)
    for run in np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


class BrickCache:
    """The bricks used last, within a budget of bytes."""

    def __init__(self, read: Callable[[BrickPlan], Brick], *, budget_bytes: int) -> None:
        self._read = read
        self._budget = budget_bytes
        self._held: OrderedDict[int, Brick] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int, plan: BrickPlan) -> Brick:
        """The brick of this number, read if it is not held."""
        with self._lock:
            if number in self._held:
                self._held.move_to_end(number)
                return self._held[number]
            # Room is made before reading: the budget bounds what is held at any time.
            while self._held and self._bytes() + plan.nbytes > self._budget:
                self._held.popitem(last=False)
            self._held[number] = self._read(plan)
            return self._held[number]

    def _bytes(self) -> int:
        return sum(brick.plan.nbytes for brick in self._held.values())


def bricks_at_once(plans: Sequence[BrickPlan], *, most: int, budget_bytes: int) -> int:
    """Bricks to draw from side by side, while as many are read ahead.

    Raises
    ------
    ConfigError
        If the budget is too small for two.
    """
    largest = max(plan.nbytes for plan in plans)
    if 2 * largest > budget_bytes:
        raise ConfigError(
            f"a budget of {budget_bytes / 1e6:.0f} MB for training samples is too small: one window of a block of "
            f"pixels takes {largest / 1e6:.0f} MB, and two are needed; allow at least {2 * largest / 1e6:.0f} MB"
        )
    return max(1, min(most, budget_bytes // (2 * largest)))
