"""Running a prediction: blocks computed side by side, handed over one by one in the plan's order."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from urbandelta.blending import Span
from urbandelta.engines import Session
from urbandelta.grid import Block, Tile, mirrored
from urbandelta.plan import READ_BATCH, blocks_at_once
from urbandelta.recurrence import WindowRunner, frame_mask
from urbandelta.runs import Run
from urbandelta.timeline import StepView, block_timeline
from urbandelta.types import FloatArray, Progress


class Sink(Protocol):
    """Where blocks go: a score store, or memory."""

    @property
    def done(self) -> frozenset[int]:
        """Blocks that it holds already."""

    def add(self, block_id: int, y: slice, x: slice, contribution: FloatArray) -> object:
        """Add a block's contribution (window, y, x), all of it or nothing."""


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


def run_blocks(run: Run, sink: Sink, *, workers: int, progress: Progress | None) -> None:
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
