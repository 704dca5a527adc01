"""The pixels of a labelling: a block's part of the betas, and its labels.

Both go through a block's steps in time and keep no more of them than a window and its neighbours span.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbandelta.indices import ROLES, beta_of, coefficients_of, corrected_sums, published_means
from urbandelta.label_plan import LabelInputs, LabelPlan, Region
from urbandelta.labels import label_of_parts, window_mean
from urbandelta.plan import READ_BATCH
from urbandelta.timeline import StepView, block_timeline
from urbandelta.types import Array, BoolArray, FloatArray, Window

PUBLISHED_TILE_PX = 32
"""The published betas are sums of means over tiles; pixels beyond the last whole tile do not count."""

_BANDS = tuple(range(len(ROLES)))


class _Recent:
    """The latest steps of some arrays, so that any run of them is a view; earlier ones are forgotten."""

    def __init__(self, keep: int, shapes: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        # Half as long again as what is asked for: steps are moved to the front now and then, not each time.
        self._size = keep + max(keep // 2, 1)
        self._keep = keep
        self._arrays = {name: np.empty((self._size, *shape), kind) for name, (shape, kind) in shapes.items()}
        self._base = 0
        self._count = 0

    def push(self, step: Mapping[str, Array]) -> None:
        if self._count == self._size:
            drop = self._size - self._keep
            for array in self._arrays.values():
                array[: self._keep] = array[drop:].copy()
            self._base += drop
            self._count = self._keep
        for name, values in step.items():
            self._arrays[name][self._count] = values
        self._count += 1

    def view(self, name: str, window: Window) -> Array:
        return self._arrays[name][window.first - self._base : window.last + 1 - self._base]


def _beside(window: Window) -> tuple[Window, Window]:
    assert window.previous is not None
    assert window.following is not None
    return window.previous, window.following


def _inputs(plan: LabelPlan) -> LabelInputs:
    assert plan.inputs is not None
    return plan.inputs


def _walk(plan: LabelPlan, sources: Sequence[str], region: Region, last: int) -> Iterator[StepView]:
    return block_timeline(plan.cube, sources, region, plan.steps[: last + 1], look_back=False, batch=READ_BATCH)


def block_beta_sums(plan: LabelPlan, region: Region) -> npt.NDArray[np.float64]:
    """A block's part of the betas, (window, before or after, 4): sums of blue, ratio and MNDWI squared, and a count."""
    inputs = _inputs(plan)
    shape = (region[0].stop - region[0].start, region[1].stop - region[1].start)
    sums = np.zeros((len(plan.windows), 2, 4))
    due: dict[int, list[tuple[int, int, Window]]] = {}
    for number, window in enumerate(plan.windows):
        previous, following = _beside(window)
        # Published: the first beta comes from the window itself.
        before = window if plan.mode == "reference" else previous
        for side, part in enumerate((before, following)):
            due.setdefault(part.last, []).append((number, side, part))
    keep = max(part.count for parts in due.values() for _, _, part in parts)
    recent = _Recent(keep, {"optical": ((*shape, len(ROLES)), np.float32)})
    for view in _walk(plan, [inputs.optical], region, max(due)):
        recent.push({"optical": view.frames[inputs.optical][..., inputs.optical_bands]})
        for number, side, part in due.get(view.step, ()):
            mean = window_mean(recent.view("optical", part), _BANDS, mode=plan.mode)
            sums[number, side] = _area_sums(mean, plan)
    return sums


def _area_sums(mean: FloatArray, plan: LabelPlan) -> npt.NDArray[np.float64]:
    if plan.mode == "corrected":
        sums, count = corrected_sums(mean[0], mean[1], mean[2], mean[3])
        return np.array([*sums, count])
    mean = np.where(np.isnan(mean), np.float32(0), mean)
    height, width = (min(PUBLISHED_TILE_PX, size) for size in plan.cube.grid.shape)
    total = np.zeros(4)
    for y in range(0, mean.shape[1] - height + 1, height):
        for x in range(0, mean.shape[2] - width + 1, width):
            tile = mean[:, y : y + height, x : x + width]
            total += [*published_means(tile[0], tile[1], tile[2], tile[3]), 1]
    return total


def betas_of(sums: npt.NDArray[np.float64], mode: str) -> npt.NDArray[np.float64]:
    """Betas (window, 2) from the sums over all blocks (window, 2, 4)."""

    def beta(four: npt.NDArray[np.float64]) -> float:
        return beta_of([coefficients_of(four[:3], int(four[3])) if mode == "corrected" else four[:3]])

    return np.array([[beta(side) for side in window] for window in sums])


def block_labels(plan: LabelPlan, betas: npt.NDArray[np.float64], region: Region) -> FloatArray:
    """Labels (window, y, x) of a block."""
    inputs = _inputs(plan)
    shape = (region[0].stop - region[0].start, region[1].stop - region[1].start)
    labels = np.full((len(plan.windows), *shape), np.nan, np.float32)
    due: dict[int, list[int]] = {}
    for number, window in enumerate(plan.windows):
        due.setdefault(_beside(window)[1].last, []).append(number)
    keep = max(_beside(window)[1].last - _beside(window)[0].first + 1 for window in plan.windows)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {"optical": ((*shape, len(ROLES)), np.float32)}
    for stream, bands in inputs.sar.items():
        shapes[stream] = ((*shape, len(bands)), np.float32)
        shapes[f"{stream} updated"] = (shape, np.bool_)
    recent = _Recent(keep, shapes)
    for view in _walk(plan, [*inputs.sar, inputs.optical], region, max(due)):
        step: dict[str, Array] = {"optical": view.frames[inputs.optical][..., inputs.optical_bands]}
        for stream, bands in inputs.sar.items():
            step[stream] = view.frames[stream][..., bands]
            step[f"{stream} updated"] = view.updated[stream]
        recent.push(step)
        for number in due.get(view.step, ()):
            labels[number] = _label(plan, inputs, recent, number, betas[number])
    return labels


def _label(
    plan: LabelPlan, inputs: LabelInputs, recent: _Recent, number: int, betas: npt.NDArray[np.float64]
) -> FloatArray:
    window = plan.windows[number]
    corrected = plan.mode == "corrected"
    before, after = (window_mean(recent.view("optical", part), _BANDS, mode=plan.mode) for part in _beside(window))
    orbits: list[tuple[Array, BoolArray | None]] = [
        (recent.view(stream, window), recent.view(f"{stream} updated", window) if corrected else None)
        for stream in inputs.sar
    ]
    return label_of_parts(
        orbits,
        before,
        after,
        era=plan.cube.era,
        betas=betas,
        shift=plan.shift,
        mode=plan.mode,
        looks=plan.looks,
    )
