"""`urbandelta simulate`: a cube in which everything that changes is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from urbandelta.simulate import Scene, simulate, write_truth
from urbandelta.store import Cube, create_cube


def simulate_command(
    cube: Annotated[str, typer.Argument(help="Cube to write; the truth goes beside it, into CUBE.truth.tif.")],
    era: Annotated[str, typer.Option(help="s12 (Sentinel-1 and 2) or ers12ls5 (ERS and Landsat 5).")] = "s12",
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 128,
    months: Annotated[int, typer.Option(help="Length of the series.")] = 24,
    seed: Annotated[int, typer.Option(help="Chooses the scene; the same seed gives the same scene.")] = 7,
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD [one at which all satellites flew].")] = "",
    looks: Annotated[int, typer.Option(help="Looks of the radar's speckle; 0 takes what the era assumes.")] = 0,
    cloudiness: Annotated[float, typer.Option(help="Mean share of clouds over the year, 0 to 0.95.")] = 0.5,
    lost_satellite: Annotated[
        bool, typer.Option("--lost-satellite/--all-satellites", help="One radar satellite fails for some months.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cube that is there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a simulated scene as a cube, with the date of every change beside it.

    Fields change crop, leaves fall, soil gets wet: that is no urban change. Buildings appear at known dates; the truth
    holds the first day of construction (int32 days since 1970-01-01, -1 where nothing is built).
    """
    scene = simulate(
        era,
        size=size,
        months=months,
        seed=seed,
        start=start or None,
        looks=looks or None,
        cloudiness=cloudiness,
        lost_satellite=lost_satellite,
    )
    target = create_cube(cube, era=era, grid=scene.grid, overwrite=overwrite)
    added = _fill(target, scene)
    # Last, so that a truth beside a cube says that the cube is complete.
    truth = write_truth(scene, Path(f"{cube.rstrip('/')}.truth.tif"))
    summary = {
        "cube": cube,
        "truth": str(truth),
        "era": era,
        "seed": seed,
        "size": size,
        "start": str(scene.start)[:10],
        "days": scene.days,
        "acquisitions": added,
        "changed_pixels": int((scene.truth >= 0).sum()),
        "snapshot": target.snapshot,
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    counts = ", ".join(f"{count} {name}" for name, count in added.items())
    typer.echo(f"{cube}: {counts}; {summary['changed_pixels']} pixels change, dates in {truth}")


def _fill(cube: Cube, scene: Scene) -> dict[str, int]:
    """Append all acquisitions under a bar on stderr; number of acquisitions of each stream."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    added: dict[str, int] = {}
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for name in scene.era.stream_names:
            task = bar.add_task(name, total=len(scene.passes(name)))
            acquisitions = bar.track(scene.acquisitions(name), task_id=task)
            added[name] = cube.append(name, acquisitions).added
    return added
