"""Labels of a transfer: whether anything changed in each pixel within some years; the tiles that hold any; their folds.

Folds are blocks of neighbouring tiles, since tiles side by side show the same ground: a tile next to one that a network
was trained on is no test of it. A tile nearer than a buffer to the tiles that a fold is judged by does not train it.

References
----------
.. [1] Roberts et al., Ecography 40, 913-929 (2017), doi:10.1111/ecog.02881 (blocked cross-validation)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from urbandelta.aoi import Aoi
from urbandelta.assemble import Moment
from urbandelta.errors import TooFewObservations, TrainingError
from urbandelta.grid import Grid
from urbandelta.plan import cube_steps
from urbandelta.products import NO_DATE, days_of
from urbandelta.split import PlannedTile, PlannedWindow, SplitOptions, TrainingPlan
from urbandelta.store import Cube
from urbandelta.training_plan import UNUSED
from urbandelta.truth import Truth, TruthOptions, read_truth
from urbandelta.types import BoolArray, FloatArray, TimeArray, Window
from urbandelta.windows import find_windows

KNOWN_SHARE = 0.5
"""A tile of the lattice must be known this far; footprints that were asked for need one known pixel."""
BLOCK_TILES = 4
_DRAWS = 16


@dataclass(frozen=True)
class LabelTile:
    """A tile with labels: its top-left pixel, and how many of its pixels changed and are known."""

    y: int
    x: int
    changed: int
    known: int


@dataclass(frozen=True, kw_only=True, eq=False)
class TileLabels:
    """One cube's labels, as `samples.SampleSource` reads them: a single window over all steps of the years.

    `truth` (y, x) is 1 where anything changed within the years, 0 where nothing did, NaN where the labels do not tell;
    `starts` are the network's windows, one for each step at which one starts.
    """

    cube: Cube
    steps: TimeArray
    truth: FloatArray
    tiles: tuple[LabelTile, ...]
    starts: tuple[Window, ...]
    notes: tuple[str, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The whole series as one window."""
        return (Window(self.steps[0], self.steps[-1], len(self.steps), 0, len(self.steps) - 1),)

    def read(self, window: int | slice, y: slice, x: slice) -> FloatArray:  # noqa: ARG002 - there is one window
        """The truth (1, y, x)."""
        return self.truth[None, y, x]


def read_tile_labels(
    cube: Cube,
    path: str | Path,
    sources: Sequence[str],
    *,
    options: TruthOptions | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    tile: int = 32,
    footprints: str | Path | None = None,
) -> TileLabels:
    """Labels of a cube, and the tiles that hold them.

    Parameters
    ----------
    cube : Cube
    path : path
        Polygons or a raster of what changed, see `truth.read_truth`.
    sources : sequence of str
        The cube's streams that the network reads; their acquisitions make the steps.
    options : TruthOptions, optional
    start, end : moment, optional
        The years that the labels speak of, half-open; by default all that the cube holds. A change that is dated
        outside is none; one that may have happened inside or outside is unknown.
    tile : int
        Side in pixels.
    footprints : path, optional
        Polygons of the labelled tiles, outside of which nothing is known. Each gets a tile centred on it, or several
        side by side where it is larger. By default the lattice from the grid's corner, as far as it is known.

    Raises
    ------
    TruthError, AoiError
        If the labels or the footprints cannot be read or do not touch the cube.
    TooFewObservations
        If the years hold no window with enough observations.
    TrainingError
        If no tile lies in the grid, or nothing is known in any.
    """
    if tile < 8:
        raise TrainingError(f"tiles of {tile} px are too small for the network; give at least 8")
    era = cube.era
    steps, first, stop = cube_steps(cube, sources, start=start, end=end)
    length = np.timedelta64(era.window_days, "D")
    starts = find_windows(steps, length=length, min_obs=era.min_obs, max_obs=era.max_obs)
    if not starts:
        raise TooFewObservations(
            f"{cube.url}: no window of {era.window_days} days holds {era.min_obs} of the {len(steps)} steps between "
            f"{str(first)[:10]} and {str(stop)[:10]}; widen --start and --end, or import more acquisitions"
        )
    known = read_truth(path, cube.grid, options)
    truth = _within(known, first, stop)
    if footprints is None:
        corners = _lattice(cube.grid.shape, tile)
    else:
        corners, covered = _footprints(footprints, cube.grid, tile)
        truth[~covered] = np.nan
    tiles = [_counted(truth, y, x, tile) for y, x in corners]
    least = 1 if footprints is not None else KNOWN_SHARE * tile**2
    kept = tuple(item for item in tiles if item.known >= least)
    if not kept:
        raise TrainingError(
            f"{path}: nothing is known in any tile of {tile} px of {cube.url}; check the extent, the tiles and the CRS"
        )
    return TileLabels(
        cube=cube, steps=steps, truth=truth, tiles=kept, starts=tuple(starts), notes=known.notes,
        identity={"labels": str(path), "start": str(first), "end": str(stop)},
    )  # fmt: skip


