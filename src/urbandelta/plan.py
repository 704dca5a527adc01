"""A prediction as plain data: its steps, windows and blocks, and what it will cost. No pixel is read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from urbandelta.assemble import Moment, as_moment, time_steps
from urbandelta.blending import Blend
from urbandelta.engines.winograd import POSITIONS, Tiling
from urbandelta.eras import Era
from urbandelta.errors import ConfigError, TooFewObservations
from urbandelta.grid import Block, blocks, tiles
from urbandelta.network import NetworkConfig
from urbandelta.recurrence import open_windows
from urbandelta.store import Cube
from urbandelta.types import TimeArray, Window
from urbandelta.windows import find_windows

BLOCK_PX = 128
"""Output of a block along an axis, at most: the chunk of a cube, so that a chunk is decoded once or twice."""
STATE_BUDGET_BYTES = 350_000_000
"""States that a block may hold. Not a share of this machine's memory: a plan is the same everywhere."""
TILE_SIZES = {128: 512, 64: 65, 32: 1}
"""Default tiles, tried in this order, and the shortest side of a grid that each is for: a small grid takes small
tiles, so that all workers have something to do."""
HALO_PX = 16
"""Measured with the published weights: a halo of 16 px moves scores by 0.00013 at most against no tiles at all, 8 px
by 0.017, 4 px by 0.13, none by 0.72."""
BASE_BYTES = 400_000_000
"""Measured: the interpreter, the libraries and the compiled kernels before the first block."""
READ_BATCH = 8
"""Acquisitions read at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictPlan:
    """What a prediction will do. `blend_px` is how far neighbouring tiles are blended into each other."""

    era: Era
    start: np.datetime64
    end: np.datetime64
    stride: int
    steps: TimeArray
    windows: tuple[Window, ...]
    tile: int
    halo: int
    blend_px: int
    block_px: int
    blocks: tuple[Block, ...]
    blend: Blend
    slots: int
    patch: tuple[int, int]

    @property
    def provisional(self) -> tuple[bool, ...]:
        """Of each window, whether it holds the newest step: then an acquisition to come may still change it."""
        newest = len(self.steps) - 1
        return tuple(window.last == newest for window in self.windows)

    def tail(self, first: int) -> PredictPlan:
        """The plan of the windows from `first` on alone: same tiles, same blocks, and so the same bits."""
        windows = self.windows[first:]
        origin = windows[0].first
        moved = tuple(
            dataclasses.replace(window, first=window.first - origin, last=window.last - origin) for window in windows
        )
        return dataclasses.replace(self, steps=self.steps[origin:], windows=moved, slots=open_windows(moved))

    @property
    def tile_count(self) -> int:
        """Tiles of all blocks."""
        return sum(len(block.tiles) for block in self.blocks)

    @property
    def window_tiles(self) -> int:
        """The unit of work: windows times tiles."""
        return len(self.windows) * self.tile_count

    @property
    def identity(self) -> dict[str, Any]:
        """All of the plan that the scores depend on, as JSON values."""
        digest = hashlib.sha256()
        for window in self.windows:
            digest.update(np.array([window.start, window.end], "datetime64[ns]").tobytes())
        return {
            "start": str(self.start),
            "end": str(self.end),
            "stride": self.stride,
            "tile": self.tile,
            "halo": self.halo,
            "blend_px": self.blend_px,
            "block_px": self.block_px,
            "windows_sha256": digest.hexdigest(),
        }


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan costs on a machine. Bytes are of decoded pixels; seconds None if nothing was timed."""

    windows: int
    steps: int
    blocks: int
    tiles: int
    window_tiles: int
    bytes_read: int
    peak_bytes: int
    output_bytes: int
    workers: int
    seconds: float | None


def cube_steps(
    cube: Cube, sources: Sequence[str], *, start: Moment | None = None, end: Moment | None = None
) -> tuple[TimeArray, np.datetime64, np.datetime64]:
    """Steps of a cube, with the range that they come from.

    The range defaults to the midnight before the first acquisition and the one after the last.

    Raises
    ------
    TooFewObservations
        If no acquisition lies in the range.
    ConfigError
        If the range is empty.
    """
    times = np.concatenate([cube.times(source) for source in sources])
    if not times.size:
        raise TooFewObservations(f"{cube.url}: no acquisitions yet; import or fetch some")
    day = np.timedelta64(1, "D")
    first = as_moment(times.min().astype("datetime64[D]") if start is None else start)
    stop = as_moment(times.max().astype("datetime64[D]") + day if end is None else end)
    if not first < stop:
        raise ConfigError(
            f"{cube.url}: empty date range: {_day(first)} is not before {_day(stop)}; the cube holds "
            f"{_day(times.min())} to {_day(times.max())}"
        )
    steps = time_steps(times, start=first, end=stop, step=np.timedelta64(cube.era.step_seconds, "s"))
    if not steps.size:
        raise TooFewObservations(
            f"{cube.url}: no acquisition between {_day(first)} and {_day(stop)}; it holds {_day(times.min())} to "
            f"{_day(times.max())}"
        )
    return steps, first, stop


