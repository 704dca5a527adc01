"""A labelling as plain data: its windows, blocks, inputs and rule."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from urbandelta.assemble import Moment
from urbandelta.errors import LabelError, TooFewObservations
from urbandelta.grid import blocks
from urbandelta.indices import ROLES, check_shift
from urbandelta.label_dates import DateRaster
from urbandelta.labels import DEFAULT_SHIFT, HOLD, MARGIN
from urbandelta.looks import log_ratios, looks_of_ratios
from urbandelta.omnibus import check_looks, check_mode
from urbandelta.plan import cube_steps
from urbandelta.store import Cube
from urbandelta.types import TimeArray, Window
from urbandelta.windows import find_windows

BLOCK_SIZES = {128: 512, 64: 65, 32: 1}
"""Blocks, tried in this order, and the shortest side of a grid that each is for; whole published tiles."""
LOOKS_PATCHES, LOOKS_PATCH_PX = 5, 16
"""Looks are estimated from 5 x 5 patches of 16 px, spread over the area."""

Region: TypeAlias = tuple[slice, slice]
Looks: TypeAlias = float | Literal["auto"]


@dataclass(frozen=True)
class LabelInputs:
    """Which bands of which streams the rule reads, as indices among the bands that the cube holds."""

    sar: Mapping[str, tuple[int, ...]]
    optical: str
    optical_bands: tuple[int, ...]

    @classmethod
    def of(cls, cube: Cube, mode: str) -> LabelInputs:
        """The inputs that a cube has; raises `LabelError` if the rule lacks some."""
        era = cube.era
        optical = era.optical_streams[0]
        wanted = tuple(optical.bands[optical.index(role)] for role in ROLES)
        present = cube.bands(optical.name) if optical.name in cube.streams else ()
        missing = [band for band in wanted if band not in present]
        if missing:
            raise LabelError(
                f"{cube.url}: synthetic labels need {', '.join(wanted)} of stream {optical.name}, and it lacks "
                f"{', '.join(missing)}; import them, or label from dates (--from-dates)"
            )
        sar: dict[str, tuple[int, ...]] = {}
        for stream in era.sar_streams:
            held = cube.bands(stream.name) if stream.name in cube.streams else ()
            sar[stream.name] = tuple(held.index(band) for band in stream.bands if band in held)
            if mode == "reference" and len(sar[stream.name]) < len(stream.bands):
                raise LabelError(
                    f"{cube.url}: the published label needs {', '.join(stream.bands)} of stream {stream.name}; import "
                    "them or use --mode corrected, which makes do with one orbit or polarisation"
                )
        sar = {stream: bands for stream, bands in sar.items() if bands}
        if not sar:
            raise LabelError(
                f"{cube.url}: holds no radar; synthetic labels need some, or label from dates (--from-dates)"
            )
        return cls(sar, optical.name, tuple(present.index(band) for band in wanted))


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelPlan:
    """A labelling decided: windows, blocks and the rule. `dates` is None for synthetic labels, `inputs` for others."""

    cube: Cube
    mode: str
    shift: float
    looks: float
    start: np.datetime64
    end: np.datetime64
    stride: int
    steps: TimeArray
    windows: tuple[Window, ...]
    block_px: int
    regions: tuple[Region, ...]
    dates: DateRaster | None
    inputs: LabelInputs | None

    @property
    def identity(self) -> dict[str, Any]:
        """All that the labels depend on, as JSON values; a resumed run must have the same."""
        digest = hashlib.sha256()
        for window in self.windows:
            digest.update(np.array([window.start, window.end], "datetime64[ns]").tobytes())
        rule = self.cube.era.label
        synthetic = {
            "mode": self.mode,
            "shift": self.shift,
            "looks": self.looks,
            "significance": rule.significance,
            "gain": rule.gain,
        }
        from_dates = {} if self.dates is None else {"dates_sha256": self.dates.sha256, "margin": MARGIN, "hold": HOLD}
        return {
            "rule": "synthetic" if self.dates is None else "dates",
            **(synthetic if self.dates is None else from_dates),
            "start": str(self.start),
            "end": str(self.end),
            "stride": self.stride,
            "cube_snapshot": self.cube.snapshot,
            "block_px": self.block_px,
            "windows_sha256": digest.hexdigest(),
        }


def plan_labels(
    cube: Cube,
    *,
    mode: str = "corrected",
    shift: float | None = None,
    looks: Looks | None = None,
    dates: str | Path | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
) -> LabelPlan:
    """Decide a labelling; parameters and errors as in `label_cube`. Reads pixels only to estimate looks."""
    era = cube.era
    check_mode(mode)
    shift = DEFAULT_SHIFT if shift is None else shift
    check_shift(shift)
    raster = None if dates is None else DateRaster.open(dates, cube.grid)
    inputs = LabelInputs.of(cube, mode) if raster is None else None
    steps, first, stop = cube_steps(cube, cube.streams or era.stream_names, start=start, end=end)
    stride = era.stride_training if stride is None else stride
    windows = find_windows(
        steps,
        length=np.timedelta64(era.window_days, "D"),
        min_obs=era.min_obs,
        max_obs=era.max_obs,
        stride=stride,
        triplets=raster is None,
    )
    if not windows:
        what = "window with one before and one after, each" if raster is None else "window"
        raise TooFewObservations(
            f"{cube.url}: no {what} of {era.window_days} days and {era.min_obs} steps or more, fits into the "
            f"{len(steps)} steps from {str(first)[:10]} to {str(stop)[:10]}; import more acquisitions, widen the range"
            + (", or label from dates (--from-dates), which needs single windows" if raster is None else "")
        )
    block_px = next(size for size, shortest in BLOCK_SIZES.items() if min(cube.grid.shape) >= shortest)
    return LabelPlan(
        cube=cube,
        mode=mode,
        shift=float(shift),
        looks=_looks(cube, looks) if raster is None else float(era.label.looks),
        start=first,
        end=stop,
        stride=stride,
        steps=steps,
        windows=tuple(windows),
        block_px=block_px,
        regions=tuple(block.core for block in blocks(cube.grid.shape, tile=block_px, halo=0, block=block_px)),
        dates=raster,
        inputs=inputs,
    )


def cube_looks(cube: Cube) -> float:
    """Looks of a cube's radar, estimated from patches spread over the area; see `looks.estimate_looks`."""
    found = []
    for stream in cube.era.sar_streams:
        if stream.name not in cube.streams:
            continue
        for region in _patches(cube.grid.shape):
            values, mask = cube.read(stream.name, slice(None), *region)
            found.append(log_ratios(values, mask == 0))
    return looks_of_ratios(np.concatenate(found) if found else np.empty(0))


def _looks(cube: Cube, looks: Looks | None) -> float:
    value = float(cube.era.label.looks) if looks is None else cube_looks(cube) if looks == "auto" else float(looks)
    value = max(value, 1.0) if looks == "auto" else value
    check_looks(value)
    return value


def _patches(shape: tuple[int, int]) -> Iterator[Region]:
    rows, columns = (
        sorted({int(start) for start in np.linspace(0, max(size - LOOKS_PATCH_PX, 0), LOOKS_PATCHES)}) for size in shape
    )
    for y in rows:
        for x in columns:
            yield slice(y, min(y + LOOKS_PATCH_PX, shape[0])), slice(x, min(x + LOOKS_PATCH_PX, shape[1]))
