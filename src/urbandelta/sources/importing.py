"""One import, whatever the files: decide stream, grid and selection, then append to the cube.

Everything that can be known without reading pixels is checked before a cube is created, and the first acquisition is
read before it too: an import that cannot work leaves no empty cube behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from urbandelta.eras import Stream, era_named
from urbandelta.errors import ConfigError, SourceError, StoreError
from urbandelta.grid import Grid, read_aoi
from urbandelta.precision import rounded
from urbandelta.repository import local_path
from urbandelta.sources.base import (
    Declared,
    Found,
    Recipe,
    Scene,
    SceneSource,
    check_scenes,
    merge_scenes,
    native_grid,
    overlaps,
)
from urbandelta.sources.calibrate import Encoding
from urbandelta.sources.choices import Resampling, ZeroRule
from urbandelta.sources.empties import Empties
from urbandelta.store import Cube, create_cube, open_cube
from urbandelta.types import Acquisition, Progress

if TYPE_CHECKING:
    from urbandelta.masking import MaskingRules
    from urbandelta.matching import Matching

UNKNOWN = "unknown"
"""What a user says who does not know: stored as such, and refused or accepted where it matters."""


@dataclass(frozen=True, kw_only=True)
class NewCube:
    """Era and grid for a cube that does not exist yet; for one that does, they must agree with it.

    The grid is one of: `native` (the first acquisition's own), that of the raster `grid_from`, the anchored one
    of `bbox` or `aoi` with pixels of `pixel_m`, or `grid` itself.
    """

    era: str = ""
    native: bool = False
    grid: Grid | None = None
    grid_from: Path | None = None
    bbox: tuple[float, float, float, float] | None = None
    aoi: Path | None = None
    pixel_m: float | None = None
    crs: str | None = None

    def __post_init__(self) -> None:
        given = (self.grid, self.grid_from, self.bbox, self.aoi)
        ways = [self.native, *(way is not None for way in given)]
        if sum(ways) > 1:
            raise ConfigError("give one of --grid native, --grid-from, --bbox and --aoi, not several")
        anchored = self.bbox is not None or self.aoi is not None
        if not anchored and (self.pixel_m is not None or self.crs is not None):
            raise ConfigError("--pixel-m and --crs belong to --bbox or --aoi; other grids bring their own")


@dataclass(frozen=True, kw_only=True)
class ImportJob:
    """An import as asked for. `find` lists the scenes of the source for a stream."""

    into: str
    stream: str
    find: Callable[[Stream], Found]
    where: str
    new_cube: NewCube = field(default_factory=NewCube)
    encoding: Encoding = field(default_factory=Encoding)
    zero: ZeroRule | None = None
    declared: Declared = field(default_factory=Declared)
    orbit: str = ""
    resampling: Resampling = "nearest"
    only: tuple[str, ...] = ()
    merge_within: float | None = None
    keep_bits: int | None = None
    """Mantissa bits kept of float values; None keeps them as they are."""
    match: str = ""
    """Weights (a file or a shipped set) whose expected mean the values are brought to; "" leaves them."""
    masking: MaskingRules | None = None
    """What is masked besides what the files say; None: nothing."""


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    `skipped` acquisitions were stored before. `empty` ones have no observed pixel on the grid: they are not stored, and
    for a local cube remembered; `noted` ones were found empty by an earlier import of the same files by the same
    options, and not read again.
    """

    added: int
    skipped: int
    empty: int
    noted: int
    snapshot: str


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """An import decided, nothing written yet."""

    into: str
    era: str
    source: SceneSource
    cube: Cube | None
    other_orbit: int
    outside: int
    keep_bits: int | None = None
    match: str = ""


def plan_import(job: ImportJob) -> ImportPlan:
    """Find the scenes and decide everything that needs no pixel.

    Raises
    ------
    ConfigError
        If era or grid of a new cube are missing, or contradict the cube that exists.
    SourceError
        If the source holds nothing usable for the stream and grid, or lacks a declaration.
    """
    cube = existing_cube(job.into)
    era = _era_name(job, cube)
    whole_stream = era_named(era).stream(job.stream)
    stream = _chosen_bands(whole_stream, job.only)
    found = job.find(whole_stream)
    recipe = _recipe(job, stream, found)
    scenes, other_orbit = _of_orbit(found.scenes, stream, job.where)
    if job.merge_within is not None:
        scenes = merge_scenes(scenes, seconds=job.merge_within)
    ordered = check_scenes(scenes, recipe, where=job.where)
    recipe = replace(recipe, declared=_declared(job, stream, found, ordered))
    if recipe.masking is not None:
        recipe.masking.check(stream, level=recipe.declared.level)
    grid = _grid(job, cube, ordered, stream, era_named(era).pixel_m, era_named(era).crs)
    inside = tuple(scene for scene in ordered if overlaps(scene, recipe, grid))
    if not inside:
        raise SourceError(
            f"{job.where}: none of {len(ordered)} acquisitions reaches the cube's grid ({grid}); "
            "check the CRS of the files and the area of the cube"
        )
    return ImportPlan(
        into=job.into,
        era=era,
        source=SceneSource(inside, recipe, grid),
        cube=cube,
        other_orbit=other_orbit,
        outside=len(ordered) - len(inside),
        keep_bits=job.keep_bits,
        match=job.match,
    )


def run_import(plan: ImportPlan, *, progress: Progress | None = None) -> ImportReport:
    """Append the acquisitions of a plan, one commit each; creates the cube if there is none.

    Acquisitions without an observed pixel on the grid are left out and remembered.

    Raises
    ------
    SourceError
        If a file cannot be read. Acquisitions before it stay stored, each whole; running again adds the rest.
    StoreError
        If the stream holds another acquisition of the same time, or data in another encoding.
    """
    source = _matched(plan) if plan.match else plan.source
    empties = Empties.of(plan.into, source)
    source = replace(source, scenes=empties.unknown)
    acquisitions = rounded(empties.left_out(_counted(source, progress)), keep_bits=plan.keep_bits)
    first = next(acquisitions, None)
    if first is None and plan.cube is None:
        total = len(plan.source.scenes)
        raise SourceError(
            f"{source.recipe.source}: none of {total} acquisitions has a pixel with data on {source.grid}; "
            "check --nodata, --zero and the masks"
        )
    cube = plan.cube or create_cube(plan.into, era=plan.era, grid=plan.source.grid)
    arriving = acquisitions if first is None else chain([first], acquisitions)
    report = cube.append(plan.source.recipe.stream.name, arriving)
    return ImportReport(
        added=report.added,
        skipped=report.skipped,
        empty=empties.count,
        noted=empties.noted,
        snapshot=report.snapshot,
    )


def _matched(plan: ImportPlan) -> SceneSource:
    """The source with one gain for all; a stream that was matched to the same weights before keeps its gain."""
    from urbandelta.matching import find_matching
    from urbandelta.weights import find_weights

    source = plan.source
    weights = find_weights(plan.match)
    if weights.era.name != plan.era:
        raise ConfigError(f"--match {plan.match}: weights of era {weights.era.name}, the cube is of era {plan.era}")
    name = source.recipe.stream.name
    matching = _earlier_matching(plan.cube, name, weights.sha256) if plan.cube is not None else None
    if matching is None:
        matching = find_matching(source.acquisitions(), weights, name)
    return replace(source, recipe=replace(source.recipe, matching=matching))


def _earlier_matching(cube: Cube, stream: str, sha256: str) -> Matching | None:
    from urbandelta.matching import Matching

    if stream not in cube.streams:
        return None
    newest = json.loads(str(cube.acquisitions(stream)["provenance"].values[-1]))
    document = newest.get("matching")
    if document is None or document["weights_sha256"] != sha256:
        raise SourceError(
            f"{cube.url}: its stream {stream} is not matched to these weights; a stream has one gain, import it anew"
        )
    return Matching.from_dict(document)


def _counted(source: SceneSource, progress: Progress | None) -> Iterator[Acquisition]:
    total = len(source.scenes)
    done = 0
    try:
        for acquisition in source.acquisitions():
            if progress is not None:
                progress(done, total, acquisition.item_id)
            yield acquisition
            done += 1
    except SourceError as error:
        stored = f"; {done} of {total} acquisitions are stored, run again for the rest" if done else ""
        raise SourceError(f"{error}{stored}") from error
    if progress is not None:
        progress(total, total, "")


def existing_cube(url: str) -> Cube | None:
    """The cube at a URL, open for appending, or None where there is none yet."""
    path = local_path(url)
    if path is not None:
        absent = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        return None if absent else open_cube(url, mode="a")
    try:
        return open_cube(url, mode="a")
    except StoreError:
        # Absent or unreachable: creating it tells which, and never touches what is there.
        return None


def _era_name(job: ImportJob, cube: Cube | None) -> str:
    asked = job.new_cube.era
    if cube is None:
        if not asked:
            raise ConfigError(f"{job.into}: no such cube yet; to create it give --era and a grid")
        return asked
    if asked and asked != cube.era.name:
        raise ConfigError(f"{job.into}: is a cube of era {cube.era.name}, not {asked}; leave --era out")
    return cube.era.name


def _chosen_bands(stream: Stream, only: tuple[str, ...]) -> Stream:
    unknown = [band for band in only if band not in stream.bands]
    if unknown:
        raise ConfigError(f"--only {','.join(unknown)}: stream {stream.name} has {', '.join(stream.bands)}")
    return replace(stream, bands=tuple(band for band in stream.bands if band in only)) if only else stream


def _recipe(job: ImportJob, stream: Stream, found: Found) -> Recipe:
    # Radar scenes are filled with zeros beside the swath, and linear power is never exactly 0.
    zero: ZeroRule = job.zero or ("nodata" if stream.kind == "sar" else "valid")
    encoding = replace(job.encoding, zero=zero, masks=found.masks + job.encoding.masks)
    return Recipe(
        stream=stream,
        encoding=encoding,
        declared=job.declared,
        resampling=job.resampling,
        source=job.where,
        masking=job.masking or None,
    )


def _of_orbit(scenes: Sequence[Scene], stream: Stream, where: str) -> tuple[list[Scene], int]:
    if not stream.orbit_state:
        return list(scenes), 0
    kept = [scene for scene in scenes if scene.orbit_state in ("", stream.orbit_state)]
    if scenes and not kept:
        raise SourceError(f"{where}: no acquisition is {stream.orbit_state}, as stream {stream.name} needs")
    return kept, len(scenes) - len(kept)


def _declared(job: ImportJob, stream: Stream, found: Found, scenes: Sequence[Scene]) -> Declared:
    """What the user or the source says about the data; refuses to guess what decides whether scores mean anything."""
    level = job.declared.level or found.level
    coefficient = job.declared.coefficient or found.coefficient
    orbit_recorded = all(scene.orbit_state for scene in scenes)
    missing = [
        f"{option} (the method expects {wanted})"
        for option, known, wanted in (
            ("--level", level, stream.processing_level),
            ("--coefficient", coefficient, stream.backscatter_coefficient),
            ("--orbit", job.orbit or orbit_recorded, stream.orbit_state),
        )
        if wanted and not known
    ]
    if missing:
        raise SourceError(
            f"{job.where}: the files do not say what they hold; declare {' and '.join(missing)}, or {UNKNOWN}"
        )
    if job.orbit not in ("", UNKNOWN) and job.orbit != stream.orbit_state:
        wanted = stream.orbit_state or "either orbit direction"
        raise SourceError(f"{job.where}: stream {stream.name} is for {wanted}, not for {job.orbit} data")
    orbit_state = stream.orbit_state if job.orbit == stream.orbit_state else ""
    return replace(job.declared, level=level, coefficient=coefficient, orbit_state=orbit_state)


def _grid(
    job: ImportJob, cube: Cube | None, scenes: Sequence[Scene], stream: Stream, pixel_m: float, crs: str | None
) -> Grid:
    asked = _asked_grid(job.new_cube, scenes, stream, pixel_m, crs)
    if cube is None and asked is None:
        raise ConfigError(
            f"{job.into}: no such cube yet; give its grid with --grid native, --grid-from FILE, --bbox or --aoi"
        )
    if cube is not None and asked is not None and asked != cube.grid:
        raise ConfigError(f"{job.into}: lies on {cube.grid}, not on {asked}; leave the grid options out")
    grid = asked if cube is None else cube.grid
    assert grid is not None
    return grid


def _asked_grid(new: NewCube, scenes: Sequence[Scene], stream: Stream, pixel_m: float, crs: str | None) -> Grid | None:
    if new.native:
        return native_grid(scenes[0], stream)
    if new.grid is not None:
        return new.grid
    if new.grid_from is not None:
        return Grid.from_raster(new.grid_from)
    area = new.bbox if new.bbox is not None else new.aoi
    return (
        None
        if area is None
        else Grid.for_aoi(read_aoi(area), pixel_m=pixel_m if new.pixel_m is None else new.pixel_m, crs=new.crs or crs)
    )