def plan_prediction(
    cube: Cube,
    config: NetworkConfig,
    sources: Sequence[str],
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    tile: int | None = None,
    halo: int | None = None,
) -> PredictPlan:
    """Plan a prediction.

    Parameters
    ----------
    cube : Cube
    config : NetworkConfig
    sources : sequence of str
        The cube's streams that are read.
    start, end : moment, optional
        Half-open range of the steps; everything by default.
    stride : int, optional
        Steps between windows; the era's by default.
    tile, halo : int, optional
        Pixels. By default the largest of `TILE_SIZES` whose states fit into `STATE_BUDGET_BYTES`, with a halo of
        `HALO_PX`. With a halo, tiles are blended over half of it; `tile=32, halo=0` is the published tiling.

    Raises
    ------
    TooFewObservations
        If no window holds enough observations.
    ConfigError
        If an option is out of range.
    """
    era = cube.era
    stride = era.stride_inference if stride is None else stride
    steps, first, stop = cube_steps(cube, sources, start=start, end=end)
    length = np.timedelta64(era.window_days, "D")
    windows = find_windows(steps, length=length, min_obs=era.min_obs, max_obs=era.max_obs, stride=stride)
    if not windows:
        raise TooFewObservations(
            f"{cube.url}: no window of {era.window_days} days holds {era.min_obs} of the {len(steps)} steps between "
            f"{_day(first)} and {_day(stop)}; import more acquisitions or widen the range"
        )
    if (tile is not None and tile < 1) or (halo is not None and halo < 0):
        raise ConfigError(f"tile {tile}, halo {halo}: need a tile of at least 1 px and a halo of at least 0")
    halo = HALO_PX if halo is None else halo
    # Not by the windows that there are: a series that grows must keep its tiles, and with them its scores' bits.
    most = -(-era.max_obs // stride)
    if tile is None:
        tile = _default_tile(cube.grid.shape, config, most, halo)
    block_px = _block_px(cube.grid.shape, config, most, tile, halo)
    rows = tiles(cube.grid.shape, tile=tile, halo=halo)
    return PredictPlan(
        era=era,
        start=first,
        end=stop,
        stride=stride,
        steps=steps,
        windows=tuple(windows),
        tile=tile,
        halo=halo,
        blend_px=halo // 2,
        block_px=block_px,
        blocks=tuple(blocks(cube.grid.shape, tile=tile, halo=halo, block=block_px)),
        blend=Blend.of_tiles(rows, overlap=halo // 2),
        slots=open_windows(windows),
        patch=_patch(cube.grid.shape, tile, halo),
    )


def blocks_at_once(plan: PredictPlan, workers: int) -> int:
    """Blocks under way at a time: as many as it takes to give every worker a tile."""
    return min(-(-workers // len(plan.blocks[0].tiles)), len(plan.blocks))


def state_bytes(config: NetworkConfig, patch: tuple[int, int], slots: int) -> int:
    """Bytes of the states of one tile's open windows: two hidden maps and a cell, float32."""
    tiling = Tiling(*patch)
    filters = sum(config.path_filters(path) for path in config.paths)
    return slots * filters * POSITIONS * (2 * tiling.pitch + tiling.tiles) * 4


def _patch(shape: tuple[int, int], tile: int, halo: int) -> tuple[int, int]:
    """Size of the network's input for one tile; a grid smaller than a tile is one tile."""
    return min(tile, shape[0]) + 2 * halo, min(tile, shape[1]) + 2 * halo


def _default_tile(shape: tuple[int, int], config: NetworkConfig, slots: int, halo: int) -> int:
    for tile, shortest in TILE_SIZES.items():
        if min(shape) >= shortest and state_bytes(config, _patch(shape, tile, halo), slots) <= STATE_BUDGET_BYTES:
            return tile
    return min(TILE_SIZES)


def _block_px(shape: tuple[int, int], config: NetworkConfig, slots: int, tile: int, halo: int) -> int:
    each = state_bytes(config, _patch(shape, tile, halo), slots)
    for per_axis in range(max(1, BLOCK_PX // tile), 1, -1):
        if per_axis**2 * each <= STATE_BUDGET_BYTES:
            return per_axis * tile
    return tile


def estimate(
    cube: Cube,
    plan: PredictPlan,
    config: NetworkConfig,
    sources: Sequence[str],
    *,
    workers: int,
    seconds_per_window_tile: float | None = None,
) -> Estimate:
    """What a plan costs, from counts alone; `seconds_per_window_tile` is of one worker.

    Raises
    ------
    ConfigError
        If there is less than one worker.
    """
    if workers < 1:
        raise ConfigError(f"workers {workers}: need at least 1")
    last = plan.steps[plan.windows[-1].last]
    pixel_bytes = {
        source: np.dtype(cube.attributes(source).dtype).itemsize * len(cube.bands(source)) + 1 for source in sources
    }
    read = {source: int((cube.times(source) <= last).sum()) for source in sources}
    areas = [_area(block.patch) for block in plan.blocks]
    largest = max(range(len(areas)), key=areas.__getitem__)
    frames = sum(len(cube.bands(source)) * 4 * (READ_BATCH + 1) for source in sources) * areas[largest]
    states = len(plan.blocks[largest].tiles) * state_bytes(config, plan.patch, plan.slots)
    scores = _area(plan.blocks[largest].patch) * len(plan.windows) * 4
    at_once = blocks_at_once(plan, workers)
    return Estimate(
        windows=len(plan.windows),
        steps=len(plan.steps),
        blocks=len(plan.blocks),
        tiles=plan.tile_count,
        window_tiles=plan.window_tiles,
        bytes_read=sum(area * sum(read[s] * pixel_bytes[s] for s in sources) for area in areas),
        peak_bytes=BASE_BYTES + at_once * (states + frames) + (at_once + 1) * scores,
        output_bytes=len(plan.windows) * cube.grid.height * cube.grid.width * 4,
        workers=workers,
        seconds=None if seconds_per_window_tile is None else plan.window_tiles * seconds_per_window_tile / workers,
    )


def _area(region: tuple[slice, slice]) -> int:
    rows, columns = region
    return int(rows.stop - rows.start) * int(columns.stop - columns.start)


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))
