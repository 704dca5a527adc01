"""GeoTIFF, COG and JPEG 2000 files whose names tell date and band.

Files whose names give the same time (or the same `{scene}`) are one acquisition. Bands come from a `{band}` field,
from the files' own band descriptions, or are named in order.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from urbandelta.errors import GridError, SourceError
from urbandelta.grid import Grid, normal_crs
from urbandelta.sources.base import Layer, Part, Scene
from urbandelta.sources.pattern import Match, NamePattern, compile_pattern, parse_time
from urbandelta.types import Array, BoolArray, OrbitState

log = logging.getLogger(__name__)

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
SKIP = "-"
"""Name for a band that is not to be imported."""

_ORBITS: Mapping[str, OrbitState] = {"a": "ascending", "d": "descending"}


@dataclass(frozen=True, eq=False)
class RasterLayer:
    """One band (counted from 1) of a raster file."""

    path: Path
    band: int
    grid: Grid
    nodata: float | None
    scale: float
    offset: float
    has_mask: bool

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.path)

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window, and which of them the file's own mask or alpha band hides."""
        window = RasterWindow.from_slices(rows, columns)
        try:
            source = _kept_open(self.path, self.path.stat().st_mtime_ns)
            with rasterio.Env():  # without it GDAL prints its own words about a damaged file
                values = source.read(self.band, window=window)
                masked = source.read_masks(self.band, window=window) == 0 if self.has_mask else None
        except (RasterioError, OSError) as error:
            raise SourceError(
                f"{self.path}: pixels cannot be read ({_cause(error)}); the file is cut short or damaged, fetch it"
            ) from error
        return values, masked


@dataclass(frozen=True)
class RasterInfo:
    """Header of a raster file."""

    path: Path
    grid: Grid
    descriptions: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    has_mask: bool

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.descriptions)

    def layer(self, band: int) -> RasterLayer:
        """Band `band`, counted from 1."""
        index = band - 1
        return RasterLayer(
            self.path, band, self.grid, self.nodata[index], self.scales[index], self.offsets[index], self.has_mask
        )


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How files and their bands are told apart.

    `bands` names the bands of each file in order (`-` skips one). `dates` gives the time of each `{scene}`, `date`
    that of the only one.
    """

    pattern: NamePattern = field(default_factory=lambda: compile_pattern("{*}"))
    bands: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    date: np.datetime64 | None = None
    dates: Mapping[str, np.datetime64] = field(default_factory=dict)
    crs: str | None = None


def find_scenes(source: Path, naming: Naming) -> list[Scene]:
    """Scenes of a folder (searched at any depth) or of a single file.

    Raises
    ------
    SourceError
        If nothing matches, a date is missing, a file is unreadable, or two files hold the same band of a scene.
    """
    grouped: dict[tuple[str, ...], list[tuple[Path, Match]]] = {}
    for path, match in _matches(source, naming.pattern):
        time = _time_of(path, match, naming)
        others = {name: match.fields.get(name, "") for name in ("platform", "orbit", "track", "baseline", "scene")}
        grouped.setdefault((str(time), *others.values()), []).append((path, match))
    return [_scene(group, naming) for _, group in sorted(grouped.items())]


def read_info(path: Path, *, crs: str | None = None) -> RasterInfo:
    """Header of a raster file; `crs` is for files that have none.

    Raises
    ------
    SourceError
        If the file is missing, no raster, not georeferenced, rotated, or in another CRS than declared.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file")
    try:
        with open_raster(path) as source:
            grid = _grid_of(source, path, crs)
            return RasterInfo(
                path=path,
                grid=grid,
                descriptions=tuple(text or "" for text in source.descriptions),
                nodata=tuple(None if value is None else float(value) for value in source.nodatavals),
                scales=tuple(float(value) for value in source.scales),
                offsets=tuple(float(value) for value in source.offsets),
                has_mask=any(
                    MaskFlags.per_dataset in flags or MaskFlags.alpha in flags for flags in source.mask_flag_enums
                ),
            )
    except RasterioError as error:
        raise SourceError(f"{path}: not a readable raster ({_cause(error)}); fetch or convert it again") from error


