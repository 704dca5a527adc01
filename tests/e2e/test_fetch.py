"""Fetching from a real server on this machine: the same cube as importing, whatever goes wrong on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from command import Run, runner
from fetch_scene import COLLECTIONS, Published, digests, publish
from servers.stac_api import Contents, StacServer, stac_server

from urbandelta import archive_access, transport
from urbandelta.fetching import fetch
from urbandelta.monitor import load_monitor
from urbandelta.store import open_cube

STREAMS = tuple(COLLECTIONS)


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Pauses of a test, not of an archive."""
    options = transport.TransportOptions(pause_seconds=0.01, longest_pause=0.02, read_seconds=2.0)
    monkeypatch.setattr(archive_access, "PATIENCE", options)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Two months, served."""
    with serving(tmp_path_factory.mktemp("short"), months=2) as pair:
        yield pair


def serving(folder: Path, *, months: int):
    from contextlib import contextmanager

    @contextmanager
    def both():
        scenes = folder / "scenes"
        scenes.mkdir()
        contents = Contents(page=20, folder=scenes)
        with stac_server(contents) as server:
            published = publish(scenes, f"{server.url}/files", months=months)
            contents.items = published.items
            yield published, server

    return both()


@pytest.fixture
def served(short):
    published, server = short
    server.contents.fault, server.contents.token = None, None
    server.contents.items = list(published.items)
    server.contents.asked.clear()
    yield published, server
    server.contents.fault, server.contents.token = None, None


def write_monitor(folder: Path, published: Published, server: StacServer, *, name: str = "town", **more) -> Path:
    """A monitor file for a server."""
    source = {"kind": "stac", "archive": "custom", "url": server.url, "streams": published.streams()}
    document = {
        "version": 1,
        "name": name,
        "aoi": {"bbox": published.bbox},
        "start": "2019-01-01",
        "end": "2020-01-01",
        "store": name,
        "source": source,
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def import_all(run: Run, published: Published, cube: Path) -> None:
    for stream in STREAMS:
        words = published.import_words(stream, cube)
        assert run("import", "geotiff", *words, "--era", "s12", "--bbox", *published.bbox).code == 0


def cube_digests(path: Path) -> dict[str, list[str]]:
    return digests(open_cube(str(path)))


@pytest.fixture(scope="module")
def imported(short, tmp_path_factory) -> dict[str, list[str]]:
    """Digests of the cube that importing the same files makes."""
    from typer.testing import CliRunner

    from urbandelta.cli.importing import app

    published, _ = short
    cube = tmp_path_factory.mktemp("imported") / "cube"
    for stream in STREAMS:
        words = [*published.import_words(stream, cube), "--era", "s12", "--bbox", *map(str, published.bbox)]
        CliRunner().invoke(app, ["geotiff", *words], catch_exceptions=False)
    return cube_digests(cube)


def test_fetch_equals_import_and_finds_nothing_more_to_do(run, served, tmp_path, imported):
    published, server = served
    monitor = write_monitor(tmp_path, published, server)
    planned = run("fetch", monitor, "--dry-run", "--json").document()
    assert planned["new"] == len(published.items)
    assert not (tmp_path / "town" / "cube").exists()
    done = run("fetch", monitor, "--json").document()
    assert sum(done["added"].values()) == len(published.items)
    assert done["complete"]
    assert cube_digests(tmp_path / "town" / "cube") == imported
    reads = {path: count for path, count in server.contents.asked.items() if path.startswith("/files/")}
    again = run("fetch", monitor)
    assert again.code == 0
    assert f"{len(published.items)} known already" in again.out
    assert reads == {path: count for path, count in server.contents.asked.items() if path.startswith("/files/")}
    assert run("fetch", monitor, "--dry-run", "--json").document()["new"] == 0


def test_neither_workers_nor_blocks_change_a_bit(served, tmp_path, imported):
    published, server = served
    for name, options in {"one": {"workers": 1, "block_rows": 5}, "many": {"workers": 5, "block_rows": 27}}.items():
        report = fetch(load_monitor(write_monitor(tmp_path, published, server, name=name)), **options)
        assert report.complete
        assert cube_digests(tmp_path / name / "cube") == imported


def test_metadata_of_the_items_are_kept(served, tmp_path):
    published, server = served
    fetch(load_monitor(write_monitor(tmp_path, published, server)), streams=["s1_asc"], until="2019-02-01")
    cube = open_cube(str(tmp_path / "town" / "cube"))
    assert cube.streams == ("s1_asc",)
    known = cube.acquisitions("s1_asc")
    assert set(known["platform"].values) == {"S1A", "S1B"}
    assert set(known["relative_orbit"].values) == {88}
    assert set(known["orbit_state"].values) == {"ascending"}
    assert set(known["backscatter_coefficient"].values) == {"gamma0"}
    assert cube.times("s1_asc")[-1] < np.datetime64("2019-02-01")
    provenance = json.loads(str(known["provenance"].values[0]))
    assert provenance["items"] == [str(known["item_id"].values[0])]
    assert provenance["files"][0].startswith(server.url)


def test_everything_arrives_although_each_request_fails_at_first(run, served, tmp_path, imported):
    published, server = served
    kinds = ("429", "500", "cut", "short", "503")
    chosen: dict[str, str] = {}
    # The server answers on several threads: each new path takes the next kind.
    lock = threading.Lock()

    def fault(path: str, count: int) -> str:
        with lock:
            kind = "hang" if len(chosen) % 15 == 7 else kinds[len(chosen) % len(kinds)]
            kind = chosen.setdefault(path, kind)
        return kind if count % 4 < 1 else ""

    server.contents.fault = fault
    report = fetch(load_monitor(write_monitor(tmp_path, published, server)))
    assert report.missing == ()
    assert cube_digests(tmp_path / "town" / "cube") == imported
    assert set(chosen.values()) == {*kinds, "hang"}


def test_what_cannot_be_had_is_listed_and_nothing_wrong_is_stored(run, served, tmp_path, imported):
    published, server = served
    broken = {item["assets"]["image"]["href"].rpartition("/")[2]: item["id"] for item in published.items[::7]}
    kinds = ("500", "cut", "short", "403")

    def fault(path: str, count: int) -> str:
        name = path.rpartition("/")[2]
        return kinds[zlib.crc32(name.encode()) % len(kinds)] if name in broken else ""

    server.contents.fault = fault
    monitor = write_monitor(tmp_path, published, server)
    done = run("fetch", monitor, "--json")
    assert done.code == 1
    missing = json.loads(done.out)["missing"]
    assert {item["item_id"] for item in missing} == set(broken.values())
    assert f"to fetch what is missing: urbandelta fetch {monitor}" in done.err
    stored = cube_digests(tmp_path / "town" / "cube")
    for stream, rows in stored.items():
        assert set(rows) < set(imported[stream])
    server.contents.fault = None
    assert run("fetch", monitor).code == 0
    assert cube_digests(tmp_path / "town" / "cube") == imported


def test_a_search_that_fails_is_no_empty_archive(run, served, tmp_path):
    published, server = served
    server.contents.fault = lambda path, count: "500" if path == "/search" else ""
    monitor = write_monitor(tmp_path, published, server)
    done = run("fetch", monitor)
    assert done.code == 1
    assert "search of radar" in done.err
    assert run("plan", monitor).code == 1
    assert not (tmp_path / "town" / "cube").exists()


def test_an_item_that_is_late_or_changed(served, tmp_path):
    published, server = served
    monitor = load_monitor(write_monitor(tmp_path, published, server))
    fetch(monitor, until="2019-02-01", streams=["optical"])
    first = next(item for item in published.items if item["collection"] == "msi")
    newer = json.loads(json.dumps(first))
    newer["id"] += "_reprocessed"
    server.contents.items = [item for item in published.items if item["id"] != first["id"]] + [newer]
    report = fetch(monitor, until="2019-02-01", streams=["optical"])
    assert (sum(report.added.values()), report.late) == (0, 1)


SECRETS = ("sig-0123456789abcdef", "AKIAEXAMPLEKEY", "wJalrXUtnFEMIEXAMPLE", "subscription-key-value")


def test_signatures_run_out_and_no_secret_is_left_anywhere(run, served, tmp_path, monkeypatch, caplog):
    """The row of the Planetary Computer against a server that signs as it does."""
    published, server = served
    for name, value in zip(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PC_SDK_SUBSCRIPTION_KEY"), SECRETS[1:], strict=True
    ):
        monkeypatch.setenv(name, value)
    contents = server.contents
    contents.items = [planetary(item) for item in published.items if item["collection"] == "radar"]
    contents.token = f"{SECRETS[0]}-0"
    turns = {"count": 0}

    def expire(path: str, count: int) -> str:
        turns["count"] += path.startswith("/files/")
        if turns["count"] == 20:  # every signature that was given so far runs out
            contents.token = f"{SECRETS[0]}-1"
        return "500" if path.endswith(broken) else ""

    broken = published.items[0]["assets"]["image"]["href"].rpartition("/")[2]
    contents.fault = expire
    mirror = {"kind": "stac", "archive": "planetary-computer", "url": f"{server.url}/api/stac/v1"}
    contents.prefix = "/api/stac/v1"
    monitor = write_monitor(tmp_path, published, server, source=mirror)
    caplog.set_level("DEBUG")
    done = run("fetch", monitor, "--stream", "s1_asc", "--stream", "s1_dsc")
    assert done.code == 1  # the broken one
    assert len(contents.items) - 1 == sum(len(rows) for rows in cube_digests(tmp_path / "town" / "cube").values())
    assert contents.tokens_given >= 2
    cube = open_cube(str(tmp_path / "town" / "cube"))
    assert set(cube.acquisitions("s1_asc")["processing_level"].values) == {"RTC"}
    doctor = run("doctor", monitor, "--no-plan")
    assert "PC_SDK_SUBSCRIPTION_KEY: set" in doctor.out
    texts = [done.out, done.err, doctor.out, doctor.err, caplog.text]
    columns = [str(cube.acquisitions(name)[key].values) for name in cube.streams for key in ("provenance", "item_id")]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in SECRETS:
        assert not any(secret in text for text in texts + columns)
        assert not any(secret.encode() in data for data in files)


def planetary(item: dict) -> dict:
    """A simulated radar item as the Planetary Computer would describe it."""
    href = item["assets"]["image"]["href"]
    assets = {"vv": {"href": href}, "vh": {"href": href}}
    return {**item, "collection": "sentinel-1-rtc", "assets": assets}


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_cube(run, tmp_path):
    with serving(tmp_path, months=12) as (published, server):
        import_all(run, published, tmp_path / "imported")
        monitor = write_monitor(tmp_path, published, server)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "urbandelta", "fetch", str(monitor), "--workers", "3"]
        order = random.Random(7)
        kills = 0
        while kills < 20:
            before = sum(map(len, cube_digests(tmp_path / "town" / "cube").values())) if kills else 0
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(process, server, order.randint(2, 16))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, f"ended by itself after {kills} kills and {before} acquisitions"
            kills += 1
        assert run("fetch", monitor).code == 0
        assert cube_digests(tmp_path / "town" / "cube") == cube_digests(tmp_path / "imported")


def wait_for(process: subprocess.Popen, server: StacServer, requests: int) -> None:
    """Until the process has asked for some files."""
    served = sum(count for path, count in server.contents.asked.items() if path.startswith("/files/"))
    goal = served + requests
    while process.poll() is None and goal > sum(
        count for path, count in server.contents.asked.items() if path.startswith("/files/")
    ):
        time.sleep(0.005)


def test_plan_and_doctor_of_a_monitor(run, served, tmp_path):
    published, server = served
    monitor = write_monitor(tmp_path, published, server)
    before = run("plan", monitor, "--json").document()
    assert before["predict"] is None
    assert before["fetch"]["new"] == len(published.items)
    streams = {stream["stream"]: stream for stream in before["fetch"]["streams"]}
    assert sum(streams["s1_asc"]["months"].values()) == streams["s1_asc"]["new"]
    assert streams["s1_asc"]["gaps"] == ["2019-03..2019-12"]  # two months were published
    assert before["fetch"]["transfer_bytes"] > 0
    text = run("plan", monitor).out
    assert "no acquisition in 2019-03..2019-12" in text
    assert "relative orbits 88" in text
    assert run("fetch", monitor, "--until", "2019-02-01").code == 0
    after = run("plan", monitor, "--json").document()
    assert 0 < after["fetch"]["new"] < before["fetch"]["new"]
    assert "cannot" in after["predict"] or after["predict"]["windows"] > 0
    healthy = run("doctor", monitor, "--json").document()
    assert healthy["healthy"]
    subjects = {check["subject"] for check in healthy["checks"]}
    assert {"monitor", "archive custom", "plan", "disk", "cube", "stream s1_asc"} <= subjects
    server.contents.fault = lambda path, count: "500"
    broken = run("doctor", monitor, "--json")
    assert broken.code == 1
    assert [check["subject"] for check in json.loads(broken.out)["checks"] if check["health"] == "broken"] == [
        "archive custom"
    ]
