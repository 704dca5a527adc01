"""A block of a cube in time order: at each step, what every pixel shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from urbandelta.assemble import latest_index
from urbandelta.store import Cube
from urbandelta.types import BoolArray, FloatArray, MaskArray, TimeArray


@dataclass(frozen=True, eq=False)
class StepView:
    """The state of all streams at one step. The arrays change with the next step: copy what must last.

    `frames` (y, x, band) carry each pixel's latest valid value; `updated` (y, x) says which pixels got a new one
    since the step before, `seen` (y, x) which have had any. All by the name of the cube's stream.
    """

    step: int
    frames: Mapping[str, FloatArray]
    updated: Mapping[str, BoolArray]
    seen: Mapping[str, BoolArray]


class _StreamReader:
    """One stream's acquisitions over a region, oldest first, a few at a time and one batch ahead."""

    def __init__(
        self, cube: Cube, name: str, region: tuple[slice, slice], *, first: int, batch: int, ahead: Executor
    ) -> None:
        self._cube, self._name, self._region, self._size = cube, name, region, batch
        self._ahead = ahead
        self.count = len(cube.times(name))
        self._first = first - batch
        self._batch: tuple[FloatArray, MaskArray] | None = None
        self._next: Future[tuple[FloatArray, MaskArray]] | None = None

    def acquisition(self, index: int) -> tuple[FloatArray, BoolArray]:
        """Values (y, x, band) and validity (y, x) of one acquisition; to be asked for in order, from `first`."""
        if index >= self._first + self._size:
            self._first += self._size
            self._batch = (self._next or self._fetch(self._first)).result()
            following = self._first + self._size
            self._next = self._fetch(following) if following < self.count else None
        assert self._batch is not None
        values, mask = self._batch
        return values[index - self._first], mask[index - self._first] == 0

    def _fetch(self, first: int) -> Future[tuple[FloatArray, MaskArray]]:
        span = slice(first, min(first + self._size, self.count))
        return self._ahead.submit(self._cube.read, self._name, span, *self._region)


def block_timeline(
    cube: Cube,
    sources: Sequence[str],
    region: tuple[slice, slice],
    steps: TimeArray,
    *,
    look_back: bool,
    batch: int,
) -> Iterator[StepView]:
    """Go through the steps of a region of a cube.

    Parameters
    ----------
    cube : Cube
    sources : sequence of str
        Streams to read.
    region : (slice, slice)
        Rows and columns.
    steps : ndarray, shape (step,)
        Ascending; acquisitions up to each step are taken in before it.
    look_back : bool
        What a pixel shows before it is first seen: its first valid value (True), since a zero would look like the
        greatest change of all; or 0, as published (False). A pixel never seen shows 0.
    batch : int
        Acquisitions read at a time.
    """
    shape = (region[0].stop - region[0].start, region[1].stop - region[1].start)
    newest = {name: latest_index(cube.times(name), steps) for name in sources}
    frames = {name: np.zeros((*shape, len(cube.bands(name))), np.float32) for name in sources}
    seen = {name: np.zeros(shape, np.bool_) for name in sources}
    taken = {name: int(newest[name][0]) for name in sources}
    for name in sources:
        _fill_latest(cube, name, region, frames[name], seen[name], before=taken[name] + 1, batch=batch)
        if look_back:
            _fill_first(cube, name, region, frames[name], ~seen[name], after=taken[name], batch=batch)
    with ThreadPoolExecutor(max_workers=1) as ahead:
        readers = {
            name: _StreamReader(cube, name, region, first=taken[name] + 1, batch=batch, ahead=ahead) for name in sources
        }
        for step in range(len(steps)):
            # What was seen up to the first step is new at it.
            updated = {name: seen[name].copy() if step == 0 else np.zeros(shape, np.bool_) for name in sources}
            for name in sources:
                for index in range(taken[name] + 1, int(newest[name][step]) + 1):
                    values, valid = readers[name].acquisition(index)
                    np.copyto(frames[name], values, where=valid[..., None])
                    updated[name] |= valid
                    taken[name] = index
                seen[name] |= updated[name]
            yield StepView(step, frames, updated, seen)


def _fill_latest(
    cube: Cube,
    name: str,
    region: tuple[slice, slice],
    frame: FloatArray,
    seen: BoolArray,
    *,
    before: int,
    batch: int,
) -> None:
    """Give each pixel its newest valid value of the acquisitions `before` an index, and note which have one.

    Goes back in time and stops as soon as every pixel has a value: where the series is long, that is soon.
    """
    for stop in range(before, 0, -batch):
        values, mask = cube.read(name, slice(max(stop - batch, 0), stop), *region)
        for n in range(len(values) - 1, -1, -1):
            fresh = (mask[n] == 0) & ~seen
            np.copyto(frame, values[n], where=fresh[..., None])
            seen |= fresh
        if seen.all():
            return


def _fill_first(
    cube: Cube,
    name: str,
    region: tuple[slice, slice],
    frame: FloatArray,
    waiting: BoolArray,
    *,
    after: int,
    batch: int,
) -> None:
    """Give each `waiting` pixel its first valid value `after` an index; stops reading when all have one."""
    for first in range(after + 1, len(cube.times(name)), batch):
        if not waiting.any():
            return
        for values, mask in zip(*cube.read(name, slice(first, first + batch), *region), strict=True):
            fresh = (mask == 0) & waiting
            np.copyto(frame, values, where=fresh[..., None])
            waiting &= ~fresh