def open_raster(path: str | Path, *, opener: Callable[..., Any] | None = None) -> DatasetReader:
    """`rasterio.open` without its warning about files that are not georeferenced: `read_info` refuses those."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, opener=opener)


@lru_cache(maxsize=4)  # a file with hundreds of bands takes a third of a second to open, each time
def _kept_open(path: Path, modified_ns: int) -> DatasetReader:
    log.debug("opening %s as of %d", path, modified_ns)
    return open_raster(path)


def read_dates(path: Path) -> dict[str, np.datetime64]:
    """Dates of scenes from a text file with a line `KEY: DATE` each.

    Raises
    ------
    SourceError
        If the file is missing or a line is neither empty, a comment (#) nor `KEY: DATE`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as a list of dates ({error})") from error
    dates = {}
    for number, line in enumerate(lines, start=1):
        key, colon, value = line.partition(":")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not colon:
            raise SourceError(f"{path}:{number}: expected KEY: DATE, found {line.strip()!r}")
        dates[key.strip()] = parse_time(value, where=f"{path}:{number}")
    return dates


def _matches(source: Path, pattern: NamePattern) -> list[tuple[Path, Match]]:
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder")
    if source.is_file():
        match = pattern.match(source.name)
        found = [] if match is None else [(source, match)]
        candidates = [source]
    else:
        candidates = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        found = [
            (path, match)
            for path in candidates
            if (match := pattern.match(path.relative_to(source).as_posix())) is not None
        ]
    if not found:
        example = f", such as {candidates[0].name}" if candidates else ""
        raise SourceError(
            f"{source}: none of {len(candidates)} rasters{example} matches the pattern {pattern.text!r}; correct it"
        )
    return found


def _time_of(path: Path, match: Match, naming: Naming) -> np.datetime64:
    if match.time is not None:
        return match.time
    if naming.dates:
        return _dated(match.fields.get("scene"), naming.dates, path)
    if naming.date is not None:
        return naming.date
    raise SourceError(f"{path}: no date; add {{date:FORMAT}} to --pattern, or give --date or --dates FILE")


def _dated(scene: str | None, dates: Mapping[str, np.datetime64], path: Path) -> np.datetime64:
    if scene is None:
        raise SourceError(f"{path}: dates from a file are looked up by {{scene}}; add that field to --pattern")
    # `date_1: 20161209` is meant for scene 1 of a folder `imgs_1`.
    keys = [key for key in dates if key == scene] or [key for key in dates if key.endswith(f"_{scene}")]
    if len(keys) != 1:
        raise SourceError(f"{path}: {len(keys)} dates fit scene {scene!r}; keys of the file: {', '.join(dates)}")
    return dates[keys[0]]


def _scene(group: Sequence[tuple[Path, Match]], naming: Naming) -> Scene:
    layers: dict[str, Layer] = {}
    for path, match in group:
        for name, layer in _named_layers(path, match, naming):
            if name in layers:
                raise SourceError(
                    f"{path}: holds band {name} of the same acquisition as {layers[name].origin}; "
                    "narrow --pattern, or tell them apart with {scene} and merge them with --merge-within"
                )
            layers[name] = layer
    path, match = group[0]
    fields = match.fields
    return Scene(
        time=_time_of(path, match, naming),
        parts=(Part(layers, _common_name([path for path, _ in group])),),
        platform=fields.get("platform", ""),
        relative_orbit=_track(fields.get("track", ""), path),
        orbit_state=_orbit(fields.get("orbit", ""), path),
        processing_baseline=fields.get("baseline", ""),
    )


def _named_layers(path: Path, match: Match, naming: Naming) -> list[tuple[str, RasterLayer]]:
    info = read_info(path, crs=naming.crs)
    names = _band_names(info, match.fields.get("band"), naming)
    return [
        (naming.rename.get(name, name), info.layer(index))
        for index, name in enumerate(names, start=1)
        if name not in ("", SKIP)
    ]


def _band_names(info: RasterInfo, field_name: str | None, naming: Naming) -> tuple[str, ...]:
    if field_name is not None:
        if info.count != 1:
            raise SourceError(f"{info.path}: has {info.count} bands where {{band}} in its name promises one")
        return (field_name,)
    if naming.bands:
        if info.count != len(naming.bands):
            raise SourceError(f"{info.path}: has {info.count} bands, --bands names {len(naming.bands)}")
        return naming.bands
    if not any(info.descriptions):
        raise SourceError(f"{info.path}: its {info.count} bands have no names; give them with --bands or {{band}}")
    return info.descriptions


def _grid_of(source: DatasetReader, path: Path, crs: str | None) -> Grid:
    own = None if source.crs is None else source.crs.to_wkt()
    if own is None and crs is None:
        raise SourceError(f"{path}: has no CRS; declare it with --source-crs EPSG:...")
    if own is not None and crs is not None and normal_crs(own) != normal_crs(crs):
        raise SourceError(f"{path}: is in {normal_crs(own)[:60]}, not in the declared {crs}; leave --source-crs out")
    try:
        return Grid(own or str(crs), tuple(source.transform)[:6], source.height, source.width)
    except GridError as error:
        raise SourceError(f"{path}: {error}") from error


def _common_name(paths: Sequence[Path]) -> str:
    """What the file names of one acquisition have in common, in whole words; else their folder."""
    words = [path.stem.split("_") for path in paths]
    shared = [same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, zip(*words, strict=False))]
    return "_".join(shared) or paths[0].parent.name


def _track(text: str, path: Path) -> int:
    digits = "".join(character for character in text if character.isdigit())
    if text and not digits:
        raise SourceError(f"{path}: track {text!r} has no number; correct {{track}} in --pattern")
    return int(digits) if digits else -1


def _orbit(text: str, path: Path) -> OrbitState:
    if not text:
        return ""
    try:
        return _ORBITS[text[0].lower()]
    except KeyError as error:
        raise SourceError(f"{path}: {text!r} is no orbit direction (ascending, descending)") from error


def _cause(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
