"""Runs of windows in which a pixel's score stays high: what dates and events are made of.

A window flags a change that lies inside it, and neighbouring windows overlap almost wholly, so one change raises the
scores of a run of windows. A run is what lies between two windows below `low`; it counts if it reaches `threshold`
(hysteresis). Only runs are kept, a few numbers each: the array of scores is read once, block by block, and memory
depends on the block and on the number of runs, never on the number of windows times the area.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.flanks import Edges, edges_of
from urbandelta.types import Array, BoolArray, FloatArray, TimeArray

BLOCK_BYTES = 96 * 2**20
"""All windows of a block of pixels; working copies of the pixels that have runs come on top."""
_RUN_VALUES = 2**20
"""Scores of pixels that are cut into runs at once."""
NONE = -1


@dataclass(frozen=True, eq=False)
class WindowTable:
    """The windows of a store in order of time; all arrays are (window,)."""

    order: npt.NDArray[np.intp]
    """Positions in the store."""
    start: npt.NDArray[np.float64]
    """Days since 1970-01-01, with the time of day as a fraction."""
    end: npt.NDArray[np.float64]
    start_time: TimeArray
    settled: BoolArray
    """Whether no later acquisition can change the window."""
    n_obs: npt.NDArray[np.int32]

    @classmethod
    def of(cls, scores: xr.Dataset) -> WindowTable:
        """The windows of a score store; those of a store that does not say so are all settled."""
        times = scores["window_start"].values.astype("datetime64[ns]")
        order = np.argsort(times, kind="stable")
        count = order.size
        provisional = scores["provisional"].values if "provisional" in scores.variables else np.zeros(count, bool)
        observed = scores["n_obs"].values if "n_obs" in scores.variables else np.zeros(count)
        return cls(
            order=order,
            start=_days(times[order]),
            end=_days(scores["window_end"].values[order]),
            start_time=times[order],
            settled=~np.asarray(provisional, bool)[order],
            n_obs=np.asarray(observed)[order].astype(np.int32),
        )

    def __len__(self) -> int:
        return int(self.order.size)

    @property
    def settled_count(self) -> int:
        """Number of leading windows that are settled: what happened in them stays as it is."""
        unsettled = np.flatnonzero(~self.settled)
        return int(unsettled[0]) if unsettled.size else len(self)


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of many pixels, ordered by pixel, then time; all arrays are (run,), windows are positions in time order."""

    pixel: npt.NDArray[np.int64]
    """Row times width plus column."""
    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    """First and last window of the run, both inclusive."""
    peak: FloatArray
    peak_at: npt.NDArray[np.int32]
    """The earliest window with the highest score."""
    spread: FloatArray
    """Standard deviation of an ensemble's members in that window; NaN without an ensemble."""
    above: npt.NDArray[np.int32]
    """Number of windows that reach the threshold; 0 in runs that do not."""
    above_first: npt.NDArray[np.int32]
    above_last: npt.NDArray[np.int32]
    """First and last window that reaches the threshold, -1 if none does."""
    settled_above: npt.NDArray[np.int32]
    """Number of settled windows that reach the threshold."""
    settled_first: npt.NDArray[np.int32]
    settled_last: npt.NDArray[np.int32]
    """First and last settled window that reaches the threshold, -1 if none does."""
    edges: Edges

    def __len__(self) -> int:
        return int(self.pixel.size)

    def take(self, index: Array) -> Runs:
        """Some of the runs, by mask or by index."""
        taken: Runs = _map(lambda values: values[index], [self])
        return taken

    @staticmethod
    def concatenate(parts: Sequence[Runs]) -> Runs:
        """Runs of several blocks as one table, in order of pixel and time, whatever the order of the blocks."""
        joined: Runs = _map(lambda *values: np.concatenate(values), parts)
        return joined.take(np.lexsort((joined.first, joined.pixel)))


def _map(function: Any, parts: Sequence[Any]) -> Any:
    """Apply a function to each array of tables of one kind, nested ones too."""
    kind = type(parts[0])
    values = {}
    for item in fields(kind):
        members = [getattr(part, item.name) for part in parts]
        values[item.name] = function(*members) if isinstance(members[0], np.ndarray) else _map(function, members)
    return kind(**values)


