"""`urbandelta events` on a store, as a user runs it, update after update."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command import Run, runner
from event_scene import GRID, scores_of

from urbandelta.event_files import read_events
from urbandelta.events import find_events
from urbandelta.scores import create_scores
from urbandelta.types import Window

SITES = [(slice(2, 7), slice(2, 7), 200), (slice(15, 20), slice(3, 9), 320)]


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


def store(scores: xr.Dataset, path: Path) -> Path:
    """Scores as `predict` stores them."""
    windows = [
        Window(start, end, int(count), number, number + int(count) - 1)
        for number, (start, end, count) in enumerate(
            zip(scores["window_start"].values, scores["window_end"].values, scores["n_obs"].values, strict=True)
        )
    ]
    attributes = {"identity": {}, "era": "s12", "weights_name": "by hand", "version": "0"}
    writer = create_scores(
        str(path), grid=GRID, windows=windows, chunks=(16, 8, 8), attributes=attributes, overwrite=True
    )
    writer.add(0, slice(0, GRID.height), slice(0, GRID.width), scores["score"].values)
    writer.finish()
    return path


@pytest.fixture
def scores(tmp_path) -> Path:
    return store(scores_of(SITES, windows=60), tmp_path / "scores")


def test_a_table_on_stdout(run, scores):
    done = run("events", scores)
    assert done.code == 0
    rows = done.out.splitlines()
    expected = find_events(scores_of(SITES, windows=60))
    assert [row.split()[0] for row in rows] == ["id", *(event.id for event in expected)]
    assert done.err.splitlines()[-1] == "2 events: 2 finished"


def test_files_in_a_folder_or_one_of_a_name(run, scores, tmp_path):
    done = run("events", scores, "--out", tmp_path / "found")
    assert done.out.split() == [
        str(tmp_path / "found" / name) for name in ("events.gpkg", "events.parquet", "events.geojson")
    ]
    assert len(read_events(tmp_path / "found" / "events.gpkg")) == 2
    told = run("events", scores, "--out", tmp_path / "new.geojson", "--since", "2020-12-01", "--json").document()
    assert (told["events"], told["stages"]) == (len(read_events(tmp_path / "new.geojson")), {"finished": 2})
    only = run("events", scores, "--out", tmp_path / "one", "--format", "geoparquet", "--min-area", 2600).out
    assert only.split() == [str(tmp_path / "one" / "events.parquet")]
    assert len(read_events(tmp_path / "one" / "events.parquet")) == 1


def test_a_feed_grows_with_the_scores_and_tells_a_command(run, tmp_path):
    feed, heard = tmp_path / "events-feed.jsonl", tmp_path / "heard.jsonl"
    script = f"import sys; open({str(heard)!r}, 'a').write(sys.stdin.read() + chr(10))"
    tell = f'{sys.executable} -c "{script}"'
    whole = scores_of(SITES, windows=60)
    kinds = []
    for count in (12, 12, 30, 60, 60):
        path = store(whole.isel(window=slice(0, count)), tmp_path / "scores")
        told = run("events", path, "--feed", feed, "--command", tell, "--json").document()
        kinds.append(sorted(line["kind"] for line in told["feed"]))
    assert kinds == [["new"], [], ["finished", "new"], ["finished"], []]
    lines = [json.loads(line) for line in feed.read_text().splitlines()]
    assert len(lines) == 4
    messages = [json.loads(line) for line in heard.read_text().splitlines()]
    assert [line for message in messages for line in message["lines"]] == lines
    assert {line["id"] for line in lines} == {event.id for event in find_events(whole)}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--low", "0.9"), 1, "low <= threshold"),
        (("--since", "yesterday"), 2, "YYYY-MM-DD"),
        (("--webhook", "HOOK"), 2, "give --feed"),
        (("--out", "a.kml"), 1, "end in"),
        (("--out", "a.gpkg", "--format", "gpkg"), 2, "for a folder"),
        (("--out", "a", "--format", "kml"), 1, "unknown format kml"),
    ],
)
def test_what_cannot_be_is_told(run, scores, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    done = run("events", scores, *words)
    assert done.code == code
    assert message in " ".join(done.err.replace("│", " ").split())


def test_no_store_is_told(run, tmp_path):
    done = run("events", tmp_path / "none")
    assert (done.code, done.out) == (1, "")
    assert "urbandelta: error:" in done.err


@pytest.mark.slow
def test_a_simulated_town_has_events_where_it_is_built(tmp_path):
    from urbandelta.infer import predict
    from urbandelta.simulate import simulate
    from urbandelta.store import create_cube

    scene = simulate("s12", size=48, months=18, seed=301)
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=scene.grid)
    for name in scene.era.stream_names:
        cube.append(name, scene.acquisitions(name))
    predict(cube, "s12_simulated", stride=10, out=str(tmp_path / "scores"), workers=2)
    from urbandelta.scores import open_scores

    found = find_events(open_scores(str(tmp_path / "scores")))
    assert found
    west, _, _, north = scene.grid.bounds
    for event in found:
        point = event.geometry.representative_point()
        row, column = int((north - point.y) // 10), int((point.x - west) // 10)
        true = scene.truth[row, column]
        assert true >= 0
        assert abs(int(event.first_date.astype(int)) - true) <= 40
        assert event.first_low <= np.datetime64(int(true), "D") + np.timedelta64(20, "D")
