"""Writers killed at random moments (SIGKILL): what was committed stays, and running them again completes the stores."""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.errors import StoreError
from urbandelta.grid import Grid, blocks
from urbandelta.store import create_cube, create_scores, open_cube, open_scores, resume_scores
from urbandelta.types import Acquisition, Window

GRID = Grid.from_bounds((500000, 5000000, 501600, 5001600), "EPSG:32631", (160, 160))
RUN = {"identity": {"run": 1}}
DAYS = 8
WINDOWS = 6


def acquisition(day):
    values = np.random.default_rng(day).gamma(4, 0.05, (*GRID.shape, 2)).astype(np.float32)
    return Acquisition(
        time=np.datetime64("2020-01-01", "ns") + np.timedelta64((day * 3) % DAYS, "D"),
        values=values,
        mask=np.zeros(GRID.shape, np.uint8),
        bands=("VV", "VH"),
    )


def contribution(block_id, y, x):
    return np.random.default_rng(block_id).random((WINDOWS, y.stop - y.start, x.stop - x.start)).astype(np.float32)


def plan():
    return list(enumerate(blocks(GRID.shape, tile=32, halo=8, block=64)))


def work(cube_url, scores_url):
    """What a killed command does when it is run again."""
    try:
        cube = open_cube(cube_url, "a")
    except StoreError:
        cube = create_cube(cube_url, era="s12", grid=GRID)
    cube.append("s1_asc", (acquisition(day) for day in range(DAYS)), progress=lambda *_: say())
    say()
    cube.compact()
    say()
    try:
        writer = resume_scores(scores_url, RUN)
    except StoreError:
        first, day = np.datetime64("2020-01-01", "ns"), np.timedelta64(1, "D")
        spans = [Window(first + i * day, first + (i + 30) * day, 10, i, i + 9) for i in range(WINDOWS)]
        writer = create_scores(scores_url, grid=GRID, windows=spans, chunks=(4, 64, 64), attributes=RUN)
    for block_id, block in plan():
        if block_id not in writer.done:
            writer.add(block_id, *block.patch, contribution(block_id, *block.patch))
        say()
    writer.finish()


def say():
    print(".", flush=True)


def run_and_kill(urls, rng):
    process = subprocess.Popen([sys.executable, __file__, *urls], stdout=subprocess.PIPE, text=True)
    with process:
        for _ in range(rng.randint(0, DAYS + 2 + len(plan()))):
            process.stdout.readline()
        time.sleep(rng.random() * 0.1)
        process.kill()


def committed(urls):
    """What the stores hold now, nothing where they do not exist yet; a damaged store raises here."""
    cube, scores = (Path(url).exists() for url in urls)
    times = set(open_cube(urls[0]).times("s1_asc").tolist()) if cube else set()
    return times, resume_scores(urls[1], RUN).done if scores else frozenset()


def check(folder, kills):
    urls = [str(folder / "cube"), str(folder / "scores")]
    rng = random.Random(kills)
    times, done = set(), frozenset()
    for _ in range(kills):
        run_and_kill(urls, rng)
        now = committed(urls)
        assert now[0] >= times
        assert now[1] >= done
        times, done = now
    subprocess.run([sys.executable, __file__, *urls], check=True, stdout=subprocess.DEVNULL)
    values, _ = open_cube(urls[0]).read("s1_asc", slice(None), slice(None), slice(None))
    expected = sorted((acquisition(day) for day in range(DAYS)), key=lambda each: each.time)
    npt.assert_array_equal(values, np.stack([each.values for each in expected]))
    score = np.zeros((WINDOWS, *GRID.shape), np.float32)
    for block_id, block in plan():
        score[(slice(None), *block.patch)] += contribution(block_id, *block.patch)
    data = open_scores(urls[1])
    npt.assert_array_equal(data["score"], score)
    assert data.attrs["complete"]


def test_killed_writers_lose_nothing(tmp_path):
    check(tmp_path, kills=1)


@pytest.mark.slow
def test_often_killed_writers_lose_nothing(tmp_path):
    check(tmp_path, kills=16)


def test_killed_creation_is_done_again(tmp_path):
    # What a kill between writing the new repository and renaming it leaves behind.
    create_cube(str(tmp_path / ".cube.creating"), era="s12", grid=GRID)
    with pytest.raises(StoreError, match="no such cube"):
        open_cube(str(tmp_path / "cube"))
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)
    assert cube.append("s1_asc", [acquisition(0)]).added == 1
    assert not (tmp_path / ".cube.creating").exists()


if __name__ == "__main__":
    work(*sys.argv[1:])
