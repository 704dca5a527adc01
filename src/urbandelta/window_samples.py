"""Batches straight from window files, with the contract of `samples.SampleSource`.

Packed files can only be read from their start. So an epoch reads a few files side by side into a small pool of windows
and draws from that at random. Which windows, in which order, is decided before anything is read, from counts, seed and
epoch alone: a training that was stopped goes on with the very batch that it would have seen, and what was seen before
is passed over without being decoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ConfigError, TrainingError
from urbandelta.network import NetworkConfig
from urbandelta.samples import TURNS, Augment, Batch, Piece, Sample, Shares, at_least_one, collated, spread
from urbandelta.split import Role, SplitOptions, plan_training
from urbandelta.tfrecord import Limits, RecordReader
from urbandelta.types import FloatArray, Window
from urbandelta.window_files import WindowFile, WindowFiles, read_window, sample_piece

SIDE_BY_SIDE = 16
"""Files that windows are drawn from at once."""
MOST_POOLED = 512
"""Windows of a pool, at most."""


@dataclass(frozen=True)
class WindowDraw:
    """A sample of an epoch: which round through all files, which file, which of its records."""

    round: int
    file: int
    record: int


def draw_windows(
    counts: Sequence[int], *, wanted: int, pool: int, seed: Sequence[int], side_by_side: int = SIDE_BY_SIDE
) -> list[WindowDraw]:
    """Order in which windows are shown: random, and readable from the files' starts with `pool` windows in memory.

    Parameters
    ----------
    counts : sequence of int
        Windows of each file.
    wanted : int
        Draws; where there are fewer windows, each is drawn as often as any other, within one.
    """
    rng = np.random.default_rng(list(seed))
    drawn: list[WindowDraw] = []
    turn = 0
    while len(drawn) < wanted and any(counts):
        waiting = [int(file) for file in rng.permutation(len(counts)) if counts[file]]
        opened = [[file, 0] for file in waiting[:side_by_side]]
        waiting = waiting[side_by_side:]
        pooled: list[WindowDraw] = []
        while (opened or pooled) and len(drawn) < wanted:
            while opened and len(pooled) < pool:
                place = int(rng.integers(len(opened)))
                file, record = opened[place]
                pooled.append(WindowDraw(turn, file, record))
                opened[place][1] += 1
                if record + 1 == counts[file]:
                    if waiting:
                        opened[place] = [waiting.pop(0), 0]
                    else:
                        opened.pop(place)
            place = int(rng.integers(len(pooled)))
            pooled[place], pooled[-1] = pooled[-1], pooled[place]
            drawn.append(pooled.pop())
        turn += 1
    return drawn


class WindowSource:
    """Batches of one role from window files, epoch by epoch; parameters and laws as `samples.SampleSource`.

    Raises
    ------
    ConfigError
        If an option is out of range.
    TrainingError
        If there is no window.
    """

    def __init__(
        self,
        files: WindowFiles,
        config: NetworkConfig,
        *,
        role: Role,
        batch_size: int = 32,
        samples: int | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        max_steps: int | None = None,
        budget_bytes: int = 1_000_000_000,
        limits: Limits | None = None,
    ) -> None:
        at_least_one(batch_size=batch_size, samples=samples, max_steps=max_steps)
        self.role, self.batch_size, self.seed = role, batch_size, seed
        self._files, self._config, self._limits = files, config, limits
        self._augment, self._max_steps = augment, max_steps
        self.available = files.records
        if not self.available:
            raise TrainingError(f"no {role} window; change the split")
        self.size = self.available if samples is None else samples
        if not self.trains:
            self.size = min(self.size, self.available)
        self._pool = max(1, min(MOST_POOLED, budget_bytes // files.sample_bytes))

    @property
    def trains(self) -> bool:
        """Whether samples are shuffled."""
        return self.role == "train"

    def batches(self, *, rank: int = 0, world: int = 1) -> int:
        """Batches that a rank gets in an epoch, see `samples.Shares.batches`."""
        first, stop = self._shares.batches(rank, world)
        return stop - first

    def epoch(self, number: int, *, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, a function of the seed and the arguments alone."""
        low, high = self._shares.samples(rank, world, skip=skip)
        draws = self._draws(number)
        rng = np.random.default_rng([self.seed, number if self.trains else 0, 1])
        turns = rng.integers(0, TURNS if self._augment else 1, len(draws))
        seeds = rng.integers(0, 2**32, len(draws))
        readers = _Readers(self._files, draws[low:high], self._limits)
        pieces: list[Piece] = []
        for place in range(low, high):
            pieces.append(self._piece(draws[place], readers, int(turns[place]), int(seeds[place])))
            if len(pieces) == self.batch_size or place + 1 == high:
                yield collated(pieces)
                pieces = []

    def _draws(self, number: int) -> list[WindowDraw]:
        if self.trains:
            counts = [file.records for file in self._files.files]
            return draw_windows(counts, wanted=self.size, pool=self._pool, seed=[self.seed, number])
        ordered = [
            WindowDraw(0, index, record)
            for index, file in enumerate(self._files.files)
            for record in range(file.records)
        ]
        return [ordered[place] for place in spread(len(ordered), self.size)]

    def _piece(self, draw: WindowDraw, readers: _Readers, turn: int, seed: int) -> Piece:
        images, truth = readers.take(draw)
        steps: npt.NDArray[np.int64] = np.arange(len(images))
        if self._max_steps is not None and self._max_steps < len(steps):
            steps = np.sort(np.random.default_rng(seed).choice(steps, self._max_steps, replace=False))
        file, tile = self._files.files[draw.file], self._files.tile
        sample = Sample(draw.file, draw.record, file.row * tile, file.column * tile, turn)
        return sample_piece(images, truth, sample, era=self._files.era, config=self._config, steps=steps)

    @property
    def _shares(self) -> Shares:
        return Shares(size=self.size, batch_size=self.batch_size, trains=self.trains)