def _within(truth: Truth, first: np.datetime64, stop: np.datetime64) -> FloatArray:
    """Whether anything changed in [first, stop): 1, 0, or NaN where it is unknown."""
    inside = truth.visible(first, stop - np.timedelta64(1, "ns"))
    begin, finish = int(days_of(first)), int(days_of(stop - np.timedelta64(1, "ns")))
    dated = truth.earliest != NO_DATE
    apart = truth.changed & dated & ((truth.latest < begin) | (truth.earliest > finish))
    return np.where(inside, 1, np.where(truth.known & (~truth.changed | apart), 0, np.nan)).astype(np.float32)


def _lattice(shape: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    return [(y, x) for y in range(0, shape[0] - tile + 1, tile) for x in range(0, shape[1] - tile + 1, tile)]


def _footprints(path: str | Path, grid: Grid, tile: int) -> tuple[list[tuple[int, int]], BoolArray]:
    """Corners of the tiles on some polygons, and the pixels inside the polygons."""
    import geopandas
    from pyogrio.errors import DataSourceError

    if not Path(path).exists():
        raise TrainingError(f"{path}: no such file of tiles; give polygons")
    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, ValueError) as error:
        raise TrainingError(f"{path}: not a readable file of polygons ({str(error).splitlines()[0]})") from error
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.crs is None:
        raise TrainingError(f"{path}: has no geometry or no CRS; give polygons with one")
    corners: list[tuple[int, int]] = []
    covered = np.zeros(grid.shape, np.bool_)
    height, width = grid.shape
    if min(height, width) < tile:
        raise TrainingError(f"a grid of {height} x {width} px holds no tile of {tile} px; lower the tile (--tile)")
    for number, shape in enumerate(frame.to_crs(4326).geometry):
        if shape is None or shape.is_empty:
            continue
        inside = Aoi(shape, f"{path}, feature {number}").inside(grid)
        if not inside.any():
            continue
        covered |= inside
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        corners += [
            (y, x)
            for y in _placed(int(rows[0]), int(rows[-1]) + 1, height, tile)
            for x in _placed(int(columns[0]), int(columns[-1]) + 1, width, tile)
        ]
    if not corners:
        raise TrainingError(f"{path}: no tile touches the cube ({grid}); check its CRS")
    return list(dict.fromkeys(corners)), covered


def _placed(first: int, stop: int, size: int, tile: int) -> list[int]:
    """Starts of tiles centred on pixels `first` to `stop` of an axis: one, or as many as fit to a half."""
    count = max(1, round((stop - first) / tile))
    begin = (first + stop - count * tile) // 2
    return [min(max(begin + n * tile, 0), size - tile) for n in range(count)]


def _counted(truth: FloatArray, y: int, x: int, tile: int) -> LabelTile:
    # The outermost pixel counts in no loss.
    inner = truth[y + 1 : y + tile - 1, x + 1 : x + tile - 1]
    return LabelTile(y, x, int((inner == 1).sum()), int((~np.isnan(inner)).sum()))


