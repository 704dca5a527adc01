"""`urbandelta import tfrecord` and `import scores`: data sets of the published scripts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.import_options import Bounds, names_in, option
from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.sources.placement import Placement
    from urbandelta.sources.stack_import import StackReport

_WHERE = "Where the files lie, which they do not say"


@dataclass(frozen=True, kw_only=True)
class PlacementFlags:
    """Where tiles lie."""

    grid_from: Annotated[
        Path | None, option("--grid-from", "On the grid of this raster or cube, from its north-west corner.", _WHERE)
    ] = None
    source_bounds: Annotated[
        Bounds | None, option("--source-bounds", "WEST SOUTH EAST NORTH of the whole area, in --source-crs.", _WHERE)
    ] = None
    source_crs: Annotated[str | None, option("--source-crs", "CRS of the area, such as EPSG:3035.", _WHERE)] = None
    source_shape: Annotated[
        tuple[int, int] | None,
        option("--source-shape", "HEIGHT WIDTH of the whole area in pixels [as far as tiles reach].", _WHERE),
    ] = None

    @property
    def placement(self) -> Placement:
        """As the library has it."""
        from urbandelta.sources.placement import Placement

        return Placement(
            grid_from=self.grid_from, bounds=self.source_bounds, crs=self.source_crs, shape=self.source_shape
        )


@takes_options
def import_tfrecord(
    source: Annotated[Path, typer.Argument(help="Folder of ROW_COLUMN.tfrecords and metadata.json.")],
    *,
    into: Annotated[str, typer.Option(help="Cube to add to; created if --era and a place are given.")],
    stream: Annotated[str, typer.Option(help="Only these streams, NAME,NAME [all].")] = "",
    era: Annotated[str, typer.Option(help="Era of a new cube: s12 or ers12ls5.")] = "",
    where: PlacementFlags,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be stored, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import stacked tiles of the published scripts: every stream, each image once.

    Each stream is stored where it changed; carried forward, it gives the stacked images again, bit by bit.
    """
    from urbandelta.sources.stack_import import describe_stack, import_stack

    streams = names_in(stream)
    if dry_run:
        grid, found = describe_stack(source, into=into, era=era, streams=streams, placement=where.placement)
        if as_json:
            print_json({name: [f"{item.time}Z" for item in items] for name, items in found.items()})
            return
        for name, items in found.items():
            dates = f", {str(items[0].time)[:10]} to {str(items[-1].time)[:10]}" if items else ""
            typer.echo(f"{name}: {len(items)} acquisitions{dates}")
        typer.echo(f"would go onto {grid}")
        return
    with progress_bar("import tfrecord") as progress:
        report = import_stack(source, into=into, era=era, streams=streams, placement=where.placement, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    _tell(report, into)


def _tell(report: StackReport, into: str) -> None:
    for name, part in report.streams.items():
        typer.echo(f"{into}: {part.added} acquisitions added to {name}, {part.skipped} were there already")
    missing = f", {report.facts['missing_tiles']} missing" if report.facts["missing_tiles"] else ""
    typer.echo(
        f"{report.facts['tiles']} tiles{missing}; {report.steps} steps, {report.still_steps} of them without change; "
        f"snapshot {report.snapshot}"
    )
    if report.start:
        typer.echo(f"predict with --start {report.start} to keep these steps")


@takes_options
def import_scores(
    source: Annotated[Path, typer.Argument(help="A .npy (window, y, x), or a folder of ROW_COLUMN.npy tiles.")],
    *,
    windows: Annotated[Path, typer.Option("--windows", metavar="CSV", help="Window list: id, start, end, count.")],
    out: Annotated[str, typer.Option("--out", metavar="SCORES", help="Score store to write.")],
    era: Annotated[str, typer.Option(help="Era of the scores: s12 or ers12ls5.")],
    deadzone: Annotated[int, typer.Option(help="Pixels at the edge of each tile that its neighbours answer for.")] = 0,
    where: PlacementFlags,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a score store that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import results of the published scripts as scores, which `evaluate`, `events`, `export` and `report` take."""
    from urbandelta.published_scores import import_published_scores

    with progress_bar("import scores") as progress:
        report = import_published_scores(
            source,
            windows=windows,
            out=out,
            era=era,
            deadzone=deadzone,
            placement=where.placement,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    state = "all was there already" if report.done_before else f"{report.tiles} tiles"
    typer.echo(
        f"{out}: {report.windows} windows, {state}, scores for {report.covered:.0%} of the area; "
        f"snapshot {report.snapshot}"
    )
