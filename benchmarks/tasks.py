"""What is measured of urbandelta itself: one function a task, each on one scenario's cube.

python benchmarks/tasks.py predict --scenario s12-medium --precision bf16
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
from scenarios import SCENARIOS, TILE, cube_of, weights_for

import urbandelta as ud
from urbandelta.assemble import carry_forward, time_steps
from urbandelta.store import Cube
from urbandelta.windows import find_windows

BLOCK = 128
"""Pixels read together, as the cube is chunked."""

Work = Callable[[], dict[str, Any]]


def time_windows(cube: Cube, _: argparse.Namespace) -> Work:
    """Steps and windows of the whole series, from times alone."""

    def work() -> dict[str, Any]:
        era = cube.era
        times = np.unique(np.concatenate([cube.times(name) for name in cube.streams]))
        steps = time_steps(
            times, start=times[0], end=times[-1] + np.timedelta64(1, "s"), step=np.timedelta64(era.step_seconds, "s")
        )
        windows = find_windows(
            steps,
            length=np.timedelta64(era.window_days, "D"),
            min_obs=era.min_obs,
            max_obs=era.max_obs,
            stride=era.stride_inference,
        )
        return {"windows": len(windows), "steps": len(steps), "steps_a_window": np.mean([w.count for w in windows])}

    return work


def time_assemble(cube: Cube, _: argparse.Namespace) -> Work:
    """Every acquisition read and carried forward, block by block, stream by stream."""

    def work() -> dict[str, Any]:
        frames = 0
        for y in range(0, cube.grid.height, BLOCK):
            for x in range(0, cube.grid.width, BLOCK):
                for name in cube.streams:
                    values, mask = cube.read(name, slice(None), slice(y, y + BLOCK), slice(x, x + BLOCK))
                    carry_forward(values, mask == 0, initial=0)
                    frames += len(values)
        return {"block_frames": frames}

    return work


def time_predict(cube: Cube, options: argparse.Namespace) -> Work:
    """A whole prediction: from opening the cube to the last commit of the scores."""
    weights = weights_for(cube.era, options.weights)

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            scores = ud.predict(
                ud.open_cube(cube.url),
                weights,
                tile=TILE,
                halo=0,
                engine=options.engine,
                precision=options.precision,
                out=str(Path(folder) / "scores"),
            )
            steps = float(np.mean(scores["n_obs"].values))
            windows = scores.sizes["window"]
        tiles = SCENARIOS[options.scenario].tiles
        return {"window_tiles": windows * tiles, "windows": windows, "steps_a_window": steps}

    return work


TASKS = {"windows": time_windows, "assemble": time_assemble, "predict": time_predict}
UNITS = {"windows": "windows", "assemble": "block_frames", "predict": "window_tiles"}
"""The count that a task's time is divided by."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--scenario", choices=SCENARIOS, default="s12-medium")
    parser.add_argument("--weights", type=Path, help="weights file (default: random weights)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="fp32")
    measure.add_round_options(parser)
    options = parser.parse_args()
    measure.answer(TASKS[options.task](cube_of(options.scenario), options), options)


if __name__ == "__main__":
    main()
