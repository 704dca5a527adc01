"""`urbandelta import` and `urbandelta predict` killed (SIGKILL) again and again, as users run them: real processes.

After each kill the stores must open, and what was committed before must still be there, bit by bit. Run to the end at
last, the scores must equal those of a run that nothing disturbed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
import xarray as xr
from affine import Affine
from command import Run, runner

from urbandelta.eras import ERAS
from urbandelta.runs import prepare_run
from urbandelta.scores import open_scores, resume_scores
from urbandelta.store import open_cube
from urbandelta.weights import load_weights, save_weights

KILLS = int(os.environ.get("URBANDELTA_KILLS", "50"))
SIZE, DATES, EVERY_DAYS = 24, 20, 9
HALO = 2
TILING = {"tile": 8, "halo": HALO}
PATIENCE_SECONDS = 120


def write_images(folder: Path) -> None:
    """GeoTIFFs of all streams, one file an acquisition."""
    for shift, stream in enumerate(ERAS["s12"].streams):
        for number in range(DATES):
            rng = np.random.default_rng([shift, number])
            day = np.datetime64("2018-01-01") + number * EVERY_DAYS + 3 * shift
            path = folder / stream.name / f"{str(day).replace('-', '')}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                path, "w", driver="GTiff", count=len(stream.bands), height=SIZE, width=SIZE, dtype="float32",
                crs="EPSG:32631", transform=Affine(10, 0, 500_000, 0, -10, 5_000_240),
            ) as target:  # fmt: skip
                target.write(rng.uniform(0.01, 0.5, (len(stream.bands), SIZE, SIZE)).astype(np.float32))


def commands(folder: Path, images: Path, weights: Path) -> list[list[str]]:
    """The words of each step, in order; each can be run again."""
    cube, config = str(folder / "cube"), load_weights(weights).config
    imports = [
        ["import", "geotiff", str(images / stream.name), "--into", cube, "--stream", stream.name, "--era", "s12"]
        + ["--grid", "native", "--pattern", "{date:%Y%m%d}.tif", "--bands", ",".join(stream.bands)]
        + ["--level", stream.processing_level, "--coefficient", stream.backscatter_coefficient]
        + (["--orbit", stream.orbit_state] if stream.orbit_state else [])
        for stream in ERAS["s12"].streams
        if stream.kind in config.paths
    ]
    tiling = [word for name, value in TILING.items() for word in (f"--{name}", str(value))]
    predict = ["predict", cube, "--weights", str(weights), "--out", str(folder / "scores"), *tiling]
    return [*imports, [*predict, "--stride", "1", "--workers", "1"]]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "urbandelta", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(words: list[str]) -> None:
    with start(words) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


def kill_at_random(words: list[str], count: Callable[[], int], rng: random.Random) -> bool:
    """Start a command, kill it a random number of commits later; whether it had ended by itself before."""
    more = rng.choice((0, 1, 1, 2, 3))
    goal = count() + more
    with start(words) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and count() < goal and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None:
            # Anywhere in the next commit, or anywhere from the start to some commits on.
            time.sleep(rng.uniform(0, 0.15 if more else 4))
        process.kill()
        err = process.stderr.read()
    assert process.returncode in (0, -9), err
    return process.returncode == 0


def snapshots(store: Path) -> int:
    """Commits of a store, from its files alone: cheap, and no reader's lock gets in the writer's way."""
    return len(list((store / "snapshots").glob("*"))) if store.exists() else 0


def committed(cube: Path) -> Mapping[tuple[str, int], bytes]:
    """Every acquisition that the cube holds, as bytes; a damaged cube raises."""
    if not cube.exists():
        return {}
    opened, found = open_cube(str(cube)), {}
    for name in opened.streams:
        values, mask = opened.read(name, slice(None), slice(None), slice(None))
        for at, moment in enumerate(opened.times(name).astype(np.int64).tolist()):
            found[name, moment] = values[at].tobytes() + mask[at].tobytes()
    return found


def check_blocks(folder: Path, weights: Path, expected: np.ndarray) -> frozenset[int]:
    """Blocks that are done; each must hold its final scores, but for the border that is blended with its neighbours."""
    if not (folder / "scores").exists():
        return frozenset()
    run = prepare_run(open_cube(str(folder / "cube")), load_weights(weights), stride=1, **TILING)
    done, scores = resume_scores(str(folder / "scores"), run.attributes).done, read_scores(folder)
    for index in done:
        inner = tuple(slice(part.start + 2 * HALO, part.stop - 2 * HALO) for part in run.plan.blocks[index].patch)
        assert np.isfinite(scores[(slice(None), *inner)]).all()
        npt.assert_array_equal(scores[(slice(None), *inner)], expected[(slice(None), *inner)])
    return done


def read_scores(folder: Path) -> np.ndarray:
    scores: xr.Dataset = open_scores(str(folder / "scores"))
    return scores["score"].to_numpy()


def check_survives(run: Run, tmp_path: Path, weights: Path, *, kills: int) -> None:
    images, calm = tmp_path / "images", tmp_path / "calm"
    write_images(images)
    calm.mkdir()
    for words in commands(calm, images, weights):
        assert run(*words).code == 0
    truth, expected = committed(calm / "cube"), read_scores(calm)
    assert len(truth) == DATES * (len(commands(calm, images, weights)) - 1)
    assert np.isfinite(expected).all()

    rng, survived, life = random.Random(kills), 0, 0
    while survived < kills:
        # One life of the stores: from nothing to the end, killed on the way as often as it takes.
        life += 1
        folder = tmp_path / str(life)
        folder.mkdir()
        survived += live(folder, images, weights, expected, rng, kills=min(kills - survived, 10))
        assert committed(folder / "cube") == truth
        npt.assert_array_equal(read_scores(folder), expected)
        assert open_scores(str(folder / "scores")).attrs["complete"]


def live(folder: Path, images: Path, weights: Path, expected: np.ndarray, rng: random.Random, *, kills: int) -> int:
    """Bring stores to their end with up to `kills` kills, spread over the commands; returns how many."""
    steps = commands(folder, images, weights)
    before: Mapping[tuple[str, int], bytes] = {}
    done: frozenset[int] = frozenset()
    happened = 0
    for number, words in enumerate(steps, start=1):
        store = folder / ("scores" if words[0] == "predict" else "cube")
        ended = False
        while happened < kills * number // len(steps) and not ended:
            ended = kill_at_random(words, lambda store=store: snapshots(store), rng)
            happened += not ended
            now, blocks = committed(folder / "cube"), check_blocks(folder, weights, expected)
            assert all(now[key] == content for key, content in before.items())
            assert blocks >= done
            before, done = now, blocks
        if not ended:
            finish(words)
    return happened


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.mark.slow
def test_many_kills_change_nothing(run, tmp_path, make_weights):
    weights = save_weights(make_weights(), tmp_path / "weights.safetensors")
    check_survives(run, tmp_path, weights, kills=KILLS)


def test_three_kills_change_nothing(run, tmp_path, make_weights):
    weights = save_weights(make_weights(variant="sar"), tmp_path / "weights.safetensors")
    check_survives(run, tmp_path, weights, kills=3)
