"""`urbandelta fetch` from a Sentinel Hub stand-in: the whole way, and where secrets could leak."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
from command import runner
from hub_scene import hub_scene, monitor_file
from servers.sentinel_hub import CLIENT_ID, CLIENT_SECRET, serving

from urbandelta import offering_hub
from urbandelta.sources.hub_client import HubClient, Patience, find_access
from urbandelta.store import open_cube

pytest.importorskip("sentinelhub")


@pytest.fixture
def run(capfd):
    return runner(capfd)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SH_CLIENT_ID", CLIENT_ID)
    monkeypatch.setenv("SH_CLIENT_SECRET", CLIENT_SECRET)

    def client_for(source):
        return HubClient(find_access(source.endpoint, url=source.url), Patience(sleep=lambda _: None, tries=3))

    monkeypatch.setattr(offering_hub, "client_for", client_for)
    made = hub_scene()
    with serving(made.deployment):
        yield made


def secrets_in(folder, deployment, *texts):
    """Files and texts in which a secret or token is found."""
    secrets = (CLIENT_SECRET, CLIENT_ID, *deployment.tokens)
    found = [text for text in texts if any(secret in text for secret in secrets)]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [str(path) for secret in secrets if secret.encode() in content]
    return found


def test_fetch_fills_the_cube_with_what_the_service_has(scene, run, tmp_path):
    def fault(path, count):
        return {2: "429", 4: "500", 6: "401"}.get(count, "") if path == "/api/v1/process" else ""

    scene.deployment.fault = fault
    monitor = monitor_file(tmp_path, scene.deployment.url)
    outcome = run("fetch", monitor, "--workers", "1", "--json")
    document = outcome.document()
    assert document["added"] == {"s1_asc": 3, "s1_dsc": 1, "optical": 3}
    assert not scene.deployment.problems
    cube = open_cube(str(tmp_path / "liege" / "cube"))
    assert cube.grid == scene.grid
    granule = scene.granule("S1B_IW_GRDH_1SDV_20200109")
    values, mask = cube.read_raw("s1_asc", slice(1, 2), slice(0, scene.grid.height), slice(0, scene.grid.width))
    npt.assert_array_equal(values[0], scene.expected(granule, ("VV", "VH")))
    assert not mask.any()
    rows = cube.acquisitions("optical")
    assert [str(name) for name in rows["platform"].values] == ["S2A", "S2B", "S2A"]
    assert rows["boa_offset_applied"].values.tolist() == [False, False, True]
    again = run("fetch", monitor, "--json").document()
    assert sum(again["added"].values()) == 0
    assert again["skipped"] == 7
    assert not secrets_in(tmp_path, scene.deployment, outcome.out, outcome.err)


def test_what_cannot_be_had_is_listed_and_comes_later(scene, run, tmp_path):
    # Radar is asked for one acquisition after the other: the second fails for as long as it is tried.
    scene.deployment.fault = lambda path, count: "500" if path == "/api/v1/process" and 2 <= count <= 4 else ""
    monitor = monitor_file(tmp_path, scene.deployment.url, streams={"s1_asc": {}})
    outcome = run("fetch", monitor, "--workers", "1")
    assert outcome.code == 1
    assert "S1B_IW_GRDH_1SDV_20200109" in outcome.err
    assert "answered 500" in outcome.err
    cube = open_cube(str(tmp_path / "liege" / "cube"))
    assert len(cube.times("s1_asc")) == 2
    assert run("fetch", monitor).code == 0
    times = open_cube(str(tmp_path / "liege" / "cube")).times("s1_asc")
    assert len(times) == 3
    assert (np.diff(times) > np.timedelta64(0)).all()
    assert not secrets_in(tmp_path, scene.deployment, outcome.out, outcome.err)


def test_empty_acquisitions_are_noted(scene, run, tmp_path):
    granule = scene.granule("S1A_IW_GRDH_1SDV_20200115")
    granule.image["dataMask"][:] = 0
    monitor = monitor_file(tmp_path, scene.deployment.url, streams={"s1_asc": {"relative_orbits": [88]}})
    document = run("fetch", monitor, "--json").document()
    assert document["added"] == {"s1_asc": 2}
    assert document["empty"] == 1
    asked = scene.deployment.asked["/api/v1/process"]
    run("fetch", monitor, "--json").document()
    assert scene.deployment.asked["/api/v1/process"] == asked


def test_plan_counts_without_reading(scene, run, tmp_path):
    monitor = monitor_file(tmp_path, scene.deployment.url)
    outcome = run("fetch", monitor, "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    assert "/api/v1/process" not in scene.deployment.asked
    assert not secrets_in(tmp_path, scene.deployment, outcome.out, outcome.err)


def test_missing_credentials_end_with_one_line(scene, run, tmp_path, monkeypatch):
    monkeypatch.delenv("SH_CLIENT_SECRET")
    outcome = run("fetch", monitor_file(tmp_path, scene.deployment.url))
    assert outcome.code == 1
    assert "SH_CLIENT_SECRET" in outcome.err
    assert CLIENT_ID not in outcome.err
    assert "Traceback" not in outcome.err
