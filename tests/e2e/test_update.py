"""A monitor that is updated night after night: scores and events of one run over everything, and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pyproj
import pytest
import yaml
from command import Run, runner
from filelock import FileLock

from urbandelta.event_files import read_events
from urbandelta.grid import Grid
from urbandelta.monitor import Monitor, load_monitor
from urbandelta.scores import open_scores
from urbandelta.simulate import simulate
from urbandelta.store import create_cube, open_cube
from urbandelta.updating import update

MakeMonitor = Callable[..., Path]
EVENTS_ONLY = {"rasters": False, "stac": False, "events": ["geojson"], "report": False}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("town") / "town.cube"
    scene = simulate("s12", size=32, months=13, seed=7)
    cube = create_cube(str(folder), era="s12", grid=scene.grid)
    for name in scene.era.stream_names:
        cube.append(name, scene.acquisitions(name))
    return folder


def outline(grid: Grid) -> dict[str, Any]:
    """The grid's area as GeoJSON, a little inside, so that the anchored grid over it is this one."""
    west, south, east, north = grid.bounds
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    inner = [(x + (2 if x == west else -2), y + (2 if y == south else -2)) for x, y in corners]
    return {"type": "Polygon", "coordinates": [[list(to_degrees.transform(*corner)) for corner in inner]]}


