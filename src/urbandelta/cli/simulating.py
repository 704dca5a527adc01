"""`urbandelta simulate`: a cube in which everything that changes is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.simulate import Scene
    from urbandelta.store import Cube


def simulate_command(
    cube: Annotated[
        str, typer.Argument(help="Cube to write; the truth goes beside it: CUBE.truth.tif, CUBE.truth-last.tif.")
    ],
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
    keep_bits: Annotated[
        int, typer.Option(help="Mantissa bits kept of radar values; 12 are 0.0005 dB, 23 are all.")
    ] = 12,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cube that is there already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a simulated scene as a cube, with the date of every change beside it.

    Fields change crop, leaves fall, soil gets wet: that is no urban change. Buildings appear at known dates; the truth
    holds the first day of construction (int32 days since 1970-01-01, -1 where nothing is built), a second file the day
    from which a pixel has its final look.
    """
    from urbandelta.simulate import simulate, write_last_truth, write_truth
    from urbandelta.store import create_cube

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
    added = _fill(target, scene, keep_bits)
    # Last, so that a truth beside a cube says that the cube is complete.
    last_truth = write_last_truth(scene, Path(f"{cube.rstrip('/')}.truth-last.tif"))
    truth = write_truth(scene, Path(f"{cube.rstrip('/')}.truth.tif"))
    summary = {
        "cube": cube,
        "truth": str(truth),
        "truth_last": str(last_truth),
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
        print_json(summary)
        return
    counts = ", ".join(f"{count} {name}" for name, count in added.items())
    typer.echo(f"{cube}: {counts}; {summary['changed_pixels']} pixels change, dates in {truth}")


def _fill(cube: Cube, scene: Scene, keep_bits: int) -> dict[str, int]:
    """Append all acquisitions under a bar on stderr; number of acquisitions of each stream."""
    from urbandelta.precision import rounded

    total = sum(len(scene.passes(name)) for name in scene.era.stream_names)
    added: dict[str, int] = {}
    with progress_bar("simulate") as progress:
        for name in scene.era.stream_names:
            before = sum(added.values())

            def report(done: int, _total: int, message: str, before: int = before) -> None:
                progress(before + done, total, message)

            added[name] = cube.append(
                name, rounded(scene.acquisitions(name), keep_bits=keep_bits), progress=report
            ).added
    return added
