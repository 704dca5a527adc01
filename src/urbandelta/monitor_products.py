"""What a monitor writes beside its scores: files of events, rasters, their catalogue, a table per district, the page.

Used by `update` into the store and by `replay` into a scratch folder, so that both make the same from the same scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from urbandelta.types import Progress

if TYPE_CHECKING:
    from urbandelta.events import Event
    from urbandelta.grid import Grid
    from urbandelta.monitor import Monitor
    from urbandelta.store import Cube

__all__ = [
    "DISTRICTS_FOLDER",
    "EVENTS_FOLDER",
    "RASTERS_FOLDER",
    "REPORT_NAME",
    "STAC_FOLDER",
    "MadeProducts",
    "make_products",
]

EVENTS_FOLDER = "events"
RASTERS_FOLDER = "rasters"
STAC_FOLDER = "stac"
DISTRICTS_FOLDER = "districts"
REPORT_NAME = "report.html"
_DISTRICT_FILES = ("districts.csv", "districts_months.csv", "districts.json", "districts.png")


@dataclass(frozen=True, kw_only=True)
class MadeProducts:
    """Events of the scores, and the files that tell of them: written now, or left alone as they say the same."""

    events: tuple[Event, ...]
    grid: Grid
    written: tuple[Path, ...]
    kept: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, by name."""
        return tuple(sorted({*self.written, *self.kept}))


def make_products(
    monitor: Monitor,
    folder: Path,
    *,
    scores_url: str,
    cube: Cube | None = None,
    progress: Progress | None = None,
) -> MadeProducts:
    """Write the products that a monitor asks for into a folder; files that say the same already are left alone.

    Parameters
    ----------
    monitor : Monitor
    folder : path
        Made if absent; gets `events`, `rasters`, `stac`, `districts` and `report.html`.
    scores_url : str
    cube : Cube, optional
        That of the scores: its acquisitions date changes, and are named and counted.
    progress : callable, optional

    Raises
    ------
    StoreError
        If there are no scores.
    AoiError
        If the districts cannot be read.
    EventError, ProductError
        If something cannot be written.
    """
    from urbandelta.events import find_events
    from urbandelta.products import grid_of
    from urbandelta.repository import icechunk_errors
    from urbandelta.scores import open_scores

    options = monitor.events.options()
    wanted = monitor.products
    written: list[Path] = []
    kept: list[Path] = []
    # Scores are read when their values are needed, so a lost or damaged file shows only then.
    with icechunk_errors(scores_url):
        scores = open_scores(scores_url)
        grid = grid_of(scores)
        events = find_events(scores, options, grid=grid, cube=cube)
        files: list[Path] = []
        if wanted.events:
            from urbandelta.event_files import FILE_NAMES, provenance_of_events, write_events

            targets = [folder / EVENTS_FOLDER / FILE_NAMES[name] for name in wanted.events]
            with _noting(targets, written, kept):
                files = write_events(
                    events,
                    folder / EVENTS_FOLDER,
                    formats=wanted.events,
                    grid=grid,
                    provenance=provenance_of_events(scores, options),
                )
        if wanted.rasters:
            from urbandelta.rasters import write_rasters

            rasters = write_rasters(
                scores, folder / RASTERS_FOLDER, events=events, options=options, cube=cube, progress=progress
            )
            written += rasters.written
            kept += rasters.kept
        if wanted.rasters and wanted.stac:
            from urbandelta.stac_items import write_stac

            described = write_stac(
                scores,
                folder / RASTERS_FOLDER,
                folder / STAC_FOLDER,
                name=monitor.name,
                platforms=[] if cube is None else _platforms(cube),
                events=files,
            )
            written += described.written
            kept += described.kept
        if wanted.districts is not None:
            from urbandelta.zonal import write_zonal

            source, target = monitor.resolve(wanted.districts), folder / DISTRICTS_FOLDER
            with _noting([target / name for name in _DISTRICT_FILES], written, kept):
                write_zonal(scores, source, target, cube=cube, events=events, options=options)
    if wanted.report:
        from urbandelta.report import write_report

        page = folder / REPORT_NAME
        folder.mkdir(parents=True, exist_ok=True)
        with _noting([page], written, kept):
            write_report(
                scores_url,
                page,
                cube_url=None if cube is None else cube.url,
                title=monitor.name,
                threshold=options.threshold,
                events=events,
            )
    return MadeProducts(events=tuple(events), grid=grid, written=tuple(written), kept=tuple(kept))


def _platforms(cube: Cube) -> list[str]:
    names = {str(name) for stream in cube.streams for name in cube.attributes(stream).platforms}
    return sorted(names - {"", "unknown"})


@contextmanager
def _noting(targets: Sequence[Path], written: list[Path], kept: list[Path]) -> Iterator[None]:
    """Note which of some files say something else afterwards."""
    before = {path: _state(path) for path in targets}
    yield
    for path in targets:
        (kept if before[path] is not None and before[path] == _state(path) else written).append(path)


def _state(path: Path) -> bytes | None:
    return hashlib.sha256(path.read_bytes()).digest() if path.exists() else None
