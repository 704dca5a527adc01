"""What `split` decides, as plain data: the tiles and windows of a training with their roles, and what they share."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from urbandelta.assemble import as_moment
from urbandelta.errors import ConfigError

Role: TypeAlias = Literal["train", "validation", "test"]
Split: TypeAlias = Literal["blocks", "checkerboard", "whole"]
ROLES: tuple[Role, ...] = get_args(Role)
SPLITS: tuple[Split, ...] = get_args(Split)
UNUSED = "unused"
"""Role of a tile that lies in a buffer, or that the checkerboard leaves out."""

TILE_PX = 32
BUFFER_PX = 16
"""Reach of the network's receptive field that matters: the halo of `predict`."""
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How to split; None takes the default of the split.

    Parameters
    ----------
    split : {"blocks", "checkerboard", "whole"}
        Spatial blocks, the published lattice, or a whole cube in one `role`.
    role : {"train", "validation", "test"}, optional
        Of a whole cube.
    tile : int
        Side of a tile in pixels.
    block_tiles : int, optional
        Side of a block in tiles; by default up to 4, fewer where the area is small.
    buffer_px : int, optional
        Least number of pixels between tiles of different roles; 16 by default.
    validation, test : float, optional
        Share of the tiles; 0.2 and none by default.
    time_split : tuple of str, datetime64 or float
        None, one or two dates, or shares (0..1) of the time that the windows span. Training windows lie before the
        first; windows of validation and test behind it, and those of test behind the second if there is one.
    time_buffer_days : float
        Days more that windows of different roles are kept apart in time.
    label_days : float, optional
        How far a label looks beyond its window; by default one window's length for triplets, as synthetic labels are
        made from, and nothing for others.
    window_share : float, optional
        Share of the windows, drawn at random: all by default, a tenth for the checkerboard.
    seed : int
    """

    split: Split = "blocks"
    role: Role | None = None
    tile: int = TILE_PX
    block_tiles: int | None = None
    buffer_px: int | None = None
    validation: float | None = None
    test: float | None = None
    time_split: tuple[str | np.datetime64 | float, ...] = ()
    time_buffer_days: float = 0.0
    label_days: float | None = None
    window_share: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class PlannedTile:
    """A tile: its place in the lattice, its top-left pixel, and its role or "unused"."""

    row: int
    column: int
    y: int
    x: int
    role: str


@dataclass(frozen=True)
class PlannedWindow:
    """A window: its first and last step (indices, inclusive), their times, and the roles that it may serve."""

    first: int
    last: int
    start: np.datetime64
    end: np.datetime64
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class Leak:
    """What two roles share.

    `kind` "space" counts pairs of tiles nearer than the buffer, "time" pairs of windows that look at the same moments.
    `nearest` is the least distance found, in pixels or in days.
    """

    kind: Literal["space", "time"]
    roles: tuple[Role, Role]
    pairs: int
    nearest: float

    def __str__(self) -> str:
        things, unit = ("tiles", "px") if self.kind == "space" else ("windows", "days")
        pair = " and ".join(self.roles)
        return f"{self.pairs} pairs of {pair} {things} are too close, the nearest {self.nearest:g} {unit} apart"


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Tiles and windows with their roles. `options` are those that were used, with every default filled in."""

    shape: tuple[int, int]
    window_days: float
    options: SplitOptions
    tiles: tuple[PlannedTile, ...]
    windows: tuple[PlannedWindow, ...]

    def tiles_of(self, role: Role) -> tuple[PlannedTile, ...]:
        """Tiles of a role, row by row."""
        return tuple(tile for tile in self.tiles if tile.role == role)

    def windows_of(self, role: Role) -> tuple[PlannedWindow, ...]:
        """Windows that a role may use, in order of time."""
        return tuple(window for window in self.windows if role in window.roles)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles that have tiles."""
        held = {tile.role for tile in self.tiles}
        return tuple(role for role in ROLES if role in held)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Tiles, windows and samples (a tile in a window) of each role; and the tiles that are not used."""
        counts: dict[str, dict[str, int]] = {}
        for role in self.roles:
            tiles, windows = len(self.tiles_of(role)), len(self.windows_of(role))
            counts[role] = {"tiles": tiles, "windows": windows, "samples": tiles * windows}
        return counts | {UNUSED: {"tiles": Counter(tile.role for tile in self.tiles)[UNUSED]}}

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal plan."""
        document = dataclasses.asdict(self)
        document["options"]["time_split"] = [_text(moment) for moment in self.options.time_split]
        for window in document["windows"]:
            window["start"], window["end"] = str(window["start"]), str(window["end"])
            window["roles"] = list(window["roles"])
        return {"format": _FORMAT} | document | {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, document: Any) -> TrainingPlan:
        """The plan that `to_json` wrote.

        Raises
        ------
        ConfigError
            If it is none.
        """
        try:
            if document["format"] != _FORMAT:
                raise ConfigError(f"a training plan of format {document['format']}, this version reads {_FORMAT}")
            options = dict(document["options"])
            options["time_split"] = tuple(as_moment(moment) for moment in options["time_split"])
            return cls(
                shape=(int(document["shape"][0]), int(document["shape"][1])),
                window_days=float(document["window_days"]),
                options=SplitOptions(**options),
                tiles=tuple(PlannedTile(**tile) for tile in document["tiles"]),
                windows=tuple(
                    PlannedWindow(
                        int(window["first"]),
                        int(window["last"]),
                        as_moment(window["start"]),
                        as_moment(window["end"]),
                        tuple(window["roles"]),
                    )
                    for window in document["windows"]
                ),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"not a training plan ({type(error).__name__}: {error}); "
                "`urbandelta windows CUBE --training --json` writes them"
            ) from error


def leaks(plan: TrainingPlan) -> tuple[Leak, ...]:
    """What samples of different roles share, found anew from the plan's tiles and windows; empty if nothing.

    Tiles of different roles must be `buffer_px` apart. The checkerboard promises no distance, so the default one is
    required of it. Time is compared where the plan has a time split; without one, space is the only guard.
    """
    required = BUFFER_PX if plan.options.buffer_px is None else plan.options.buffer_px
    found = []
    for first, second in itertools.combinations(plan.roles, 2):
        gaps = list(_gaps(plan, first, second))
        near = sum(int((gap < required).sum()) for gap in gaps)
        if near:
            found.append(Leak("space", (first, second), near, float(min(gap.min() for gap in gaps))))
        if plan.options.time_split and not _share_windows(plan, first, second):
            found += _time_leaks(plan, first, second)
    return tuple(found)


def _share_windows(plan: TrainingPlan, first: Role, second: Role) -> bool:
    """Whether two roles use the same windows by design: validation and test behind a single time split."""
    return len(plan.options.time_split) == 1 and "train" not in (first, second)


def _gaps(plan: TrainingPlan, first: Role, second: Role) -> Iterator[npt.NDArray[np.int64]]:
    """Pixels between the tiles of two roles, the larger of both axes (0: they touch), a row of pairs at a time."""
    corners = [np.array([(tile.y, tile.x) for tile in plan.tiles_of(role)], np.int64) for role in (first, second)]
    for corner in corners[0]:
        yield np.maximum(np.abs(corners[1] - corner).max(axis=1) - plan.options.tile, 0)


def _time_leaks(plan: TrainingPlan, first: Role, second: Role) -> list[Leak]:
    a, b = (
        np.array(
            [reach(window.start, window.end, plan.window_days, plan.options) for window in plan.windows_of(role)],
            "datetime64[ns]",
        ).reshape(-1, 2)
        for role in (first, second)
    )
    gaps = np.maximum(b[:, 0] - a[:, 1, None], a[:, 0, None] - b[:, 1]) / np.timedelta64(1, "D")
    near = gaps[(gaps <= 0) | (gaps < plan.options.time_buffer_days)]
    return [Leak("time", (first, second), near.size, float(near.min()))] if near.size else []


def reach(
    start: np.datetime64, end: np.datetime64, window_days: float, options: SplitOptions
) -> tuple[np.datetime64, np.datetime64]:
    """First and last moment that a window and its label look at."""
    assert options.label_days is not None
    if not options.label_days:
        return start, end
    # The window behind starts one length after the first step, wherever the last step lies.
    return start - days(options.label_days), max(end, start + days(window_days)) + days(options.label_days)


def days(number: float) -> np.timedelta64:
    """A number of days as a duration, to the second."""
    return np.timedelta64(round(number * 86_400), "s")


def _text(moment: Any) -> Any:
    return str(moment) if isinstance(moment, np.datetime64) else moment
