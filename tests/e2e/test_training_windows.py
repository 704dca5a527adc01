"""`windows --training`: a plan by one command, read back as `train --plan` reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Run, runner

from urbandelta.cli.splitting import read_plan
from urbandelta.errors import ConfigError
from urbandelta.split import leaks

# Labels from dates need no window before and after, of which a short series has none.
PLAN = ("--training", "--label-days", "0", "--tile", "4")
DATES = (*PLAN, "--buffer-px", "4")


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.fixture(scope="module")
def cube(make_cube) -> str:
    return make_cube().url


def test_counts_and_leaks_are_told(run, cube):
    done = run("windows", cube, *DATES)
    assert (done.code, done.err) == (0, "")
    assert "30 tiles of 4 px, split blocks, seed 0" in done.out
    assert "blocks of 2 x 2 tiles, 4 px apart" in done.out
    assert done.out.splitlines()[-1] == "leaks: none"
    published = run("windows", cube, *PLAN, "--split", "checkerboard")
    assert "train and validation tiles are too close, the nearest 0 px apart" in published.out


def test_the_plan_as_json_is_what_a_training_reads(run, cube, tmp_path: Path):
    document = run("windows", cube, *DATES, "--seed", "3", "--json").document()
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    plan = read_plan(file)
    assert plan.counts == document["counts"]
    assert (plan.options.buffer_px, plan.options.seed, plan.options.label_days) == (4, 3, 0)
    assert list(leaks(plan)) == document["leaks"] == []
    assert document["cube"] == cube
    single = run("windows", cube, "--stride", "1", "--json").document()
    assert [(w.first, w.last) for w in plan.windows] == [(w["first"], w["last"]) for w in single]


def test_csv_lists_windows_with_their_roles(run, cube):
    rows = [line.split(",") for line in run("windows", cube, *DATES, "--csv").out.splitlines()]
    plain = [line.split(",") for line in run("windows", cube, "--stride", "1", "--csv").out.splitlines()]
    assert [row[:4] for row in rows] == plain
    assert {row[4] for row in rows} == {"train validation"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--training --tile 4 --buffer-px 4", "no window is left for train and validation; import a longer series"),
        ("--training", "holds no tile of 32 px; lower the tile (--tile)"),
        ("--training --tile 4", "too few for the split blocks with a buffer of 16 px"),
        ("--training --tile 4 --validation 2", "validation 2.0 is out of range"),
        (" ".join((*DATES, "--time-split 2018-01-02")), "with a time split at 2018-01-02"),
        ("--training --tile 4 --split whole", "a whole cube needs a role"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_line(run, cube, words, message):
    done = run("windows", cube, *words.split())
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        "--tile 4",
        "--seed 0",
        "--training --triplets",
        "--training --time-split soon",
        "--training --time-split 0.x",
        "--training --json --csv",
    ],
)
def test_wrong_usage_is_code_2(run, cube, words):
    assert run("windows", cube, *words.split()).code == 2


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path):
    for content in ("", "[]", "{}"):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(ConfigError, match="training plan"):
            read_plan(tmp_path / "plan.json")
    with pytest.raises(ConfigError, match="no training plan"):
        read_plan(tmp_path / "none.json")
