"""Training samples drawn straight from cubes: batches of windows of tiles, with their truth. Nothing is written.

An epoch goes through the bricks of all cubes in a random order, a few side by side, and draws from those at random
before it moves on. What an epoch holds follows from the seed and its number alone, so a training that was stopped goes
on with the very batch that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from urbandelta.bricks import (
    Brick,
    BrickCache,
    BrickPlan,
    LabelReader,
    bricks_at_once,
    plan_bricks,
    read_brick,
)
from urbandelta.errors import ConfigError
from urbandelta.inputs import InputNeeds, InputPlan, resolve_inputs
from urbandelta.network import Path
from urbandelta.split import Role, SplitOptions, TrainingPlan, plan_training
from urbandelta.store import Cube
from urbandelta.types import BoolArray, FloatArray

IntArray: TypeAlias = npt.NDArray[np.int64]
Augment: TypeAlias = Literal["flips"]

TURNS = 8
"""Ways to lay a square on itself: four rotations, each mirrored or not."""
CHANGED = 0.5
"""A label above counts as change."""
SIDE_BY_SIDE = 4
"""Bricks that a batch is drawn from."""
DRAWS_PER_BRICK = 64
"""Where an epoch is shorter than all samples, a brick that is read gives at least this many."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a sample comes from: number of the cube, of the window among its labels, the tile's corner, and its turn.

    `turn` 0 is the tile as it lies; `turned` applies the others.
    """

    cube: int
    window: int
    y: int
    x: int
    turn: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of one tile and window each, channels first.

    `frames` holds the distinct images of a path (N, C, H, W) in physical units, channels in the network's order: steps
    at which a path's streams did not change share one. `index` (B, T) is the row of `frames` that a path sees at a
    step; where `valid` (B, T) is False, the step is padding and its index any row. `truth` (B, H, W) is 0..1, NaN where
    a pixel does not count.
    """

    frames: Mapping[Path, FloatArray]
    index: Mapping[Path, IntArray]
    valid: BoolArray
    truth: FloatArray
    origin: tuple[Sample, ...] = ()

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeSet:
    """One cube to train on: its labels, and the plan that says which tiles and windows play which role."""

    cube: Cube
    labels: LabelReader
    plan: TrainingPlan
    substitutions: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


def cube_set(
    cube: Cube,
    labels: LabelReader,
    *,
    split: TrainingPlan | SplitOptions | None = None,
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
) -> CubeSet:
    """A cube with its labels, split by a plan that was made before, or now by options.

    Raises
    ------
    ConfigError, TooFewObservations
        As `split.plan_training`.
    """
    if not isinstance(split, TrainingPlan):
        split = plan_training(cube.grid.shape, labels.windows, window_days=cube.era.window_days, options=split)
    return CubeSet(cube=cube, labels=labels, plan=split, substitutions=tuple(substitutions), accepted=tuple(accepted))


@dataclass(frozen=True)
class _Draw:
    """A sample of a group of bricks: which brick, which of its windows and tiles, its turn, a seed for its steps."""

    brick: int
    window: int
    tile: int
    turn: int
    seed: int


@dataclass(frozen=True, eq=False)
class Piece:
    """One sample: its share of a `Batch`."""

    frames: Mapping[Path, FloatArray]
    index: Mapping[Path, IntArray]
    truth: FloatArray
    sample: Sample


