"""From a cube to scores: blocks computed side by side, committed one by one in the plan's order.

A run that was killed goes on after its last committed block and ends with the same bits, since a block's scores
depend on nothing but the cube, the weights and the plan.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path as FilePath
from queue import SimpleQueue
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import xarray as xr

from urbandelta import __version__
from urbandelta.assemble import Moment
from urbandelta.blending import Span
from urbandelta.engines import Engine, Session, engine_named
from urbandelta.errors import ConfigError, StoreError
from urbandelta.grid import Block, Grid, Tile, mirrored
from urbandelta.inputs import InputPlan, resolve_inputs
from urbandelta.network import FoldedNetwork, fold
from urbandelta.plan import READ_BATCH, PredictPlan, blocks_at_once, plan_prediction
from urbandelta.recurrence import WindowRunner, frame_mask
from urbandelta.scores import ScoreWriter, create_scores, open_scores, resume_scores
from urbandelta.store import Cube, open_cube
from urbandelta.timeline import StepView, block_timeline
from urbandelta.types import FloatArray, Progress, Window
from urbandelta.weights import Weights, find_weights

log = logging.getLogger(__name__)

MaskRule: TypeAlias = Literal["explicit", "published"]
MASK_RULES: tuple[MaskRule, ...] = ("explicit", "published")
SCORE_CHUNKS = (16, 64, 64)
"""Windows, rows, columns. Blocks share the chunks at their borders, and small chunks cost less to write again."""


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def predict(
    cube: Cube | str,
    weights: Weights | str | os.PathLike[str],
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    tile: int | None = None,
    halo: int | None = None,
    engine: str = "auto",
    out: str | os.PathLike[str] | None = None,
    mask_rule: str = "explicit",
    precision: str = "fp32",
    workers: int | None = None,
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Score every window of a cube.

    Parameters
    ----------
    cube : Cube or URL
    weights : Weights, path, or name of a shipped set
    start, end : moment, optional
        Half-open range of the steps; everything by default.
    stride : int, optional
        Steps between windows; the era's (5) by default.
    tile, halo : int, optional
        Pixels; see `plan.plan_prediction`. `tile=32, halo=0` is the published tiling.
    engine : str
        "auto", "native", "openvino" or "torch".
    out : URL, optional
        Score store to write or, after a kill, to resume; without it the scores stay in memory.
    mask_rule : str
        "explicit" (default): every step of a window is processed, a pixel shows its first valid value until then, and
        a pixel that some stream has not seen by a window's end is NaN. "published": pixels show 0 until they are
        seen, and a step is skipped where pixel (0, 0) of the tile shows 0 in the first channel.
    precision : str
        "fp32", or "bf16" in the recurrence.
    workers : int, optional
        Threads; the usable cores by default.
    substitutions, accepted : sequences of str
        Declared departures from the weights' contract; see `inputs.resolve_inputs`.
    overwrite : bool
        Replace scores of another run at `out`.
    progress : callable, optional
        Called with (window-tiles done, in all, message).

    Returns
    -------
    DataArray
        `score` (window, y, x) float32, 0..1, NaN where a pixel was not observed; lazy if `out` was given.

    Raises
    ------
    ContractError, TooFewObservations, EngineError, ConfigError, StoreError
        Each with the cause and the mend.
    """
    cube = cube if isinstance(cube, Cube) else open_cube(cube)
    weights = weights if isinstance(weights, Weights) else find_weights(weights)
    run = prepare_run(
        cube,
        weights,
        start=start,
        end=end,
        stride=stride,
        tile=tile,
        halo=halo,
        engine=engine,
        mask_rule=mask_rule,
        precision=precision,
        substitutions=substitutions,
        accepted=accepted,
    )
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers {workers}: need at least 1")
    if out is None:
        memory = _MemorySink(run.plan.windows, cube.grid)
        _run_blocks(run, memory, workers=workers, progress=progress)
        return memory.to_xarray(run.attributes)
    sink = _open_sink(os.fspath(out), run, overwrite=overwrite)
    _run_blocks(run, sink, workers=workers, progress=progress)
    sink.finish()
    return open_scores(os.fspath(out))["score"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Everything that a prediction needs, checked and decided."""

    cube: Cube
    weights: Weights
    network: FoldedNetwork
    inputs: InputPlan
    plan: PredictPlan
    engine: Engine
    mask_rule: MaskRule

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance of the scores; a resumed run must have the same `identity`."""
        identity = {
            **self.plan.identity,
            "weights_sha256": self.weights.sha256,
            "cube_snapshot": self.cube.snapshot,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "mask_rule": self.mask_rule,
            "substitutions": list(self.inputs.substitutions),
            "accepted": list(self.inputs.accepted),
        }
        return {
            "title": f"Urban change scores, {self.plan.era.title}",
            "source": f"urbandelta {__version__}",
            "version": __version__,
            "era": self.plan.era.name,
            "weights_name": self.weights.name,
            "weights_description": dict(self.weights.description),
            "weights_sha256": self.weights.sha256,
            "cube_url": self.cube.url,
            "cube_snapshot": self.cube.snapshot,
            "substitutions": list(self.inputs.substitutions),
            "accepted": list(self.inputs.accepted),
            "unstated": list(self.inputs.unstated),
            "parameters": {
                key: value for key, value in identity.items() if key not in ("weights_sha256", "cube_snapshot")
            },
            "identity": identity,
        }


def prepare_run(
    cube: Cube,
    weights: Weights,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    tile: int | None = None,
    halo: int | None = None,
    engine: str = "auto",
    mask_rule: str = "explicit",
    precision: str = "fp32",
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
) -> Run:
    """Check and plan a prediction without computing it; parameters and errors as in `predict`."""
    for rule in MASK_RULES:
        if rule == mask_rule:
            break
    else:
        raise ConfigError(f"unknown mask rule {mask_rule!r}; expected one of {', '.join(MASK_RULES)}")
    inputs = resolve_inputs(cube, weights, substitutions=substitutions, accepted=accepted)
    plan = plan_prediction(
        cube, weights.config, inputs.sources, start=start, end=end, stride=stride, tile=tile, halo=halo
    )
    return Run(
        cube=cube,
        weights=weights,
        network=fold(weights.parameters, weights.config),
        inputs=inputs,
        plan=plan,
        engine=engine_named(engine, precision=precision),
        mask_rule=rule,
    )


class _Sink(Protocol):
    @property
    def done(self) -> frozenset[int]: ...

    def add(self, block_id: int, y: slice, x: slice, contribution: FloatArray) -> object: ...


class _MemorySink:
    """Scores in memory, for notebooks and small areas."""

    def __init__(self, windows: Sequence[Window], grid: Grid) -> None:
        self._windows, self._grid = windows, grid
        self._scores = np.full((len(windows), *grid.shape), np.nan, np.float32)
        self.done: frozenset[int] = frozenset()

    def add(self, block_id: int, y: slice, x: slice, contribution: FloatArray) -> None:
        stored = self._scores[:, y, x]
        both = ~np.isnan(stored) & ~np.isnan(contribution)
        np.copyto(stored, np.where(both, stored + contribution, contribution), where=~np.isnan(contribution))
        self.done |= {block_id}

    def to_xarray(self, attributes: dict[str, Any]) -> xr.DataArray:
        start, end, middle = (
            np.array([getattr(window, name) for window in self._windows], "datetime64[ns]")
            for name in ("start", "end", "middle")
        )
        return xr.DataArray(
            self._scores,
            dims=("window", "y", "x"),
            coords={
                "y": self._grid.y,
                "x": self._grid.x,
                "time": ("window", middle),
                "window_start": ("window", start),
                "window_end": ("window", end),
                "n_obs": ("window", np.array([window.count for window in self._windows], np.int32)),
            },
            name="score",
            attrs=attributes,
        )


def _open_sink(url: str, run: Run, *, overwrite: bool) -> ScoreWriter:
    """The store to go on with, or a new one."""
    if not overwrite:
        try:
            return resume_scores(url, run.attributes)
        except StoreError:
            if _exists(url):
                raise
    return create_scores(
        url,
        grid=run.cube.grid,
        windows=run.plan.windows,
        chunks=SCORE_CHUNKS,
        attributes=run.attributes,
        overwrite=overwrite,
    )


def _exists(url: str) -> bool:
    try:
        open_scores(url)
    except StoreError:
        path = FilePath(url)
        return "://" not in url and path.exists() and (not path.is_dir() or any(path.iterdir()))
    return True


class _Counter:
    """Window-tiles done, over all threads."""

    def __init__(self, done: int, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = done, total, progress
        self._lock = threading.Lock()
        self.advance(0)

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total, "windows x tiles")


def _run_blocks(run: Run, sink: _Sink, *, workers: int, progress: Progress | None) -> None:
    """Score the blocks that the sink lacks and hand them over in the plan's order.

    The tiles of a block share its reading and are shared out among the workers; where a block has fewer tiles than
    there are workers, several blocks are under way. So memory is that of about `workers` tiles' blocks, whatever the
    area.
    """
    waiting = [index for index in range(len(run.plan.blocks)) if index not in sink.done]
    finished = sum(len(run.plan.blocks[index].tiles) for index in sink.done) * len(run.plan.windows)
    counter = _Counter(finished, run.plan.window_tiles, progress)
    at_once = blocks_at_once(run.plan, workers)
    pending: deque[tuple[int, Future[tuple[slice, slice, FloatArray]]]] = deque()
    todo = iter(waiting)
    with ThreadPoolExecutor(workers) as tile_pool, ThreadPoolExecutor(at_once) as block_pool:
        free: SimpleQueue[_Workspace] = SimpleQueue()
        for _ in range(at_once):
            free.put(_Workspace(run, tile_pool, workers))

        def compute(index: int) -> tuple[slice, slice, FloatArray]:
            workspace = free.get()
            try:
                return workspace.score_block(run.plan.blocks[index], counter)
            finally:
                free.put(workspace)

        try:
            while True:
                # One block ahead of the commits: a block that is finished waits in memory for those before it.
                while len(pending) <= at_once and (index := next(todo, None)) is not None:
                    pending.append((index, block_pool.submit(compute, index)))
                if not pending:
                    break
                index, future = pending.popleft()
                sink.add(index, *future.result())
        finally:
            for _, future in pending:
                future.cancel()


class _Workspace:
    """The sessions of one block's tiles, used again for block after block."""

    def __init__(self, run: Run, pool: Executor, workers: int) -> None:
        self._run, self._pool, self._workers = run, pool, workers
        self._sessions: list[Session] = []

    def score_block(self, block: Block, counter: _Counter) -> tuple[slice, slice, FloatArray]:
        """Contribution of a block: rows, columns, and (window, y, x)."""
        plan = self._run.plan
        tiles = [_TileScorer(self._run, tile, block, self._session(n)) for n, tile in enumerate(block.tiles)]
        y = slice(min(t.rows.pixels.start for t in tiles), max(t.rows.pixels.stop for t in tiles))
        x = slice(min(t.columns.pixels.start for t in tiles), max(t.columns.pixels.stop for t in tiles))
        contribution = np.zeros((len(plan.windows), y.stop - y.start, x.stop - x.start), np.float32)
        # Neighbours, so that scores are added up in the same order however many workers there are.
        share = -(-len(tiles) // self._workers)
        shares = [tiles[first : first + share] for first in range(0, len(tiles), share)]
        for view in self._timeline(block):
            taken = self._pool.map(_take_all, shares, itertools.repeat(view))
            for tile, scores in itertools.chain.from_iterable(taken):
                rows, columns = _shift(tile.rows.pixels, y.start), _shift(tile.columns.pixels, x.start)
                for window, score in scores:
                    contribution[window, rows, columns] += score
                    counter.advance(1)
        return y, x, contribution

    def _timeline(self, block: Block) -> Iterator[StepView]:
        return block_timeline(
            self._run.cube,
            self._run.inputs.sources,
            block.patch,
            self._run.plan.steps[: self._run.plan.windows[-1].last + 1],
            look_back=self._run.mask_rule == "explicit",
            batch=READ_BATCH,
        )

    def _session(self, number: int) -> Session:
        if number == len(self._sessions):
            height, width = self._run.plan.patch
            self._sessions.append(
                self._run.engine.session(self._run.network, height=height, width=width, slots=self._run.plan.slots)
            )
        return self._sessions[number]


class _TileScorer:
    """One tile of a block: cuts its patch out of each step, and weighs its scores for blending.

    Beyond the edge of the grid the patch shows the mirror image of what lies inside: a border of zeros looks like
    change.
    """

    def __init__(self, run: Run, tile: Tile, block: Block, session: Session) -> None:
        self.rows, self.columns = run.plan.blend.of(tile)
        self._run = run
        corner = [core.start - run.plan.halo for core in tile.core]
        origin = [patch.start for patch in block.patch]
        spans = zip(corner, run.plan.patch, run.cube.grid.shape, origin, strict=True)
        self._mirrored = np.ix_(*(mirrored(start, length, size) - first for start, length, size, first in spans))
        self._patch = _shift(tile.patch[0], origin[0]), _shift(tile.patch[1], origin[1])
        self._seen = _shift(self.rows.pixels, origin[0]), _shift(self.columns.pixels, origin[1])
        self._kept = _shift(self.rows.pixels, corner[0]), _shift(self.columns.pixels, corner[1])
        self._weights = _outer(self.rows, self.columns)
        self._runner = WindowRunner(session, run.plan.windows, slots=run.plan.slots, paths=run.network.config.paths)
        self._valid = True
        self._shown = False

    def take(self, view: StepView) -> Iterator[tuple[int, FloatArray]]:
        """Take a step; yields (window, weighted scores of the pixels that the tile contributes to)."""
        first_path = self._run.network.config.paths[0]
        for path in self._run.network.config.paths:
            sources = self._run.inputs.sources_of(path)
            if self._shown and not any(view.updated[source][self._patch].any() for source in sources):
                continue
            frame = self._run.inputs.frame(path, {name: view.frames[name][self._mirrored] for name in view.frames})
            self._runner.show(path, frame)
            if path == first_path and self._run.mask_rule == "published":
                self._valid = bool(frame_mask(frame[None, None, :1, :1])[0, 0])
        self._shown = True
        for window, score in self._runner.step(view.step, valid=self._valid):
            kept = score[self._kept] * self._weights
            if self._run.mask_rule == "explicit":
                for seen in view.seen.values():
                    kept[~seen[self._seen]] = np.nan
            yield window, kept


def _take_all(tiles: Sequence[_TileScorer], view: StepView) -> list[tuple[_TileScorer, list[tuple[int, FloatArray]]]]:
    """One worker's share of a step. Scores are added up elsewhere, since neighbours overlap."""
    return [(tile, list(tile.take(view))) for tile in tiles]


def _shift(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)


def _outer(rows: Span, columns: Span) -> FloatArray:
    return np.outer(rows.weights, columns.weights).astype(np.float32)
