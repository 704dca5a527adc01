"""The OSCD experiment runs from given lists, stores what it trained, and scores another city with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "experiments" / "oscd" / "run.py"
TINY = ("steps=3", "batch=2", "crop=32", "views=1")


def _run(*arguments: object) -> str:
    done = subprocess.run([sys.executable, str(RUN), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_trains_on_given_cities_and_scores_others(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    data = tmp_path / "data"
    data.mkdir()
    for part in ("images", "labels"):  # and no sentinel1: the network has to do without
        (data / part).symlink_to(real_data / "oscd" / part)
    common = ("--data", data, "--out", tmp_path / "out", "--jobs", 1)
    table = _run(*common, "--train", "paris", "rennes", "--test", "bercy", "--groups", 2, "--set", *TINY)
    assert "bercy, pooled" in table
    assert "SAR" not in table

    (fold,) = json.loads((tmp_path / "out" / "results.json").read_text())["folds"]
    assert len(fold["members"]) == 3  # one on both cities, one without each
    assert 0 < fold["threshold"] < 1
    assert 0 <= fold["cities"]["bercy"]["pr_auc"] <= 1

    files = [tmp_path / "out" / "members" / f"{name}.safetensors" for name in fold["members"]]
    _run(*common, "--name", "again", "--weights", *files, "--threshold", fold["threshold"], "--test", "bercy")
    (again,) = json.loads((tmp_path / "out" / "again.json").read_text())["folds"]
    for figures in (fold["pooled"], again["pooled"]):
        figures.pop("f1_nested")  # only a training has members that were left out of a part
    # Torch adds up in another order where other threads are free: the sixth digit of a score moves.
    assert again["pooled"] == pytest.approx(fold["pooled"], rel=1e-4, nan_ok=True)


@pytest.mark.slow
def test_refuses_to_measure_on_a_city_that_was_trained_on(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    common = ("--data", real_data / "oscd", "--out", tmp_path, "--jobs", 1)
    _run(*common, "--train", "paris", "--test", "bercy", "--no-calibration", "--set", *TINY)
    stored = next((tmp_path / "members").glob("*.safetensors"))
    done = subprocess.run(
        [sys.executable, str(RUN), *map(str, common), "--weights", str(stored), "--test", "paris"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "was trained on paris" in done.stderr