def deal_folds(
    tiles: Sequence[Sequence[LabelTile]], folds: int, *, tile: int, buffer_px: int, seed: int
) -> list[list[int]]:
    """Give each tile of each cube a fold, whole blocks at a time, so that folds hold about as many changed tiles.

    Blocks have up to 4 tiles a side. Where buffers would then leave some fold with less than half of what it could
    train on, as on a small area, other draws, smaller blocks and strips are tried, and the best is taken.

    Raises
    ------
    TrainingError
        If no way to deal them leaves every fold with tiles to validate on and change to learn from.
    """
    if folds < 2:
        raise TrainingError(f"{folds} folds: cross-validation needs at least 2")
    flat = [(number, item) for number, members in enumerate(tiles) for item in members]
    place = np.array([(number, item.y, item.x) for number, item in flat])
    changed = np.array([item.changed > 0 for _, item in flat])
    near = np.abs(place[:, None, 1:] - place[None, :, 1:]).max(axis=2) - tile < buffer_px
    near &= place[:, None, 0] == place[None, :, 0]
    best, most = np.zeros(len(flat), np.int64), 0
    for dealt in _deals(place, changed, folds, tile=tile, seed=seed):
        kept = len(flat)
        for fold in range(folds):
            held = dealt == fold
            training = ~held & ~near[:, held].any(axis=1)
            kept = min(kept, int(training.sum()) if held.any() and changed[training].any() else 0)
        if kept > most:
            best, most = dealt, kept
        if most >= (len(flat) - len(flat) / folds) / 2:
            break
    if not most:
        raise TrainingError(
            f"{len(flat)} labelled tiles, {int(changed.sum())} of them with change, are too few for {folds} folds that "
            f"keep {buffer_px} px apart; ask for fewer folds (--folds), or a smaller buffer (--buffer) or tile (--tile)"
        )
    each = iter(best.tolist())
    return [[next(each) for _ in members] for members in tiles]


def _deals(
    place: npt.NDArray[np.int64], changed: BoolArray, folds: int, *, tile: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Ways to deal tiles to folds, the preferred ones first."""
    rng = np.random.default_rng([seed, folds])
    for side in range(BLOCK_TILES, 0, -1):
        corner = place // np.array([1, side * tile, side * tile])
        _, block = np.unique(corner, axis=0, return_inverse=True)
        sizes, with_change = np.bincount(block), np.bincount(block, weights=changed)
        for _ in range(_DRAWS if len(sizes) >= folds else 0):
            order = rng.permutation(len(sizes))
            owner = np.zeros(len(sizes), np.int64)
            held = np.zeros((folds, 2))
            for number in order[np.argsort(-with_change[order], kind="stable")]:
                fold = min(range(folds), key=lambda n: tuple(held[n]))
                held[fold] += with_change[number], sizes[number]
                owner[number] = fold
            yield owner[block]
    # Strips have the fewest borders that a small area can be cut with.
    for axes in ((2, 1, 0), (1, 2, 0)):
        order = np.lexsort(tuple(place[:, axis] for axis in axes))
        strips = np.empty(len(place), np.int64)
        strips[order] = np.arange(len(place)) * folds // len(place)
        yield strips


def fold_plan(
    labels: TileLabels, folds: Sequence[int], fold: int | None, *, tile: int, buffer_px: int, seed: int
) -> TrainingPlan:
    """Roles of a cube's tiles: those of `fold` validate, those within the buffer are not used, the others train.

    Without a fold all train.
    """
    held = [item for item, number in zip(labels.tiles, folds, strict=True) if number == fold]

    def role(item: LabelTile, number: int) -> str:
        if fold is None or number != fold:
            near = any(max(abs(item.y - other.y), abs(item.x - other.x)) - tile < buffer_px for other in held)
            return UNUSED if near else "train"
        return "validation"

    window = labels.windows[0]
    return TrainingPlan(
        shape=labels.cube.grid.shape,
        window_days=float(labels.cube.era.window_days),
        options=SplitOptions(tile=tile, buffer_px=buffer_px, seed=seed),
        tiles=tuple(
            PlannedTile(item.y // tile, item.x // tile, item.y, item.x, role(item, number))
            for item, number in zip(labels.tiles, folds, strict=True)
        ),
        windows=(PlannedWindow(window.first, window.last, window.start, window.end, ("train", "validation")),),
    )
