"""What is open for serving: one area's scores, cube, rasters and events, at one moment.

An update writes while a server runs. So what is open is looked at again now and then, and opened anew when something
changed; requests that are under way keep what they began with.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.errors import StoreError, UrbandeltaError
from urbandelta.grid import Grid
from urbandelta.products import grid_of
from urbandelta.repository import local_path, open_repository
from urbandelta.scores import open_scores
from urbandelta.store import Cube, open_cube
from urbandelta.web.cache import ByteCache
from urbandelta.web.drawing import MapClass
from urbandelta.web.event_list import MOST_VALUES, EventList
from urbandelta.web.image_layers import ImagePyramid, Stretch, find_stretch, mean_reflectance
from urbandelta.web.mercator import TileGrid
from urbandelta.web.month_maps import Kept, MonthMaps
from urbandelta.web.pyramids import LEVELS, Bytes, size_of
from urbandelta.web.score_layers import CogPyramid, ScorePyramid, StorePyramid
from urbandelta.web.source import WebSource

if TYPE_CHECKING:
    from urbandelta.types import TimeArray

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 5.0
BRICK_BYTES = 48 * 2**20
THUMBNAIL_BYTES = 16 * 2**20
BLOCK_BYTES = 64 * 2**20
COARSE_BYTES = 48 * 2**20
SCRATCH_BYTES = 2 * 2**30
_MONTH_FILE = re.compile(r"score_(\d{4}-(?:0[1-9]|1[0-2]))\.tif")
_DATES = ("first_date", "last_date")
_OVERALL = {
    "score": "Highest score",
    "status": "Status and confidence of events",
    "first_date": "Date of change",
    "last_date": "Last date of change",
    "duration": "Duration",
    "count": "Windows above the threshold",
    "spread": "Spread of the ensemble",
}
"""Rasters over the whole time that are drawn, by file name."""


class NothingThere(UrbandeltaError):
    """What a request asks for is well formed but does not exist."""


@dataclass(frozen=True)
class Month:
    """One step of the slider."""

    label: str
    windows: tuple[int, ...]
    """Windows of the score store whose middles lie in the month."""
    start: str | None
    end: str | None
    provisional: bool
    raster: Path | None


@dataclass(frozen=True)
class Overall:
    """A map over the whole time."""

    name: str
    title: str
    low: float
    high: float
    dates: bool
    raster: Path | None
    classes: tuple[MapClass, ...] = ()
    """Of a map whose values are classes; they are below the indices that no value has."""


@dataclass(frozen=True, eq=False)
class Opened:
    """One area, opened; all that is expensive is made when first asked for, and once."""

    source: WebSource
    version: str
    grid: Grid
    scores: xr.Dataset | None
    cube: Cube | None
    thumbnails: ByteCache[Bytes]
    kept: Kept
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stretches: dict[str, Stretch] = field(default_factory=dict)

    @cached_property
    def tiles(self) -> TileGrid:
        """Tiles over the grid."""
        return TileGrid(self.grid)

    @cached_property
    def events(self) -> EventList:
        """The events: from the file if there is one, else found from the scores."""
        return EventList(self.source.events, self.scores, self.tiles, self.source.event_options)

    @cached_property
    def months(self) -> dict[str, Month]:
        """The months that have a score, oldest first."""
        rasters = dict(self._month_files())
        members: dict[str, list[int]] = {}
        if self.scores is not None:
            for number, middle in enumerate(self.scores["time"].values.astype("datetime64[M]")):
                members.setdefault(str(middle), []).append(number)
        labels = sorted({*rasters, *members})
        return {label: self._month(label, tuple(members.get(label, ())), rasters.get(label)) for label in labels}

    @cached_property
    def month_maps(self) -> MonthMaps:
        """The months that have windows, in the order of `months`."""
        assert self.scores is not None  # without scores, no month has windows
        return MonthMaps(self.scores, [month.windows for month in self._with_windows], self.kept)

    @property
    def _with_windows(self) -> list[Month]:
        return [month for month in self.months.values() if month.windows]

    def preparation(self) -> Iterator[Callable[[], object]]:
        """Short pieces of work after which tiles are drawn quickly: what months without a raster need.

        Nothing for a store elsewhere, which would be fetched as a whole.
        """
        bare = [number for number, month in enumerate(self._with_windows) if month.raster is None]
        url = self.source.scores_url
        return self.month_maps.preparation(bare) if bare and url and local_path(url) is not None else iter(())

    @cached_property
    def overall(self) -> dict[str, Overall]:
        """Maps over the whole time, by name."""
        found = {}
        for name, title in _OVERALL.items():
            path = self._raster(name)
            if path is not None and name == "status":
                found[name] = _status(path, title)
            elif path is not None:
                low, high = (0.0, 1.0) if name == "score" else _range_of(path, self.grid.shape)
                found[name] = Overall(name, title, low, high, name in _DATES, path)
        # Without a raster, the highest score of all windows means reading all of them.
        if "score" not in found and self.scores is not None and 0 < self.scores["score"].size <= MOST_VALUES:
            found["score"] = Overall("score", _OVERALL["score"], 0.0, 1.0, False, None)
        return found

    @cached_property
    def beta(self) -> float | None:
        """Scale of the built-up index over the area; None where the bands for it are missing."""
        from urbandelta.indices import ROLES, beta_of, coefficients_of, corrected_sums

        stream = self.optical
        if stream is None or self.cube is None:
            return None
        row, stored = self.cube.era.stream(stream), self.cube.bands(stream)
        if not all(row.roles.get(role) in stored for role in ROLES):
            return None
        mean = mean_reflectance(self.cube, stream)
        bands = [mean[..., stored.index(row.roles[role])] for role in ROLES]
        return beta_of([coefficients_of(*corrected_sums(bands[0], bands[1], bands[2], bands[3]))])

    @property
    def optical(self) -> str | None:
        """The optical stream of the cube, if it holds one."""
        if self.cube is None:
            return None
        return next((name for name in self.cube.streams if self.cube.era.stream(name).kind == "optical"), None)

    def month(self, label: str) -> Month:
        """A month by its label; raises `NothingThere`."""
        if label not in self.months:
            labels = list(self.months)
            span = f"{labels[0]} to {labels[-1]}" if labels else "none"
            raise NothingThere(f"no score for {label}; months with a score: {span}")
        return self.months[label]

    def month_pyramid(self, label: str) -> ScorePyramid:
        """Scores of a month."""
        month = self.month(label)
        if month.raster is not None:
            return CogPyramid(month.raster, self.grid.shape)
        # A month without a raster has windows.
        return StorePyramid(self.month_maps, (self._with_windows.index(month),))

    def overall_pyramid(self, name: str) -> tuple[Overall, ScorePyramid]:
        """A map over the whole time; raises `NothingThere`."""
        found = self.overall.get(name)
        if found is None:
            raise NothingThere(f"no map {name!r} here; there are: {', '.join(self.overall) or 'none'}")
        if found.raster is not None:
            # The index of a class is its value.
            low, high = (0.0, LEVELS - 1.0) if found.classes else (found.low, found.high)
            return found, CogPyramid(found.raster, self.grid.shape, low, high)
        # The only map without a raster is the highest score.
        return found, StorePyramid(self.month_maps, tuple(range(len(self._with_windows))))

    def image_pyramid(self, stream: str, moment: str) -> ImagePyramid:
        """An acquisition by stream and time (`moment_of`); raises `NothingThere`."""
        if self.cube is None or stream not in self.cube.streams:
            held = ", ".join(self.cube.streams) if self.cube is not None else "no cube"
            raise NothingThere(f"no stream {stream!r} here; there is: {held}")
        found = np.flatnonzero(moments_of(self.cube.times(stream)) == moment)
        if not found.size:
            raise NothingThere(f"stream {stream} holds no acquisition of {moment}; /api/acquisitions lists them")
        with self._lock:
            if stream not in self._stretches:
                self._stretches[stream] = find_stretch(self.cube, stream)
        return ImagePyramid(self.cube, stream, int(found[0]), self._stretches[stream], self.thumbnails)

    def _month(self, label: str, windows: tuple[int, ...], raster: Path | None) -> Month:
        if self.scores is None or not windows:
            return Month(label, windows, None, None, False, raster)
        members = list(windows)
        start = str(self.scores["window_start"].values[members].min().astype("datetime64[D]"))
        end = str(self.scores["window_end"].values[members].max().astype("datetime64[D]"))
        provisional = "provisional" in self.scores and bool(self.scores["provisional"].values[members].any())
        return Month(label, windows, start, end, provisional, raster)

    def _month_files(self) -> list[tuple[str, Path]]:
        folder = self.source.rasters
        if folder is None:
            return []
        matches = ((_MONTH_FILE.fullmatch(path.name), path) for path in folder.iterdir())
        return [(match[1], path) for match, path in matches if match and _fits(path, self.grid)]

    def _raster(self, name: str) -> Path | None:
        folder = self.source.rasters
        path = folder / f"{name}.tif" if folder is not None else None
        return path if path is not None and path.is_file() and _fits(path, self.grid) else None


class Holder:
    """Keeps one area open and opens it anew when it changed. Safe to use from several threads."""

    def __init__(
        self,
        source: WebSource,
        *,
        scratch_bytes: int = SCRATCH_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self.bricks: ByteCache[Bytes] = ByteCache(BRICK_BYTES, size_of)
        self._thumbnails: ByteCache[Bytes] = ByteCache(THUMBNAIL_BYTES, size_of)
        self._scratch_bytes = scratch_bytes
        self._kept: tuple[str, Kept] | None = None
        self._opened = self._open(_version(source))
        self._looked = clock()

    @property
    def name(self) -> str:
        """Name of the area."""
        return self._source.name

    @property
    def current(self) -> Opened:
        """What was opened last, without a look at the disk."""
        return self._opened

    def get(self) -> Opened:
        """What is open now."""
        with self._lock:
            if self._clock() - self._looked >= LOOK_AGAIN_SECONDS:
                self._look_again()
            return self._opened

    def close(self) -> None:
        """Begin no more work: the server ends."""
        self._opened.kept.close()

    def _look_again(self) -> None:
        try:
            version = _version(self._source)
            if version != self._opened.version:
                self._opened = self._open(version)
        except UrbandeltaError as error:
            # An update may be half-way through replacing a store; what is open goes on being served.
            log.warning("%s: could not be opened anew (%s)", self._source.name, error)
        self._looked = self._clock()

    def _open(self, version: str) -> Opened:
        source = self._source
        scores = open_scores(source.scores_url) if source.scores_url is not None else None
        cube = open_cube(source.cube_url) if source.cube_url is not None else None
        grid = grid_of(scores) if scores is not None else cube.grid if cube is not None else _grid_of_rasters(source)
        if cube is not None and cube.grid != grid:
            log.warning("%s: lies on another grid than the scores; it is not shown", source.cube_url)
            cube = None
        return Opened(source, version, grid, scores, cube, self._thumbnails, self._kept_of(scores))

    def _kept_of(self, scores: xr.Dataset | None) -> Kept:
        """What was kept of the same snapshot: an update may have changed events alone."""
        snapshot = str(scores.attrs["snapshot"]) if scores is not None else ""
        if self._kept is None or self._kept[0] != snapshot:
            self._kept = snapshot, Kept(BLOCK_BYTES, COARSE_BYTES, self._scratch_bytes)
        return self._kept[1]


def moments_of(times: TimeArray) -> npt.NDArray[np.str_]:
    """Times as they stand in addresses: 20210603T104021."""
    texts = np.datetime_as_string(times, unit="s")
    return np.char.replace(np.char.replace(texts, "-", ""), ":", "")


def _version(source: WebSource) -> str:
    """Changes when any store, raster or event file does."""
    parts: list[str] = []
    for url, kind in ((source.scores_url, "scores"), (source.cube_url, "cube")):
        parts.append(open_repository(url, kind=kind).tip() if url is not None else "")
    for folder in (source.rasters, source.events):
        if folder is not None:
            stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
            parts += [f"{name} {stat.st_mtime_ns} {stat.st_size}" for name, stat in stats]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _grid_of_rasters(source: WebSource) -> Grid:
    paths = sorted(source.rasters.glob("*.tif")) if source.rasters is not None else []
    if not paths:
        raise StoreError(f"{source.name}: holds no raster, no scores and no cube; run `urbandelta update` first")
    return Grid.from_raster(paths[0])


def _fits(path: Path, grid: Grid) -> bool:
    """Whether a raster lies on the grid: another one there is not ours to show."""
    try:
        return Grid.from_raster(path).shape == grid.shape
    except UrbandeltaError:
        log.warning("%s: is not shown, it cannot be read", path)
        return False


def _status(path: Path, title: str) -> Overall:
    from urbandelta.events import AlertStatus
    from urbandelta.rasters import STATUS_COLOURS

    # Both confidences of a stage side by side, as a legend of two columns shows them.
    classes = tuple(
        MapClass(status.value, f"{stage}, {confidence}", STATUS_COLOURS[status][:3])
        for stage in ("first", "provisional", "confirmed", "finished")
        for confidence, status in (("low", AlertStatus.of(stage, "low")), ("high", AlertStatus.of(stage, "high")))
    )
    return Overall("status", title, 0.0, float(max(each.value for each in classes)), False, path, classes)


def _range_of(path: Path, shape: tuple[int, int]) -> tuple[float, float]:
    """Lowest and highest value of a raster, from a coarse overview."""
    pyramid = CogPyramid(path, shape)
    level = max(pyramid.most_level - 3, 0)
    height, width = -(-shape[0] // 2**level), -(-shape[1] // 2**level)
    values = pyramid.values(level, slice(0, height), slice(0, width))
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return low, high if high > low else low + 1.0
