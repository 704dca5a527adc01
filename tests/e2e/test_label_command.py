"""`urbandelta label` as users run it: what it prints, what it refuses, and that a kill at any moment loses nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
from command import Run, runner
from label_scene import make_scene, write_dates

from urbandelta.label_store import open_labels
from urbandelta.store import open_cube

ALL = slice(None)
PATIENCE_SECONDS = 120


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return Path(make_scene(tmp_path_factory.mktemp("label") / "cube").url)


def test_summary_and_labels(run, scene):
    before = open_cube(str(scene)).snapshot
    document = run("label", scene, "--stride", 3, "--json").document()
    labels = open_labels(str(scene))
    read = labels.read(ALL, ALL, ALL)
    assert document["windows"] == len(labels.windows) == len(read)
    assert document["pixels_labelled"] == int(np.isfinite(read).sum())
    assert document["mean"] == pytest.approx(float(np.nanmean(read)), rel=1e-5)
    assert document["looks"] == 4
    assert document["betas"]["before"][0] == pytest.approx(labels.betas[:, 0].min())
    assert document["betas"]["after"][1] == pytest.approx(labels.betas[:, 1].max())
    assert document["snapshot"] == labels.snapshot
    assert open_cube(str(scene)).snapshot == before
    told = run("label", scene, "--stride", 3)
    assert told.code == 0
    assert "windows" in told.out
    assert "4 looks" in told.out
    assert open_labels(str(scene)).snapshot == labels.snapshot
    assert open_cube(str(scene)).history()[0].snapshot == before


def test_other_rules(run, scene, tmp_path):
    document = run("label", scene, "--name", "auto", "--looks", "auto", "--stride", 9, "--json").document()
    assert document["looks"] == pytest.approx(4, rel=0.05)
    dates = write_dates(tmp_path / "dates.tif")
    document = run("label", scene, "--name", "dated", "--from-dates", dates, "--stride", 9, "--json").document()
    assert document["rule"] == "dates"
    assert document["looks"] is None
    assert document["betas"] == {"before": None, "after": None}
    assert document["mean"] > 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nothing"], 1, "no such cube"),
        (["{cube}", "--mode", "best"], 1, "unknown mode 'best'"),
        (["{cube}", "--start", "2019-03-01"], 1, "no window with one before and one after"),
        (["{cube}", "--name", "No!"], 1, "cannot name labels"),
        (["{cube}", "--name", "d", "--from-dates", "{elsewhere}"], 1, "another grid"),
        (["{cube}", "--name", "d", "--from-dates", "none.tif"], 1, "not a readable raster"),
        (["{cube}", "--looks", "many"], 2, "neither a number nor auto"),
        (["{cube}", "--start", "soon"], 2, "not a date"),
    ],
)
def test_errors(run, scene, tmp_path, words, code, message):
    places = {"cube": scene, "elsewhere": write_dates(tmp_path / "elsewhere.tif", shift_m=30)}
    outcome = run("label", *(word.format(**places) for word in words))
    assert outcome.code == code
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_labels_of_another_run_are_kept(run, scene):
    run("label", scene, "--name", "kept", "--stride", 9)
    snapshot = open_labels(str(scene), "kept").snapshot
    refused = run("label", scene, "--name", "kept", "--stride", 9, "--shift", 0.5)
    assert refused.code == 1
    assert "shift" in refused.err
    assert open_labels(str(scene), "kept").snapshot == snapshot
    assert run("label", scene, "--name", "kept", "--stride", 9, "--shift", 0.5, "--overwrite").code == 0
    assert open_labels(str(scene), "kept").snapshot != snapshot


def commits(cube: Path) -> int:
    return len(list((cube / "snapshots").glob("*")))


def kill_after(words: list[str], cube: Path, more: int) -> bool:
    """Run a command, killed after some commits; whether it had ended before."""
    goal = commits(cube) + more
    with subprocess.Popen([sys.executable, "-m", "urbandelta", *words], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and commits(cube) < goal and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
    return process.returncode == 0


def test_killed_labelling_goes_on(run, scene, monkeypatch):
    calm = ["label", str(scene), "--stride", "3", "--name", "calm", "--workers", "1"]
    assert run(*calm).code == 0
    expected = open_labels(str(scene), "calm")
    words = [*calm[:-3], "killed", "--workers", "1"]
    done = -1
    # The branch, four blocks of betas, four of labels, the end: killed in each part.
    # A snapshot is written a moment before its branch shows it, hence two at first.
    for more in (2, 3, 3):
        assert not kill_after(words, scene, more)
        attributes = open_labels(str(scene), "killed").attributes
        now = attributes["sums_done"] + attributes["blocks_done"]
        assert now > done
        assert not attributes["complete"]
        done = now
    assert done >= 4
    assert run(*words).code == 0
    labels = open_labels(str(scene), "killed")
    assert labels.complete
    npt.assert_array_equal(labels.betas, expected.betas)
    npt.assert_array_equal(labels.read(ALL, ALL, ALL), expected.read(ALL, ALL, ALL))
