"""Steps, carry-forward and windows against the published program's own, bit by bit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import load_golden

import urbandelta as ud
from urbandelta.assemble import stack
from urbandelta.windows import write_csv

STACKS = ("golden_stack", "golden_stack_ers")
PIPELINES = {"golden_stack": "golden_pipeline_s12", "golden_stack_ers": "golden_pipeline_ers"}
SENSORS = ("asc", "dsc", "opt")


@pytest.fixture(scope="module", params=STACKS)
def golden(request: pytest.FixtureRequest, reference: Path) -> tuple[str, Any, dict[str, Any]]:
    return request.param, *load_golden(reference / f"{request.param}.npz")


def moments(seconds: Any) -> Any:
    return np.asarray(seconds).astype("datetime64[s]").astype("datetime64[ns]")


def steps_of(arrays: Any, meta: dict[str, Any]) -> Any:
    times = np.concatenate([arrays[f"{sensor}_time"] for sensor in SENSORS])
    return ud.time_steps(
        moments(times),
        start=moments(meta["start"])[()],
        end=moments(meta["end"])[()],
        step=np.timedelta64(meta["delta_step"], "s"),
    )


def test_steps_are_those_of_the_published_stacking(golden: Any) -> None:
    _, arrays, meta = golden
    np.testing.assert_array_equal(steps_of(arrays, meta), moments(arrays["steps"]))


def test_plain_seconds_give_the_same_steps(golden: Any) -> None:
    _, arrays, meta = golden
    times = np.concatenate([arrays[f"{sensor}_time"] for sensor in SENSORS])
    steps = ud.time_steps(times, start=meta["start"], end=meta["end"], step=meta["delta_step"])
    np.testing.assert_array_equal(steps, arrays["steps"])


def test_windows_of_every_mode(golden: Any) -> None:
    _, arrays, meta = golden
    steps = steps_of(arrays, meta)
    for mode in meta["windows"].values():
        found = ud.find_windows(
            steps,
            length=np.timedelta64(mode["Delta"], "s"),
            min_obs=mode["omega"],
            max_obs=mode["Omega"],
            stride=mode["stride"],
            triplets=mode["triple"],
        )
        parts = [[w.previous, w, w.following] if mode["triple"] else [w] for w in found]
        listed = [[[*map(seconds, (w.start, w.end)), w.count, w.first] for w in part] for part in parts]
        assert listed == mode["detail"]
        rows = [[index, seconds(w.start), seconds(w.end), w.count] for index, w in enumerate(found)]
        assert rows == mode["list"]


def seconds(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[s]").astype(np.int64))


def test_csv_is_the_published_one(golden: Any, reference: Path) -> None:
    name, arrays, meta = golden
    mode = meta["windows"]["m5"]
    found = ud.find_windows(
        steps_of(arrays, meta),
        length=mode["Delta"],
        min_obs=mode["omega"],
        max_obs=mode["Omega"],
        stride=mode["stride"],
    )
    text = io.StringIO()
    write_csv(found, text)
    assert text.getvalue() == json.loads((reference / f"{PIPELINES[name]}.json").read_text())["infer_csv"]


def test_stacked_tiles_are_those_of_the_published_stacking(golden: Any) -> None:
    _, arrays, meta = golden
    for row, column in meta["tiles"]:
        place = (slice(None), slice(row * meta["ty"], (row + 1) * meta["ty"]))
        place = (*place, slice(column * meta["tx"], (column + 1) * meta["tx"]))
        for sensor in SENSORS:
            order = np.argsort(arrays[f"{sensor}_time"], kind="stable")
            stacked = stack(
                [
                    (
                        arrays[f"{sensor}_time"][order],
                        arrays[f"{sensor}_u8"][place][order],
                        arrays[f"{sensor}_mask"][place][order].astype(bool),
                    )
                ],
                arrays["steps"],
            )
            np.testing.assert_array_equal(stacked, arrays[f"tile_{row}_{column}_{sensor}"])