@pytest.fixture
def make_monitor(tmp_path: Path, town: Path) -> MakeMonitor:
    def make(name: str = "town", **changes: Any) -> Path:
        content = {
            "version": 1,
            "name": name,
            "aoi": {"geometry": outline(open_cube(str(town)).grid)},
            "start": "2019-01-01",
            "store": name,
            "source": {"kind": "cube", "url": str(town)},
            "predict": {"tile": 32, "halo": 4},
            "products": EVENTS_ONLY,
            **changes,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return make


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(capfd)


def results(monitor: Monitor) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    scores = open_scores(monitor.scores_url)
    events = read_events(monitor.folder / "products" / "events" / "events.geojson")
    seen = [
        (event.id, event.geometry.wkt, str(event.first_low), str(event.last_date), int(event.status), event.peak)
        for event in events
    ]
    assert all(event.dated_by == "observations" for event in events)
    return scores["score"].values, sorted(seen)


def nights(count: int) -> list[str]:
    """Dates of updates: some a night apart, some weeks."""
    days = np.concatenate([[200], 200 + np.cumsum(np.resize([1, 12, 1, 30], count - 1))])
    return [str(np.datetime64("2019-01-01") + int(day)) for day in days]


@pytest.mark.slow
def test_twelve_nights_are_one_run(make_monitor: MakeMonitor) -> None:
    nightly, at_once = (load_monitor(make_monitor(name)) for name in ("nightly", "at-once"))
    scored = 0
    for night in nights(12):
        done = update(nightly, until=night)
        assert done.complete
        scored += done.scored
        again = update(nightly, until=night)
        assert again.nothing_new
    update(nightly)
    whole = update(at_once)
    (found, found_events), (expected, expected_events) = results(nightly), results(at_once)
    npt.assert_array_equal(found, expected)
    assert found_events == expected_events
    assert found_events
    assert scored < 12 * whole.windows / 2


def test_an_update_tells_what_it_did_and_a_second_one_opens_nothing(make_monitor: MakeMonitor, run: Run) -> None:
    monitor = make_monitor()
    first = run("update", monitor, "--until", "2019-08-15", "--json")
    assert first.code == 0, first.err
    told = json.loads(first.out)
    assert told["added"].keys() == {"s1_asc", "s1_dsc", "optical"}
    assert told["scored"] == told["windows"] > 0
    assert Path(told["manifest"]).exists()
    second = run("update", monitor, "--until", "2019-08-15")
    assert (second.code, second.out) == (0, "town: nothing new\n")
    # What takes its time is opening stores: a night without news must not pay for it.
    script = (
        "import sys; from urbandelta.cli import main\n"
        f"sys.argv = ['urbandelta', 'update', {str(monitor)!r}, '--until', '2019-08-15']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'icechunk', 'zarr', 'xarray', 'numba', 'rasterio'} & set(sys.modules), 'opened something'"
    )
    quick = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (quick.returncode, quick.stdout) == (0, "town: nothing new\n"), quick.stderr


def test_what_is_lost_is_made_again_and_what_is_imported_by_hand_is_seen(make_monitor: MakeMonitor, run: Run) -> None:
    monitor = make_monitor()
    assert run("update", monitor, "--until", "2019-08-15").code == 0
    loaded = load_monitor(monitor)
    file = loaded.folder / "products" / "events" / "events.geojson"
    file.unlink()
    assert run("update", monitor, "--until", "2019-08-15").code == 0
    assert file.exists()
    assert "nothing new" in run("update", make_monitor(source={"kind": "none"})).out
    assert run("fetch", make_monitor(), "--until", "2019-09-15").code == 0
    by_hand = make_monitor(source={"kind": "none"})
    assert "scored now" in run("update", by_hand).out


def test_before_there_are_enough_observations_it_waits(make_monitor: MakeMonitor, run: Run) -> None:
    monitor = make_monitor()
    done = run("update", monitor, "--until", "2019-02-01")
    assert done.code == 0
    assert "nothing to score yet" in done.out


def test_an_empty_monitor_says_what_to_do(make_monitor: MakeMonitor, run: Run) -> None:
    done = run("update", make_monitor(source={"kind": "none"}))
    assert done.code == 1
    assert "holds no acquisition yet; import some" in done.err


def test_two_at_a_time_are_refused(make_monitor: MakeMonitor, run: Run) -> None:
    monitor = make_monitor()
    folder = load_monitor(monitor).folder
    folder.mkdir()
    with FileLock(folder / "update.lock"):
        (folder / "update.owner.json").write_text('{"process": 4711, "since": "2024-01-01T00:00:00"}')
        done = run("update", monitor)
    assert done.code == 1
    assert "another update of this monitor is running (process 4711" in done.err


def test_who_could_not_be_told_is_told_next_time(make_monitor: MakeMonitor, tmp_path: Path, run: Run) -> None:
    heard = tmp_path / "heard.json"
    listen = [sys.executable, "-c", f"import sys; open({str(heard)!r}, 'w').write(sys.stdin.read())"]
    failing = make_monitor(notify={"command": [sys.executable, "-c", "import sys; sys.exit(3)"]})
    first = run("update", failing)
    assert first.code == 1
    assert "failed:" in first.err
    assert not heard.exists()
    # The command alone differs, so nothing is fetched or scored anew.
    second = run("update", make_monitor(notify={"command": listen}))
    assert second.code == 0, second.err
    assert json.loads(heard.read_text())["lines"]
    heard.unlink()
    assert run("update", make_monitor(notify={"command": listen})).code == 0
    assert not heard.exists()


def test_who_was_told_is_not_told_again_when_the_state_is_lost(
    make_monitor: MakeMonitor, tmp_path: Path, run: Run
) -> None:
    heard, open_door = tmp_path / "heard.jsonl", tmp_path / "door"
    script = f"import sys; open({str(open_door)!r}); open({str(heard)!r}, 'a').write(sys.stdin.read() + chr(10))"
    monitor = make_monitor(notify={"command": [sys.executable, "-c", script]})
    folder = load_monitor(monitor).folder

    def told() -> list[str]:
        """Identifiers of the events of the latest message, which is forgotten."""
        texts = heard.read_text().splitlines() if heard.exists() else []
        heard.unlink(missing_ok=True)
        assert len(texts) <= 1
        return [line["id"] for text in texts for line in json.loads(text)["lines"]]

    assert run("update", monitor).code == 1
    # The state is lost before anybody was told.
    (folder / "state.json").unlink()
    assert run("update", monitor).code == 1
    # Nothing changed since, but somebody listens now.
    open_door.touch()
    assert run("update", monitor).code == 0
    first = told()
    assert first
    (folder / "state.json").unlink()
    assert run("update", monitor).code == 0
    assert told() == []
    # A feed that is begun anew is told whole.
    (folder / "products" / "events" / "events-feed.jsonl").unlink()
    assert run("update", monitor).code == 0
    assert told() == first


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(make_monitor: MakeMonitor) -> None:
    killed, whole = make_monitor("killed"), make_monitor("whole")
    command = [sys.executable, "-m", "urbandelta", "update", str(killed), "--workers", "1"]
    for until, seconds in (("2019-08-15", (3, 6, 9)), ("2019-11-01", (4, 7, 10))):
        for wait in seconds:
            process = subprocess.Popen(
                [*command, "--until", until], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run([*command, "--until", until], check=True, capture_output=True)
    update(load_monitor(whole), until="2019-11-01")
    (found, found_events), (expected, expected_events) = (results(load_monitor(path)) for path in (killed, whole))
    npt.assert_array_equal(found, expected)
    assert found_events == expected_events
