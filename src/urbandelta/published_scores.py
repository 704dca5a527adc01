"""Results of the published scripts (`.npy`) as a score store, so that everything that takes scores takes them.

A result is one array (window, y, x) of a whole area, or a folder with one such array a tile, `ROW_COLUMN.npy`. Which
windows they are for is in the window list (CSV) that was written with them; where they lie has to be said.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from urbandelta.eras import era_named
from urbandelta.errors import ConfigError, SourceError
from urbandelta.scores import create_or_resume_scores
from urbandelta.sources.placement import Placement
from urbandelta.store import open_cube
from urbandelta.types import Array, FloatArray, Progress, Window
from urbandelta.windows import read_csv

_TILE_NAME = re.compile(r"(?:.*_)?(\d{1,6})_(\d{1,6})\.npy")
_CHUNKS = (16, 128, 128)
_BAND_ROWS = 128
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class ScoresReport:
    """What an import of scores did; `covered` is the share of the area that has scores."""

    windows: int
    tiles: int
    covered: float
    snapshot: str
    done_before: bool


@dataclass(frozen=True)
class _Results:
    """Arrays (window, y, x) by row and column of their tile; all of one size."""

    files: Mapping[tuple[int, int], Path]
    shape: tuple[int, int, int]
    deadzone: int

    @property
    def stride(self) -> tuple[int, int]:
        return self.shape[1] - 2 * self.deadzone, self.shape[2] - 2 * self.deadzone

    @property
    def extent(self) -> tuple[int, int]:
        rows, columns = (max(place[axis] for place in self.files) for axis in (0, 1))
        return rows * self.stride[0] + self.shape[1], columns * self.stride[1] + self.shape[2]

    def core(self, row: int, column: int) -> tuple[slice, slice]:
        """Pixels of the tile that it answers for: up to its own edge where no tile follows, not even diagonally."""

        def inset(down: int, right: int) -> int:
            beside = [(row + (down or n), column + (right or n)) for n in (-1, 0, 1)]
            return self.deadzone if any(place in self.files for place in beside) else 0

        top, bottom, left, right = inset(-1, 0), inset(1, 0), inset(0, -1), inset(0, 1)
        return slice(top, self.shape[1] - bottom), slice(left, self.shape[2] - right)


def import_published_scores(
    source: Path,
    *,
    windows: Path,
    out: str,
    era: str,
    placement: Placement,
    deadzone: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ScoresReport:
    """Write published results into a score store. Killed, the same call goes on; done, it does nothing.

    Parameters
    ----------
    source : Path
        A `.npy` (window, y, x), or a folder of tiles.
    windows : Path
        Published window list.
    out : str
        Score store.
    era : str
    placement : Placement
        Where the area lies. If that is taken from a cube, scores name it as their own.
    deadzone : int
        Pixels at the edges of a tile that its neighbours answer for.

    Raises
    ------
    ConfigError
        If the window list or an option is malformed, or nothing says where the area lies.
    SourceError
        If a file is no such array, or does not fit the list or the others.
    StoreError
        If something else is stored at `out`.
    """
    listed = read_csv(windows)
    results = _find(source, deadzone)
    count = results.shape[0]
    if count != len(listed):
        raise SourceError(f"{source}: has {count} windows, {windows} lists {len(listed)}; they do not belong together")
    grid = placement.grid(results.extent, where=str(source))
    if grid is None:
        raise ConfigError(
            f"{source}: does not say where it lies; give --grid-from, or --source-bounds and --source-crs"
        )
    sink = create_or_resume_scores(
        out,
        grid=grid,
        # Which steps they are of is not known, only their times: index -1.
        windows=[
            Window(item.start.astype("datetime64[ns]"), item.end.astype("datetime64[ns]"), item.count, -1, -1)
            for item in listed
        ],
        chunks=_CHUNKS,
        attributes={
            "era": era_named(era).name,
            "imported_from": str(source),
            "imported_windows": str(windows),
            "deadzone_px": deadzone,
            **(
                {"cube_url": placement.cube, "cube_snapshot": open_cube(placement.cube).snapshot}
                if placement.cube
                else {}
            ),
            "identity": {
                "published_scores": _digest(results, windows),
                "grid": grid.to_json(),
                "deadzone_px": deadzone,
                "era": era,
            },
        },
        overwrite=overwrite,
    )
    bands = list(_bands(results))
    waiting = [number for number in range(len(bands)) if number not in sink.done]
    for done, number in enumerate(waiting):
        if progress is not None:
            progress(done, len(waiting), f"rows {bands[number].y.start} to {bands[number].y.stop}")
        band = bands[number]
        sink.add(number, band.y, slice(0, results.extent[1]), _read_band(results, band))
    snapshot = sink.finish()
    covered = sum(
        (part[0].stop - part[0].start) * (part[1].stop - part[1].start)
        for part in (results.core(*place) for place in results.files)
    )
    return ScoresReport(
        windows=count,
        tiles=len(results.files),
        covered=covered / (grid.height * grid.width),
        snapshot=snapshot,
        done_before=not waiting,
    )


@dataclass(frozen=True)
class _Band:
    """Rows of the area that are written at once, and the row of tiles that they come from."""

    row: int
    y: slice


def _bands(results: _Results) -> Iterator[_Band]:
    for row in sorted({row for row, _ in results.files}):
        top = row * results.stride[0]
        for first in range(0, results.shape[1], _BAND_ROWS):
            yield _Band(row, slice(top + first, top + min(first + _BAND_ROWS, results.shape[1])))


def _read_band(results: _Results, band: _Band) -> FloatArray:
    count = results.shape[0]
    out = np.full((count, band.y.stop - band.y.start, results.extent[1]), np.nan, np.float32)
    for (row, column), path in results.files.items():
        if row != band.row:
            continue
        rows, columns = results.core(row, column)
        top = row * results.stride[0]
        first, stop = max(rows.start, band.y.start - top), min(rows.stop, band.y.stop - top)
        if first >= stop:
            continue
        scores = np.asarray(_opened(path)[:, first:stop, columns], np.float32)
        with np.errstate(invalid="ignore"):
            if ((scores < -_ROUNDING) | (scores > 1 + _ROUNDING)).any():
                raise SourceError(f"{path}: holds numbers outside 0 to 1, which are no scores")
        left = column * results.stride[1]
        target = slice(left + columns.start, left + columns.stop)
        out[:, first + top - band.y.start : stop + top - band.y.start, target] = np.clip(scores, 0, 1)
    return out


def _find(source: Path, deadzone: int) -> _Results:
    if source.is_dir():
        files: dict[tuple[int, int], Path] = {}
        for path in sorted(source.iterdir()):
            if (match := _TILE_NAME.fullmatch(path.name)) is None:
                continue
            place = int(match[1]), int(match[2])
            if place in files:
                raise SourceError(f"{source}: {files[place].name} and {path.name} are the same tile")
            files[place] = path
        if not files:
            raise SourceError(f"{source}: holds no results; they are called ROW_COLUMN.npy")
    else:
        files = {(0, 0): source}
    shapes = {path: _opened(path).shape for path in files.values()}
    first = next(iter(files.values()))
    for path, shape in shapes.items():
        if shape != shapes[first]:
            raise SourceError(f"{path}: has shape {shape}, {first.name} {shapes[first]}; tiles are of one size")
    count, height, width = shapes[first]
    if deadzone < 0 or min(height, width) <= 2 * deadzone:
        raise ConfigError(f"a dead zone of {deadzone} px leaves nothing of tiles of {height} x {width} px")
    return _Results(files, (count, height, width), deadzone)


def _opened(path: Path) -> Array:
    """Scores of a file (window, y, x), mapped and not read; pickles are never opened."""
    try:
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, TypeError, OverflowError, SyntaxError, TokenError) as error:
        raise SourceError(f"{path}: not a readable numpy array ({error})") from error
    if array.dtype.kind != "f":
        raise SourceError(f"{path}: holds no array of floating-point scores")
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        raise SourceError(f"{path}: has shape {array.shape}; results are (window, y, x)")
    return array


def _digest(results: _Results, windows: Path) -> str:
    """What an import that goes on must have in common with the one that began: names, sizes, times, windows."""
    listed = [(place, path.name, path.stat().st_size, path.stat().st_mtime_ns) for place, path in results.files.items()]
    return hashlib.sha256(repr(sorted(listed)).encode() + windows.read_bytes()).hexdigest()[:16]