@dataclass(frozen=True, kw_only=True)
class Shares:
    """An epoch of `size` samples in batches, shared among processes that train together."""

    size: int
    batch_size: int
    trains: bool

    def batches(self, rank: int, world: int) -> tuple[int, int]:
        """First batch of a rank, and the first that is not: a run, so that it reads little of what others read.

        In training all ranks get the same number of full batches; otherwise every sample is in one, and numbers may
        differ by one.
        """
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}: ranks count from 0 to the number of processes less 1")
        if self.trains:
            each = self.size // self.batch_size // world
            if not each:
                raise ConfigError(
                    f"{self.size} training samples do not fill a batch of {self.batch_size} for each of {world} "
                    "processes; lower the batch size, or ask for more samples an epoch"
                )
            return rank * each, (rank + 1) * each
        total = -(-self.size // self.batch_size)
        return total * rank // world, total * (rank + 1) // world

    def samples(self, rank: int, world: int, *, skip: int) -> tuple[int, int]:
        """Likewise in samples, without the first `skip` batches."""
        first, stop = self.batches(rank, world)
        return (first + skip) * self.batch_size, min(stop * self.batch_size, self.size)


@dataclass(frozen=True)
class _Group:
    """Bricks that are drawn from side by side, how many samples they give, and the number of the first in the epoch."""

    bricks: tuple[int, ...]
    count: int
    start: int


class SampleSource:
    """Batches of one role from cubes, epoch by epoch.

    Parameters
    ----------
    cubes : sequence of CubeSet
        Of one era, with tiles of one size.
    needs : Weights, or `NewNetwork`
        What the network reads.
    role : {"train", "validation", "test"}
        Training samples are shuffled; the others come in order, all of them or the same choice in every epoch.
    batch_size : int
    samples : int, optional
        Samples of an epoch; all of them by default.
    seed : int
    augment : {"flips"}, optional
        Turn and mirror each tile at random, frames and truth alike.
    balance : float, optional
        Share of the samples that hold labelled change, as far as the bricks side by side hold any: a pixel above 0.5
        or, where none is, above half of the strongest label (synthetic labels are seldom above 0.5).
    max_steps : int, optional
        Keep that many steps of a window, drawn at random, in order.
    look_back : bool
        What a pixel shows before it is first seen: its first valid value, or 0 as published.
    budget_bytes : int
        What bricks may take in memory.

    Raises
    ------
    ConfigError
        If an option is out of range, a plan does not fit its cube or labels, or the role has no sample.
    ContractError
        If a cube lacks what the network reads.
    """

    def __init__(
        self,
        cubes: Sequence[CubeSet],
        needs: InputNeeds,
        *,
        role: Role,
        batch_size: int = 32,
        samples: int | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        balance: float | None = None,
        max_steps: int | None = None,
        look_back: bool = True,
        budget_bytes: int = 1_000_000_000,
    ) -> None:
        _check(batch_size=batch_size, samples=samples, max_steps=max_steps, balance=balance, augment=augment)
        self.role, self.batch_size, self.seed = role, batch_size, seed
        self._cubes, self._needs = tuple(cubes), needs
        self._augment, self._balance, self._max_steps, self._look_back = augment, balance, max_steps, look_back
        self.tile = self._tile()
        self._inputs = [
            resolve_inputs(item.cube, needs, substitutions=item.substitutions, accepted=item.accepted) for item in cubes
        ]
        self._plans = [
            brick
            for number, item in enumerate(self._cubes)
            for brick in plan_bricks(
                item.cube,
                item.labels,
                number=number,
                sources=self._inputs[number].sources,
                tiles=item.plan.tiles_of(role),
                tile=self.tile,
                windows=_labelled(item, role),
                target_bytes=budget_bytes // (2 * SIDE_BY_SIDE),
            )
        ]
        self.available = sum(plan.size for plan in self._plans)
        if not self.available:
            raise ConfigError(f"no {role} sample in {', '.join(item.cube.url for item in cubes)}; change the split")
        self.size = self.available if samples is None else samples
        self._side_by_side = bricks_at_once(self._plans, most=SIDE_BY_SIDE, budget_bytes=budget_bytes)
        self._cache = BrickCache(self._read, budget_bytes=budget_bytes)

    @property
    def inputs(self) -> tuple[InputPlan, ...]:
        """How each cube's bands become channels."""
        return tuple(self._inputs)

    @property
    def trains(self) -> bool:
        """Whether samples are shuffled."""
        return self.role == "train"

    def batches(self, *, rank: int = 0, world: int = 1) -> int:
        """Batches that a rank gets in an epoch, see `Shares.batches`."""
        first, stop = self._shares.batches(rank, world)
        return stop - first

    def epoch(self, number: int, *, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, a function of the seed and the arguments alone.

        Parameters
        ----------
        number : int
            From 0; each has another order and another choice. Makes no difference but in training.
        rank, world : int
            Which share of the batches, of how many.
        skip : int
            First batches to leave out, as when a training goes on in the midst of an epoch.
        """
        low, high = self._shares.samples(rank, world, skip=skip)
        groups = [group for group in self._groups(number) if group.start < high and group.start + group.count > low]
        waiting: list[Piece] = []
        # The next bricks are read while the network computes on those at hand.
        with ThreadPoolExecutor(max_workers=1) as ahead:
            following = ahead.submit(self._bricks, groups[0]) if groups else None
            for position, group in enumerate(groups):
                assert following is not None
                bricks = following.result()
                following = ahead.submit(self._bricks, groups[position + 1]) if position + 1 < len(groups) else None
                draws = self._draws(number, group, bricks)
                for draw in draws[max(low - group.start, 0) : high - group.start]:
                    waiting.append(self._piece(bricks[draw.brick], draw))
                    if len(waiting) == self.batch_size:
                        yield collated(waiting)
                        waiting = []
            if waiting:
                yield collated(waiting)

    def _tile(self) -> int:
        sizes = {item.plan.options.tile for item in self._cubes}
        if len(sizes) != 1:
            raise ConfigError(f"tiles of {sorted(sizes) or 'no'} px; one training needs cubes with tiles of one size")
        for item in self._cubes:
            if item.plan.shape != item.cube.grid.shape:
                height, width = item.plan.shape
                raise ConfigError(
                    f"{item.cube.url}: has {item.cube.grid.height} x {item.cube.grid.width} px, its training plan "
                    f"{height} x {width}; plan it anew with `urbandelta windows --training`"
                )
        return int(sizes.pop())

    @property
    def _shares(self) -> Shares:
        return Shares(size=self.size, batch_size=self.batch_size, trains=self.trains)

    def _groups(self, number: int) -> Iterator[_Group]:
        """The bricks of an epoch in their order, a few at a time, with the samples that each group gives."""
        order = np.arange(len(self._plans))
        if self.trains:
            order = np.random.default_rng([self.seed, number]).permutation(order)
        sizes = np.array([self._plans[n].size for n in order])
        if self.size < self.available:
            # Reading a brick is dear, so a short epoch takes more of fewer bricks; the next epoch takes others.
            enough = int(np.searchsorted(np.cumsum(sizes), self.size)) + 1
            kept = max(enough, -(-self.size // DRAWS_PER_BRICK)) if self.trains else len(order)
            order, sizes = order[:kept], sizes[:kept]
        ends = np.cumsum(sizes) * self.size // sizes.sum()
        start = 0
        for first in range(0, len(order), self._side_by_side):
            members = order[first : first + self._side_by_side]
            end = int(ends[first + len(members) - 1])
            if end > start:
                yield _Group(tuple(int(n) for n in members), end - start, start)
            start = end

    def _bricks(self, group: _Group) -> list[Brick]:
        return [self._cache.get(number, self._plans[number]) for number in group.bricks]

    def _read(self, plan: BrickPlan) -> Brick:
        item = self._cubes[plan.cube]
        return read_brick(
            plan,
            item.cube,
            item.labels,
            sources=self._inputs[plan.cube].sources,
            tile=self.tile,
            look_back=self._look_back,
        )

    def _draws(self, number: int, group: _Group, bricks: Sequence[Brick]) -> list[_Draw]:
        """Which samples a group gives, in their order."""
        pairs = np.concatenate(
            [
                np.stack([np.full(brick.plan.size, n), *(axis.ravel() for axis in np.indices(brick.counted.shape))], 1)
                for n, brick in enumerate(bricks)
            ]
        )
        rng = np.random.default_rng([self.seed, number if self.trains else 0, group.start])
        if not self.trains:
            chosen = pairs[spread(len(pairs), group.count)]
        else:
            counted = np.flatnonzero(np.concatenate([brick.counted.ravel() for brick in bricks]))
            strongest = np.concatenate([brick.strongest.ravel() for brick in bricks])
            changed = np.flatnonzero(strongest > _change_level(strongest))
            wanted = round((self._balance or 0) * group.count) if changed.size else 0
            pool = counted if counted.size else np.arange(len(pairs))
            picked = np.concatenate([_dealt(changed, wanted, rng), _dealt(pool, group.count - wanted, rng)])
            chosen = pairs[rng.permutation(picked)]
        turns = rng.integers(0, TURNS if self._augment else 1, len(chosen))
        seeds = rng.integers(0, 2**32, len(chosen))
        return [
            _Draw(int(brick), int(window), int(tile), int(turn), int(seed))
            for (brick, window, tile), turn, seed in zip(chosen, turns, seeds, strict=True)
        ]

    def _piece(self, brick: Brick, draw: _Draw) -> Piece:
        tile, number = brick.plan.tiles[draw.tile], brick.plan.cube
        steps = self._steps(brick, draw)
        place = brick.place(tile, self.tile)
        frames, index = {}, {}
        for path in self._needs.config.paths:
            images, index[path] = _distinct_frames(path, self._inputs[number], brick, place, steps)
            frames[path] = turned(images, draw.turn)
        truth = turned(brick.truth[(draw.window, *place)], draw.turn)
        window = brick.plan.windows[draw.window]
        # Truth is copied: a view would keep the whole brick in memory until its batch is full.
        return Piece(frames, index, truth.copy(), Sample(number, window, tile.y, tile.x, draw.turn))

    def _steps(self, brick: Brick, draw: _Draw) -> IntArray:
        """Steps of a sample's window, counted from the brick's first."""
        window = self._cubes[brick.plan.cube].labels.windows[brick.plan.windows[draw.window]]
        steps = np.arange(window.first, window.last + 1) - brick.plan.first
        if self._max_steps is None or self._max_steps >= len(steps):
            return steps
        return np.sort(np.random.default_rng(draw.seed).choice(steps, self._max_steps, replace=False))


def turned(images: FloatArray, turn: int) -> FloatArray:
    """Images (..., y, x) turned by `turn % 4` quarters, and mirrored from 4 on."""
    rotated = np.rot90(images, turn % 4, axes=(-2, -1))
    return rotated[..., ::-1] if turn >= 4 else rotated


def _distinct_frames(
    path: Path, inputs: InputPlan, brick: Brick, place: tuple[slice, slice], steps: IntArray
) -> tuple[FloatArray, IntArray]:
    """The distinct images (N, C, H, W) that a path sees of a tile at some steps, and which one it sees at each."""
    sources = tuple(dict.fromkeys(inputs.sources_of(path)))  # a stream may also stand in for another
    if sources:
        counts = np.stack([brick.streams[source].shown(steps, *place) for source in sources])
        index = np.insert(np.cumsum((np.diff(counts, axis=1) != 0).any(axis=0)), 0, 0)
    else:  # all of the path's streams are constants
        counts, index = np.zeros((0, len(steps)), np.int64), np.zeros(len(steps), np.int64)
    firsts = np.searchsorted(index, np.arange(index[-1] + 1))
    shown = {
        source: brick.streams[source].frames(counts[n][firsts].tolist(), *place) for n, source in enumerate(sources)
    }
    height, width = (part.stop - part.start for part in place)
    images = np.empty((len(firsts), inputs.config.path_bands(path), height, width), np.float32)
    channels = (
        (item.source, channel) for item in inputs.streams if item.stream.kind == path for channel in item.channels
    )
    for band, (source, channel) in enumerate(channels):
        images[:, band] = channel if isinstance(channel, float) or source is None else shown[source][:, channel]
    return images, index


def collated(pieces: Sequence[Piece]) -> Batch:
    """Samples as a batch: their images one after the other, their steps padded to the longest."""
    counts = np.array([len(next(iter(piece.index.values()))) for piece in pieces])
    valid = np.arange(counts.max()) < counts[:, None]
    index = {}
    for path in pieces[0].frames:
        index[path] = np.zeros(valid.shape, np.int64)
        start = 0
        for row, piece in zip(index[path], pieces, strict=True):
            row[: len(piece.index[path])] = piece.index[path] + start
            start += len(piece.frames[path])
    return Batch(
        frames={path: np.concatenate([piece.frames[path] for piece in pieces]) for path in index},
        index=index,
        valid=valid,
        truth=np.stack([piece.truth for piece in pieces]),
        origin=tuple(piece.sample for piece in pieces),
    )


def _labelled(item: CubeSet, role: Role) -> list[int]:
    """The windows of a role as indices into the labels' windows; raises for one that has no labels."""
    known = {(window.start, window.end): n for n, window in enumerate(item.labels.windows)}
    found = []
    for window in item.plan.windows_of(role):
        if (window.start, window.end) not in known:
            raise ConfigError(
                f"{item.cube.url}: the plan's window {window.start} to {window.end} has no labels; "
                "label it, or plan from the windows that have labels"
            )
        found.append(known[window.start, window.end])
    return sorted(found)


def spread(count: int, wanted: int) -> IntArray:
    """`wanted` of `count` indices, evenly spread; each once and in order where all are wanted."""
    return np.arange(wanted) * count // max(wanted, 1)


def _dealt(pool: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """`count` members of a pool in random order, each as often as any other, within one."""
    if not count:
        return pool[:0]
    rounds = -(-count // len(pool))
    return np.concatenate([rng.permutation(pool) for _ in range(rounds)])[:count]


def _change_level(strongest: FloatArray) -> float:
    """Label from which a sample is drawn as one with change."""
    highest = float(strongest.max(initial=0.0))
    return CHANGED if highest > CHANGED else highest / 2


def at_least_one(**counts: int | None) -> None:
    """Raise `ConfigError` for a count that is given and less than 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value} is out of range; it must be at least 1")


def _check(
    *, batch_size: int, samples: int | None, max_steps: int | None, balance: float | None, augment: str | None
) -> None:
    at_least_one(batch_size=batch_size, samples=samples, max_steps=max_steps)
    if balance is not None and not 0 <= balance <= 1:
        raise ConfigError(f"balance {balance} is out of range; it is a share from 0 to 1")
    if augment not in (None, "flips"):
        raise ConfigError(f"unknown augmentation {augment!r}; known is flips")
