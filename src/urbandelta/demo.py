"""The whole chain on a scene of its own making: simulate, write files, import them, predict, report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from urbandelta.eras import Stream, era_named
from urbandelta.infer import predict
from urbandelta.report import write_report
from urbandelta.simulate import Scene, import_pattern, simulate, write_scenes, write_truth
from urbandelta.simulate.files import MASK_BAND
from urbandelta.sources.base import Found
from urbandelta.sources.calibrate import Encoding, MaskRule
from urbandelta.sources.geotiff import Naming, find_scenes
from urbandelta.sources.importing import ImportJob, NewCube, plan_import, run_import
from urbandelta.sources.pattern import compile_pattern
from urbandelta.types import MaskReason, Progress
from urbandelta.weights import default_weights

Bar: TypeAlias = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar with a title."""

_MASKS = MaskRule(
    band=MASK_BAND,
    reasons=((0, MaskReason.VALID), *((int(reason), reason) for reason in MaskReason)),
    otherwise=MaskReason.OTHER,
)


@dataclass(frozen=True)
class Demo:
    """What a demo left behind."""

    scenes: Path
    cube: Path
    scores: Path
    report: Path


def run_demo(folder: Path, *, era: str = "s12", size: int = 128, months: int = 24, seed: int = 7, bar: Bar) -> Demo:
    """Run the chain in `folder`; run again, it goes on where it stopped, and redoes only the files and the report.

    Parameters
    ----------
    folder : Path
    era : str
    size : int
        Height and width of the scene in pixels.
    months : int
        Length of the series.
    seed : int
        Chooses the scene.
    bar : callable
        `bar(title)` opens a progress bar.
    """
    made = Demo(folder / "scenes", folder / "cube", folder / "scores", folder / "report.html")
    scene = simulate(era, size=size, months=months, seed=seed)
    with bar("simulate") as progress:
        write_scenes(scene, made.scenes, progress=progress)
    truth = write_truth(scene, folder / f"{made.cube.name}.truth.tif")
    for stream in scene.era.streams:
        with bar(f"import {stream.name}") as progress:
            run_import(plan_import(_import_job(made, scene, stream)), progress=progress)
    with bar("predict") as progress:
        predict(str(made.cube), default_weights(era_named(era)), out=str(made.scores), progress=progress)
    write_report(
        str(made.scores),
        made.report,
        cube_url=str(made.cube),
        truth=truth,
        title=f"Simulated city, seed {seed}",
        command=f"urbandelta demo --era {era} --size {size} --months {months} --seed {seed}",
    )
    return made


def _import_job(made: Demo, scene: Scene, stream: Stream) -> ImportJob:
    naming = Naming(pattern=compile_pattern(import_pattern(stream.name)))
    return ImportJob(
        into=str(made.cube),
        stream=stream.name,
        find=lambda _: Found(
            find_scenes(made.scenes, naming),
            level=stream.processing_level,
            coefficient=stream.backscatter_coefficient,
        ),
        where=str(made.scenes),
        new_cube=NewCube(era=scene.era.name, native=True),
        encoding=Encoding(masks=(_MASKS,)),
        orbit=stream.orbit_state,
    )
