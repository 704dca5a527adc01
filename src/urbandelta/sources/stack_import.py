"""An import of stacked tiles: all streams of a folder into a cube."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from urbandelta.eras import Era, Stream, era_named
from urbandelta.errors import ConfigError
from urbandelta.grid import Grid
from urbandelta.sources.importing import existing_cube
from urbandelta.sources.placement import Placement
from urbandelta.sources.tfrecord import StackSource, TileStack, find_stack, stack_facts, steps_kept_by
from urbandelta.store import AppendReport, Cube, create_cube
from urbandelta.tfrecord import Limits
from urbandelta.types import Acquisition, Progress


@dataclass(frozen=True, kw_only=True)
class StackReport:
    """What an import of stacked tiles did."""

    streams: dict[str, AppendReport]
    steps: int
    still_steps: int
    """Steps at which no stream changed, kept as acquisitions without a valid pixel."""
    start: str
    """Start of a prediction that keeps all steps, or "" if no midnight does."""
    snapshot: str
    facts: dict[str, Any] = field(default_factory=dict)


def import_stack(
    folder: Path,
    *,
    into: str,
    era: str = "",
    streams: tuple[str, ...] = (),
    placement: Placement | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> StackReport:
    """Store stacked tiles as acquisitions; creates the cube if there is none. Doing it again adds nothing.

    Parameters
    ----------
    folder : Path
        Tiles and their `metadata.json`.
    into : str
        Cube.
    era : str
        Of a new cube.
    streams : tuple of str
        Only these; by default all of the era.
    placement : Placement
        Grid of a new cube; for one that exists it must agree.

    Raises
    ------
    ConfigError
        If era or placement of a new cube are missing, or contradict the cube that exists.
    SourceError
        If a file is damaged or something else. Acquisitions before it stay stored.
    """
    stack = find_stack(folder)
    cube, row, grid = _target(stack, folder, into, era, placement or Placement())
    chosen = tuple(row.stream(name) for name in streams) or row.streams
    watch = _Watch()
    reports: dict[str, AppendReport] = {}
    for stream in chosen:
        source = _source(stack, row, stream, grid, limits)
        acquisitions = source.acquisitions(progress)
        if source.keep_steps:
            acquisitions = watch.over(acquisitions)
        # The first is read before a cube is made: an import that cannot work leaves none behind.
        opening = list(_first(acquisitions))
        cube = cube or create_cube(into, era=row.name, grid=grid)
        reports[stream.name] = cube.append(stream.name, chain(opening, acquisitions))
    assert cube is not None
    times = np.unique(np.concatenate([cube.times(name) for name in reports if name in cube.streams]))
    start = steps_kept_by(times, row.step_seconds) if times.size else None
    return StackReport(
        streams=reports,
        steps=len(times),
        still_steps=watch.still,
        start="" if start is None else str(start.astype("datetime64[D]")),
        snapshot=cube.snapshot,
        facts=stack_facts(stack),
    )


def describe_stack(
    folder: Path,
    *,
    into: str,
    era: str = "",
    streams: tuple[str, ...] = (),
    placement: Placement | None = None,
    limits: Limits | None = None,
) -> tuple[Grid, dict[str, list[Any]]]:
    """What `import_stack` would store, per stream, and on which grid; writes nothing."""
    stack = find_stack(folder)
    _, row, grid = _target(stack, folder, into, era, placement or Placement())
    chosen = tuple(row.stream(name) for name in streams) or row.streams
    return grid, {stream.name: list(_source(stack, row, stream, grid, limits).describe()) for stream in chosen}


def _source(stack: TileStack, era: Era, stream: Stream, grid: Grid, limits: Limits | None) -> StackSource:
    # Steps at which nothing changed belong to no stream; the era's first keeps them.
    return StackSource(stack, era=era, stream=stream, grid=grid, keep_steps=stream == era.streams[0], limits=limits)


def _target(stack: TileStack, folder: Path, into: str, era: str, placement: Placement) -> tuple[Cube | None, Era, Grid]:
    cube, asked = existing_cube(into), placement.grid(stack.extent, where=str(folder))
    if cube is None:
        if not era or asked is None:
            raise ConfigError(
                f"{into}: no such cube yet; to create it give --era, and where the tiles lie with --grid-from, or "
                "--source-bounds and --source-crs: TFRecords do not say it"
            )
        return None, era_named(era), asked
    if era and era != cube.era.name:
        raise ConfigError(f"{into}: is a cube of era {cube.era.name}, not {era}; leave --era out")
    if asked is not None and asked != cube.grid:
        raise ConfigError(f"{into}: lies on {cube.grid}, not on {asked}; leave the grid options out")
    return cube, cube.era, cube.grid


def _first(acquisitions: Iterator[Acquisition]) -> Iterator[Acquisition]:
    found = next(acquisitions, None)
    if found is not None:
        yield found


class _Watch:
    """Counts acquisitions without a valid pixel as they pass."""

    def __init__(self) -> None:
        self.still = 0

    def over(self, acquisitions: Iterator[Acquisition]) -> Iterator[Acquisition]:
        for acquisition in acquisitions:
            self.still += int(acquisition.mask.all())
            yield acquisition
