from __future__ import annotations

import importlib.util
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from urbandelta import doctor
from urbandelta.grid import Grid
from urbandelta.sources.archives import ARCHIVES, archive_named
from urbandelta.store import create_cube
from urbandelta.types import Acquisition

GRID = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 8, 6)


@pytest.fixture
def cube(tmp_path):
    made = create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)
    rng = np.random.default_rng(1)
    made.append(
        "s1_asc",
        [
            Acquisition(
                time=np.datetime64("2020-01-01", "ns") + np.timedelta64(day, "D"),
                values=rng.random((8, 6, 2)).astype(np.float32),
                mask=np.zeros((8, 6), np.uint8),
                bands=("VV", "VH"),
                orbit_state="ascending",
            )
            for day in range(5)
        ],
    )
    return tmp_path / "cube"


def healths(checks) -> dict[str, str]:
    return {check.subject: check.health for check in checks}


def test_a_sound_installation():
    found = healths(doctor.diagnose())
    assert found["urbandelta"] == found["zarr"] == found["engine native"] == "ok"
    assert "broken" not in found.values()
    assert {f"extra {name}" for name in doctor.EXTRAS} <= set(found)


def test_names_what_installs_a_missing_part(monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "boto3" else known(name))
    check = next(check for check in doctor.check_extras() if check.subject == "extra s3")
    assert (check.health, check.detail) == ("note", "lacks boto3; pip install 'urbandelta[s3]'")
    checks = list(doctor.check_credentials(archive_named("copernicus"), needs_s3=True))
    assert healths(checks)["s3"] == "broken"


def test_a_sound_cube(cube):
    checks = list(doctor.check_cube(str(cube)))
    assert [check.health for check in checks] == ["ok", "ok"]
    assert "5 acquisitions 2020-01-01..2020-01-05; digests of 3 recomputed" in checks[1].detail


def test_a_cube_with_exchanged_pixels(cube, monkeypatch):
    read = doctor.Cube.read_raw

    def spoilt(self, *where):
        values, mask = read(self, *where)
        values[..., 0, 0, 0] += 1
        return values, mask

    monkeypatch.setattr(doctor.Cube, "read_raw", spoilt)
    broken = list(doctor.check_cube(str(cube)))[1]
    assert broken.health == "broken"
    assert "2020-01-01T00:00:00Z" in broken.detail


def test_a_cube_with_lost_files(cube):
    manifests = cube / "manifests"  # small pixels lie in them
    assert manifests.is_dir()
    shutil.rmtree(manifests)
    assert "broken" in [check.health for check in doctor.check_cube(str(cube))]


def test_no_cube(tmp_path):
    assert [check.health for check in doctor.check_cube(str(tmp_path / "none"))] == ["broken"]
    assert [check.health for check in doctor.check_cube(str(tmp_path / "none"), must_exist=False)] == ["note"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    assert [check.health for check in doctor.check_cube(str(tmp_path / "other"))] == ["broken"]


def test_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10 * 10**9))
    assert doctor.check_disk(tmp_path / "not" / "yet", None).health == "ok"
    assert doctor.check_disk(tmp_path, 8 * 10**9).health == "ok"
    full = doctor.check_disk(tmp_path, 9 * 10**9)
    assert full.health == "broken"
    assert "stores about 9.00 GB" in full.detail


def test_credentials_by_name_only(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    checks = list(doctor.check_credentials(ARCHIVES["copernicus"], needs_s3=False))
    assert healths(checks) == {"credential AWS_ACCESS_KEY_ID": "ok", "credential AWS_SECRET_ACCESS_KEY": "broken"}
    assert "AKIAEXAMPLE" not in str(checks)


def test_an_archive_that_does_not_answer():
    check = doctor.check_archive(archive_named("custom", url="http://127.0.0.1:9/stac"))
    assert check.health == "broken"
    assert "http://127.0.0.1:9/stac" in check.detail