class _Readers:
    """Gives the windows of some draws in their order, each file read once from its start."""

    def __init__(self, files: WindowFiles, draws: Sequence[WindowDraw], limits: Limits | None) -> None:
        self._files, self._limits = files, limits
        self._wanted = set(draws)
        self._last: dict[tuple[int, int], int] = {}
        for draw in draws:
            key = (draw.round, draw.file)
            self._last[key] = max(self._last.get(key, 0), draw.record)
        self._open: dict[tuple[int, int], RecordReader] = {}
        self._held: dict[WindowDraw, tuple[FloatArray, FloatArray]] = {}

    def take(self, draw: WindowDraw) -> tuple[FloatArray, FloatArray]:
        """Images and truth of a window; windows before it in its file are held if they are wanted later."""
        key = (draw.round, draw.file)
        while draw not in self._held:
            file = self._files.files[draw.file]
            if key not in self._open:
                self._open[key] = RecordReader(file.path, limits=self._limits)
            reader = self._open[key]
            passed = WindowDraw(draw.round, draw.file, reader.number)
            content = reader.read()
            if content is None:
                raise TrainingError(
                    f"{file.path}: holds fewer windows than when it was counted; start anew (--restart)"
                )
            if passed in self._wanted:
                # Copied out of the record, of which only these parts are kept.
                self._held[passed] = read_window(content, self._files, f"{file.path}: record {reader.number}")
            if passed.record == self._last[key]:
                del self._open[key]
        return self._held.pop(draw)


def split_windows(files: WindowFiles, options: SplitOptions) -> dict[Role, WindowFiles]:
    """Files by role: the tiles of each site are split as those of a cube are.

    Raises
    ------
    ConfigError
        If an option means nothing to windows without dates, or a site is too small to hold out what was asked for.
    """
    if options.tile != files.tile:
        options = dataclasses.replace(options, tile=files.tile)
    if options.time_split or options.time_buffer_days or options.label_days is not None:
        raise ConfigError("window files hold no dates, so they cannot be split in time; leave those options out")
    if options.window_share is not None:
        raise ConfigError("all windows of a file are used; leave the share of the windows out")
    roles: dict[Role, list[WindowFile]] = {}
    by_site = sorted(files.files, key=lambda file: file.site)
    moment = np.datetime64(0, "ns")
    for site, group in groupby(by_site, key=lambda file: file.site):
        members = list(group)
        shape = tuple(files.tile * (1 + max(getattr(file, axis) for file in members)) for axis in ("row", "column"))
        try:
            plan = plan_training(
                (shape[0], shape[1]), [Window(moment, moment, 1, 0, 0)], window_days=0, options=options
            )
        except ConfigError as error:
            raise ConfigError(f"{site}: {error}") from error
        of_tile = {(tile.row, tile.column): tile.role for tile in plan.tiles}
        for role in plan.roles:
            roles.setdefault(role, []).extend(file for file in members if of_tile[file.row, file.column] == role)
    return {role: files.chosen(sorted(chosen, key=lambda file: file.path)) for role, chosen in roles.items() if chosen}
