"""`urbandelta transfer` and `urbandelta ensemble` as users run them: folds, scores of each, one map; kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from command import Run, runner

from urbandelta.scores import open_scores
from urbandelta.weights import load_weights, save_weights

SMALL = ("--tile", "16", "--buffer", "0", "--batch", "2", "--windows", "2", "--threads", "1")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    words = ["simulate", str(folder / "scene"), "--size", "48", "--months", "9", "--seed", "301", "--all-satellites"]
    subprocess.run([sys.executable, "-m", "urbandelta", *words], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.fixture
def init(make_weights, tmp_path) -> Path:
    return save_weights(make_weights(variant="sar"), tmp_path / "init.safetensors")


def words(scene: Path, init: Path, out: Path) -> list[str]:
    truth = scene / "scene.truth.tif"
    return ["transfer", str(scene / "scene"), "--labels", str(truth), "--init", str(init), "--out", str(out), *SMALL]


def finish(line: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "urbandelta", *line], check=True, stdout=subprocess.DEVNULL)


def test_folds_are_trained_scored_and_combined(run, scene, init, tmp_path):
    out = tmp_path / "place.safetensors"
    made = run(*words(scene, init, out), "--folds", "2", "--epochs", "1", "--json").document()
    assert [item["fold"] for item in made["folds"]] == [0, 1]
    assert json.loads(Path(made["summary"]).read_text())["folds"] == 2
    again = run(*words(scene, init, out), "--folds", "2", "--epochs", "1")
    assert again.out.count("trained before") == 2
    stores = []
    for item in made["folds"]:
        stores.append(tmp_path / f"scores{item['fold']}")
        predicted = run("predict", scene / "scene", "--weights", item["out"], "--out", stores[-1], "--stride", "40")
        assert predicted.code == 0, predicted.err
    combined = run("ensemble", *stores, "--out", tmp_path / "scores", "--rule", "median", "--json").document()
    assert combined["rule"] == "median"
    assert [item["weights_sha256"] for item in combined["members"]] == [item["sha256"] for item in made["folds"]]
    members = [open_scores(str(store))["score"].values for store in stores]
    scores = open_scores(str(tmp_path / "scores"))
    np.testing.assert_allclose(scores["score"], np.mean(members, axis=0), atol=1e-6)
    np.testing.assert_allclose(scores["spread"], np.std(members, axis=0), atol=1e-6)
    assert run("export", tmp_path / "scores", "--to", tmp_path / "maps").code == 0
    with rasterio.open(tmp_path / "maps" / "spread_max.tif") as file:
        assert np.isfinite(file.read(1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--init", "nowhere"], "no such weights file"),
        (["--windows", "0"], "windows 0 is out of range"),
        (["--changed", "7"], "changed value"),
        (["--end", "2000-01-01"], "empty date range"),
        (["--fold", "1"], "--folds"),
    ],
)
def test_errors_are_one_line(run, scene, init, tmp_path, change, message):
    failed = run(*words(scene, init, tmp_path / "w.safetensors"), *change)
    assert failed.code == 1
    assert failed.err.count("\n") == 1
    assert message in failed.err


@pytest.mark.slow
def test_killed_transfers_end_with_the_same_weights(scene, init, tmp_path):
    options = ["--epochs", "3", "--checkpoint-every", "1", "--dropout", "0.2"]
    calm = tmp_path / "calm.safetensors"
    # Every run is a process of its own, as a user's are: what ran before in a process may change the last bits.
    finish([*words(scene, init, calm), *options])
    out = tmp_path / "w.safetensors"
    checkpoint = tmp_path / "w.run" / "last.ckpt"
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        with subprocess.Popen(
            [sys.executable, "-m", "urbandelta", *words(scene, init, out), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if checkpoint.exists() and checkpoint.stat().st_mtime_ns > before:
                    break
                time.sleep(0.01)
            process.kill()
        assert process.returncode in (0, -signal.SIGKILL)
    finish([*words(scene, init, out), *options])
    assert load_weights(out).sha256 == load_weights(calm).sha256
