"""Which tiles and windows a training may learn from, and which it is judged by: the leakage guard.

A sample is a tile in a window. Samples of different roles must not see the same ground: tiles of different roles keep a
distance of `buffer_px`, because scoring a pixel reads a halo around it. Where a time split is asked for, they must not
see the same moment either: neither through the steps of a window nor through its label, which looks one window's length
back and ahead. `leaks` checks both on any plan.

References
----------
.. [1] Roberts et al., Ecography 40, 913-929 (2017), doi:10.1111/ecog.02881 (blocked cross-validation)
.. [2] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000 (the checkerboard)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from urbandelta.assemble import as_moment
from urbandelta.errors import ConfigError, TooFewObservations
from urbandelta.training_plan import (
    BUFFER_PX,
    ROLES,
    SPLITS,
    UNUSED,
    Leak,
    PlannedTile,
    PlannedWindow,
    Role,
    Split,
    SplitOptions,
    TrainingPlan,
    days,
    leaks,
    reach,
)
from urbandelta.types import BoolArray, Window

__all__ = [
    "ROLES",
    "UNUSED",
    "Leak",
    "PlannedTile",
    "PlannedWindow",
    "Role",
    "Split",
    "SplitOptions",
    "TrainingPlan",
    "leaks",
    "plan_training",
]

VALIDATION = 0.2
CHECKERBOARD_SHARE = 0.1
"""Published: a random tenth of the windows."""
_DRAWS = 64


def plan_training(
    shape: tuple[int, int], windows: Sequence[Window], *, window_days: float, options: SplitOptions | None = None
) -> TrainingPlan:
    """Give the tiles of a grid and its windows their roles.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the grid in pixels; what is left over beyond whole tiles is not used.
    windows : sequence of Window
        In order of time; those that have labels.
    window_days : float
        Length of a window.
    options : SplitOptions, optional

    Raises
    ------
    ConfigError
        If an option is out of range, or the area is too small to hold out what was asked for.
    TooFewObservations
        If a role is left without a window.
    """
    options = _complete(options or SplitOptions(), _look(windows, window_days))
    rows, columns = shape[0] // options.tile, shape[1] // options.tile
    if min(rows, columns) < 1:
        raise ConfigError(
            f"an area of {shape[0]} x {shape[1]} px holds no tile of {options.tile} px; lower the tile (--tile)"
        )
    if options.split == "whole":
        roles = np.full((rows, columns), options.role, dtype=object)
    elif options.split == "checkerboard":
        roles = _checkerboard(rows, columns)
        _require(roles, ("train", "validation"), options)
    else:
        options = dataclasses.replace(options, block_tiles=options.block_tiles or _block_tiles(rows, columns))
        roles = _blocks(rows, columns, options)
    held: list[Role] = [role for role in ROLES if (roles == role).any()]
    if options.time_split:
        options = dataclasses.replace(options, time_split=_moments(windows, options))
    return TrainingPlan(
        shape=(int(shape[0]), int(shape[1])),
        window_days=float(window_days),
        options=options,
        tiles=tuple(
            PlannedTile(row, column, row * options.tile, column * options.tile, str(roles[row, column]))
            for row in range(rows)
            for column in range(columns)
        ),
        windows=_planned_windows(windows, held, window_days, options),
    )


def _look(windows: Sequence[Window], window_days: float) -> float:
    """How far labels look beyond their windows, in days: those of triplets compare the windows before and after."""
    return window_days if any(window.previous or window.following for window in windows) else 0.0


def _complete(options: SplitOptions, look_days: float) -> SplitOptions:
    """Options with their defaults; raises `ConfigError` for one that is out of range or does nothing."""
    if options.split not in SPLITS:
        raise ConfigError(f"unknown split {options.split!r}; known are {', '.join(SPLITS)}")
    if (options.role is not None) != (options.split == "whole") or options.role not in (None, *ROLES):
        raise ConfigError(
            f"split {options.split} with role {options.role}: a whole cube needs a role out of {', '.join(ROLES)}, "
            "and only a whole cube takes one"
        )
    if options.split != "blocks":
        for name in ("block_tiles", "buffer_px", "validation", "test"):
            if getattr(options, name) is not None:
                raise ConfigError(f"{name} means nothing to the split {options.split}; leave it out or choose blocks")
    if options.split == "whole" and options.time_split:
        raise ConfigError("a whole cube has one role, so a time split means nothing to it; leave it out")
    blocks = options.split == "blocks"
    share = CHECKERBOARD_SHARE if options.split == "checkerboard" else 1.0
    options = dataclasses.replace(
        options,
        buffer_px=BUFFER_PX if blocks and options.buffer_px is None else options.buffer_px,
        validation=VALIDATION if blocks and options.validation is None else options.validation,
        test=0.0 if blocks and options.test is None else options.test,
        window_share=share if options.window_share is None else options.window_share,
        label_days=look_days if options.label_days is None else options.label_days,
    )
    for name, low, high in (("tile", 1, math.inf), ("block_tiles", 1, math.inf), ("buffer_px", 0, math.inf)):
        _in_range(options, name, low, high)
    for name in ("validation", "test"):
        _in_range(options, name, 0, 1)
    for name in ("time_buffer_days", "label_days"):
        _in_range(options, name, 0, 36_500)
    _in_range(options, "window_share", 0, 1)
    if not options.window_share:
        raise ConfigError("window_share 0 leaves no window; give a share above 0 and up to 1")
    if blocks and (options.validation or 0) + (options.test or 0) >= 1:
        raise ConfigError(
            f"validation {options.validation} and test {options.test} leave nothing to train on; lower their sum"
        )
    if len(options.time_split) > 2 or (len(options.time_split) == 2 and not options.test):
        raise ConfigError("a time split is one date, or two where there is a share for test (--test)")
    return options


def _in_range(options: SplitOptions, name: str, low: float, high: float) -> None:
    value = getattr(options, name)
    if value is not None and not low <= value <= high:
        limit = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ConfigError(f"{name} {value} is out of range; it must be {limit}")


def _checkerboard(rows: int, columns: int) -> npt.NDArray[np.object_]:
    """The published lattice, in tiles: i counts rows, j columns.

    Training where (j + i/2) mod 2 = 0, validation where (j + (i+1)/2 + 1) mod 4 = 0, with exact division: tiles of odd
    rows never train, those of even rows never validate. Dividing whole numbers instead would make half of the
    validation tiles training tiles as well.
    """
    i, j = np.ogrid[:rows, :columns]
    roles = np.full((rows, columns), UNUSED, dtype=object)
    roles[(j + i / 2) % 2 == 0] = "train"
    roles[(j + (i + 1) / 2 + 1) % 4 == 0] = "validation"
    return roles


def _block_tiles(rows: int, columns: int) -> int:
    """Two blocks along the shorter axis at least, and blocks of 4 tiles at most (128 px with the default tile)."""
    return max(1, min(4, min(rows, columns) // 2))


def _blocks(rows: int, columns: int, options: SplitOptions) -> npt.NDArray[np.object_]:
    assert options.block_tiles is not None
    assert options.validation is not None
    assert options.test is not None
    rng = np.random.default_rng(options.seed)
    block = np.arange(rows)[:, None] // options.block_tiles * columns + np.arange(columns) // options.block_tiles
    wanted: list[Role] = ["train"]
    wanted += [role for role in ROLES[1:] if getattr(options, role) > 0]
    enough = (1 - options.validation - options.test) * rows * columns / 2
    best, most = np.full((rows, columns), UNUSED, dtype=object), 0
    # On a small area most draws lose the training tiles to the buffers. The first draw that keeps half of them is
    # taken, so that a large area is split by chance alone.
    for _ in range(_DRAWS):
        roles = _drawn(block, rng.permutation(np.unique(block)), options)
        kept = int((roles == "train").sum()) if all((roles == role).any() for role in wanted) else 0
        if kept > most:
            best, most = roles, kept
        if most >= enough:
            break
    _require(best, wanted, options)
    return best


def _drawn(
    block: npt.NDArray[np.int64], order: npt.NDArray[np.int64], options: SplitOptions
) -> npt.NDArray[np.object_]:
    """Roles of the tiles when blocks are dealt in this order: test, validation, the rest trains; then the buffers."""
    assert options.buffer_px is not None
    roles = np.full(block.shape, "train", dtype=object)
    dealt = iter(order)
    for role in ("test", "validation"):
        target = getattr(options, role) * block.size
        held = 0
        while held < target and (number := next(dealt, None)) is not None:
            roles[block == number] = role
            held += int((block == number).sum())
    reach = math.ceil(options.buffer_px / options.tile)
    test = roles == "test"
    roles[(roles == "validation") & _around(test, reach)] = UNUSED
    roles[(roles == "train") & _around(test | (roles == "validation"), reach)] = UNUSED
    return roles


def _around(tiles: BoolArray, reach: int) -> BoolArray:
    """Tiles within `reach` tiles of a marked one, along both axes, themselves included."""
    for axis in (0, 1):
        # By cumulated counts, so that a wide buffer costs no more than a narrow one.
        counts = np.cumsum(np.insert(tiles.astype(np.int64), 0, 0, axis=axis), axis=axis)
        at, size = np.arange(tiles.shape[axis]), tiles.shape[axis]
        high, low = np.minimum(at + reach + 1, size), np.maximum(at - reach, 0)
        tiles = np.take(counts, high, axis=axis) > np.take(counts, low, axis=axis)
    return tiles


def _require(roles: npt.NDArray[np.object_], wanted: Sequence[Role], options: SplitOptions) -> None:
    if missing := [role for role in wanted if not (roles == role).any()]:
        rows, columns = roles.shape
        raise ConfigError(
            f"{rows} x {columns} tiles of {options.tile} px are too few for the split {options.split} with a buffer of "
            f"{options.buffer_px or 0} px: no tile is left for {' and '.join(missing)}; take smaller tiles (--tile) or "
            "blocks (--block-tiles), or hold out a whole cube"
        )


def _moments(windows: Sequence[Window], options: SplitOptions) -> tuple[np.datetime64, ...]:
    """The time split as ascending moments; shares are of the time from the first to the last step of all windows."""
    if not windows:
        return ()
    begin, end = min(window.start for window in windows), max(window.end for window in windows)
    moments = []
    for given in options.time_split:
        if isinstance(given, float) and not 0 < given < 1:
            raise ConfigError(f"time split {given:g} is out of range; give a date, or a share between 0 and 1")
        moments.append(begin + (end - begin) * given if isinstance(given, float) else as_moment(given))
    if any(later <= earlier for earlier, later in itertools.pairwise(moments)):
        raise ConfigError("the dates of a time split must ascend; give the earlier one first")
    return tuple(moments)


def _planned_windows(
    windows: Sequence[Window], held: Sequence[Role], window_days: float, options: SplitOptions
) -> tuple[PlannedWindow, ...]:
    rng = np.random.default_rng([options.seed, 1])
    by_roles: dict[tuple[Role, ...], list[Window]] = {}
    for window in windows:
        by_roles.setdefault(_window_roles(window, held, window_days, options), []).append(window)
    by_roles.pop((), None)
    planned = []
    for roles, group in by_roles.items():
        assert options.window_share is not None
        count = max(1, round(options.window_share * len(group)))
        planned += [
            PlannedWindow(group[n].first, group[n].last, group[n].start, group[n].end, roles)
            for n in np.sort(rng.permutation(len(group))[:count])
        ]
    if missing := [role for role in held if not any(role in window.roles for window in planned)]:
        dates = " and ".join(str(as_moment(moment))[:10] for moment in options.time_split)
        cause = f"a time split at {dates} and labels that look {options.label_days:g} days beyond their window"
        raise TooFewObservations(
            f"no window is left for {' and '.join(missing)}{f', with {cause}; move the split,' if dates else ';'} "
            "import a longer series, or widen the range"
        )
    return tuple(sorted(planned, key=lambda window: (window.first, window.last)))


def _window_roles(window: Window, held: Sequence[Role], window_days: float, options: SplitOptions) -> tuple[Role, ...]:
    """Roles that a window may serve: those between whose dates it and its label lie."""
    if not options.time_split:
        return tuple(held)
    begin, end = reach(window.start, window.end, window_days, options)
    first, last = as_moment(options.time_split[0]), as_moment(options.time_split[-1])
    gap = days(options.time_buffer_days)
    # A moment belongs to what follows it, so a window that ends on the split does not train.
    if end < first:
        return ("train",) if "train" in held else ()
    behind: list[Role] = []
    if begin >= first + gap and (first == last or end < last):
        behind.append("validation")
    if begin >= last + gap:
        behind.append("test")
    return tuple(role for role in behind if role in held)