def find_runs(scores: xr.Dataset, *, threshold: float, low: float, floor: float | None = None) -> Runs:
    """Every run of a score store.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    threshold, low : float
        A run holds windows of at least `low`; it has `above` windows of at least `threshold`.
    floor : float, optional
        Leave out runs that do not reach this; by default all are kept.
    """
    windows = WindowTable.of(scores)
    score = scores["score"].transpose("window", "y", "x")
    spread = scores["spread"].transpose("window", "y", "x") if "spread" in scores else None
    width = score.sizes["x"]
    parts = []
    for y, x in column_blocks(score):
        values = _read(score, windows, y, x)
        rows, columns = np.nonzero(values.max(axis=0) >= max(low, floor or low))
        pixel = (rows + y.start).astype(np.int64) * width + columns + x.start
        members = _read(spread, windows, y, x) if spread is not None and rows.size else None
        # A few pixels at a time: noisy pixels have many runs, each as long as the series while it is made.
        for part in _slices(rows.size, max(1, _RUN_VALUES // len(windows))):
            series = np.ascontiguousarray(values[:, rows[part], columns[part]].T)
            runs, at = _runs_of(series, pixel[part], windows, threshold, low)
            if members is not None:
                runs.spread[:] = members[runs.peak_at, rows[part][at], columns[part][at]]
            parts.append(runs if floor is None else runs.take(runs.peak >= floor))
    if not parts:
        parts.append(
            _runs_of(np.zeros((0, len(windows)), np.float32), np.zeros(0, np.int64), windows, threshold, low)[0]
        )
    return Runs.concatenate(parts)


def linked_runs(
    runs: Runs, width: int, *, connectivity: Literal[4, 8] = 8
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of runs of neighbouring pixels that share a window; `runs` as `find_runs` orders them."""
    steps = ((0, 1), (1, 0)) if connectivity == 4 else ((0, 1), (1, -1), (1, 0), (1, 1))
    row, column = np.divmod(runs.pixel, width)
    ones, others = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for down, right in steps:
        target = np.where((column + right >= 0) & (column + right < width), (row + down) * width + column + right, NONE)
        begin, stop = (np.searchsorted(runs.pixel, target, side=side) for side in ("left", "right"))
        count = stop - begin
        one = np.repeat(np.arange(len(runs)), count)
        # The runs of each target pixel, one after the other.
        other = np.arange(one.size) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)
        shared = (runs.first[one] <= runs.last[other]) & (runs.first[other] <= runs.last[one])
        ones.append(one[shared])
        others.append(other[shared])
    return np.concatenate(ones), np.concatenate(others)


def column_blocks(score: xr.DataArray) -> Iterator[tuple[slice, slice]]:
    """Blocks of pixels `(y, x)` whose scores of all windows fit `BLOCK_BYTES`: whole chunks, or parts of one."""
    chunks = score.encoding.get("preferred_chunks", {})
    pixels = max(1, BLOCK_BYTES // (4 * score.sizes["window"]))
    sides = [min(int(chunks.get(axis, 256)), score.sizes[axis]) for axis in ("y", "x")]
    while sides[0] * sides[1] > pixels and max(sides) > 1:
        longer = int(sides[1] > sides[0])
        sides[longer] = -(-sides[longer] // 2)
    # Whole rows of chunks where they fit: fewer and larger reads.
    sides[1] *= max(1, min(pixels // (sides[0] * sides[1]), -(-score.sizes["x"] // sides[1])))
    for row in range(0, score.sizes["y"], sides[0]):
        for column in range(0, score.sizes["x"], sides[1]):
            yield (
                slice(row, min(row + sides[0], score.sizes["y"])),
                slice(column, min(column + sides[1], score.sizes["x"])),
            )


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _read(array: xr.DataArray, windows: WindowTable, y: slice, x: slice) -> FloatArray:
    """All windows of a block in order of time, 0 where nothing was scored."""
    # A copy: scores in memory are the caller's.
    values = np.array(array[:, y, x].values, np.float32)
    if (np.diff(windows.order) != 1).any():
        values = values[windows.order]
    return np.nan_to_num(values, copy=False, nan=0.0)


def _runs_of(
    series: FloatArray, pixel: npt.NDArray[np.int64], windows: WindowTable, threshold: float, low: float
) -> tuple[Runs, npt.NDArray[np.intp]]:
    """Runs of `series` (pixel, window), and to which row of it each belongs."""
    pixels, count = series.shape
    inside = np.zeros((pixels, count + 2), np.int8)
    inside[:, 1:-1] = series >= low
    step = np.diff(inside, axis=1)
    at, first = np.nonzero(step == 1)
    last = np.nonzero(step == -1)[1] - 1
    position = np.arange(count)
    within = (position >= first[:, None]) & (position <= last[:, None])
    own = np.where(within, series[at], np.float32(-1))
    peak_at = own.argmax(axis=1)
    above = own >= threshold
    sure = above & windows.settled
    runs = Runs(
        pixel=pixel[at],
        first=first.astype(np.int32),
        last=last.astype(np.int32),
        peak=own[np.arange(at.size), peak_at],
        peak_at=peak_at.astype(np.int32),
        spread=np.full(at.size, np.nan, np.float32),
        above=above.sum(axis=1, dtype=np.int32),
        above_first=_where_first(above),
        above_last=_where_last(above),
        settled_above=sure.sum(axis=1, dtype=np.int32),
        settled_first=_where_first(sure),
        settled_last=_where_last(sure),
        edges=edges_of(series, at, peak_at, windows.start, windows.end),
    )
    return runs, at


def _where_first(flags: BoolArray) -> npt.NDArray[np.int32]:
    return np.where(flags.any(axis=1), flags.argmax(axis=1), NONE).astype(np.int32)


def _where_last(flags: BoolArray) -> npt.NDArray[np.int32]:
    return np.where(flags.any(axis=1), flags.shape[1] - 1 - flags[:, ::-1].argmax(axis=1), NONE).astype(np.int32)


def _days(times: TimeArray) -> npt.NDArray[np.float64]:
    seconds: npt.NDArray[np.float64] = times.astype("datetime64[s]").astype(np.float64)
    return seconds / 86_400
