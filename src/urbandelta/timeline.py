"""A block of a cube in time order: at each step, what every pixel shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urbandelta.assemble import latest_index
from urbandelta.store import Cube
from urbandelta.types import BoolArray, FloatArray, MaskArray, TimeArray


@dataclass(frozen=True, eq=False)
class StepView:
    """The state of all streams at one step. The arrays change with the next step: copy what must last.

    `frames` (y, x, band) carry each pixel's latest valid value; `updated` (y, x) says which pixels got a new one since the
    step before, `seen` (y, x) which have had any. All by the name of the cube's stream.
    """

    step: int
    frames: Mapping[str, FloatArray]
    updated: Mapping[str, BoolArray]
    seen: Mapping[str, BoolArray]


class _StreamReader:
    """One stream's acquisitions over a region, read a few at a time, oldest first."""

    def __init__(self, cube: Cube, name: str, region: tuple[slice, slice], *, batch: int) -> None:
        self._cube, self._name, self._region, self._size = cube, name, region, batch
        self.count = len(cube.times(name))
        self._first = 0
        self._batch: tuple[FloatArray, MaskArray] | None = None

    def acquisition(self, index: int) -> tuple[FloatArray, BoolArray]:
        """Values (y, x, band) and validity (y, x) of one acquisition; indices must not go back beyond the batch."""
        if self._batch is None or not self._first <= index < self._first + len(self._batch[0]):
            self._first = index
            stop = min(index + self._size, self.count)
            self._batch = self._cube.read(self._name, slice(index, stop), *self._region)
        values, mask = self._batch
        return values[index - self._first], mask[index - self._first] == 0


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
        What a pixel shows before it is first seen: its first valid value (True), since a zero would look like the greatest
        change of all; or 0, as published (False). A pixel never seen shows 0.
    batch : int
        Acquisitions read at a time.
    """
    shape = (region[0].stop - region[0].start, region[1].stop - region[1].start)
    readers = {name: _StreamReader(cube, name, region, batch=batch) for name in sources}
    newest = {name: latest_index(cube.times(name), steps) for name in sources}
    frames = {name: np.zeros((*shape, len(cube.bands(name))), np.float32) for name in sources}
    seen = {name: np.zeros(shape, np.bool_) for name in sources}
    if look_back:
        for name in sources:
            _fill_first(_StreamReader(cube, name, region, batch=batch), frames[name])
    taken = dict.fromkeys(sources, -1)
    for step in range(len(steps)):
        updated = {name: np.zeros(shape, np.bool_) for name in sources}
        for name in sources:
            for index in range(taken[name] + 1, int(newest[name][step]) + 1):
                values, valid = readers[name].acquisition(index)
                np.copyto(frames[name], values, where=valid[..., None])
                updated[name] |= valid
                taken[name] = index
            seen[name] |= updated[name]
        yield StepView(step, frames, updated, seen)


def _fill_first(reader: _StreamReader, frame: FloatArray) -> None:
    """Give each pixel its first valid value; stops reading as soon as every pixel has one."""
    waiting = np.ones(frame.shape[:2], np.bool_)
    for index in range(reader.count):
        if not waiting.any():
            return
        values, valid = reader.acquisition(index)
        np.copyto(frame, values, where=(valid & waiting)[..., None])
        waiting &= ~valid
