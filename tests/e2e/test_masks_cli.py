"""Masks on the command line: clouds, borders, empty scenes, and whether satellites lie on each other."""

from __future__ import annotations

import json

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from affine import Affine
from command import runner
from hub_scene import hub_scene, monitor_file
from servers.sentinel_hub import CLIENT_ID, CLIENT_SECRET, serving

from urbandelta.eras import ERAS
from urbandelta.store import open_cube
from urbandelta.types import MaskReason

OPTICAL = ERAS["s12"].stream("optical").bands
SHAPE = (64, 72)


@pytest.fixture
def run(capfd):
    return runner(capfd)


def write(path, image):
    """Bands (band, y, x) as a GeoTIFF of 10 m pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = image.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=image.dtype,
        crs="EPSG:32631",
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as target:
        target.write(image)


def radar(rng, left=0, shape=SHAPE):
    image = rng.gamma(4, 0.03, (2, *shape)).astype(np.float32)
    image[:, :, :left] = 0
    return image


def import_radar(run, folder, cube, *more):
    words = ("--into", cube, "--stream", "s1_asc", "--era", "s12", "--grid", "native", "--pattern")
    words += ("{platform}_{date:%Y%m%dT%H%M%S}.tif", "--bands", "VV,VH", "--level", "GRD")
    return run("import", "geotiff", folder, *words, "--coefficient", "gamma0", "--orbit", "ascending", *more)


def test_border_of_radar_is_cleaned_and_recorded(run, tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "s1" / "S1A_20200101T172400.tif", radar(rng))
    write(tmp_path / "s1" / "S1A_20200113T172400.tif", radar(rng, left=20))
    outcome = import_radar(run, tmp_path / "s1", tmp_path / "cube", "--border", "4")
    assert outcome.code == 0, outcome.err
    cube = open_cube(str(tmp_path / "cube"))
    masks = [cube.read_raw("s1_asc", slice(i, i + 1), slice(0, 64), slice(0, 72))[1][0] for i in (0, 1)]
    assert not masks[0].any()
    assert (masks[1][:, :20] == int(MaskReason.NODATA)).all()
    assert (masks[1][:, 20:24] == int(MaskReason.BORDER_NOISE)).all()
    assert not masks[1][:, 24:].any()
    masking = json.loads(str(cube.acquisitions("s1_asc")["provenance"].values[1]))["masking"]
    assert masking["border"] == {"erode_px": 4, "fringe_px": 60, "fringe_db": 10.0}
    assert masking["hidden"] == {"border_noise": 4 * 64}


def test_empty_scenes_are_dropped_said_and_remembered(run, tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "s1" / "S1A_20200101T172400.tif", radar(rng))
    write(tmp_path / "s1" / "S1A_20200113T172400.tif", radar(rng, left=72))
    first = import_radar(run, tmp_path / "s1", tmp_path / "cube")
    assert "1 acquisitions added" in first.out
    assert "1 without data on the grid dropped" in first.out
    again = import_radar(run, tmp_path / "s1", tmp_path / "cube", "--json").document()
    assert (again["added"], again["skipped"], again["empty"], again["noted"]) == (0, 1, 0, 1)
    # Another meaning of 0 is another question, and a changed file another answer.
    other = import_radar(run, tmp_path / "s1", tmp_path / "other", "--zero", "valid", "--json").document()
    assert other["added"] == 2
    write(tmp_path / "s1" / "S1A_20200113T172400.tif", radar(rng, left=10))
    changed = import_radar(run, tmp_path / "s1", tmp_path / "cube", "--json").document()
    assert (changed["added"], changed["noted"]) == (1, 0)


def test_nothing_but_empty_scenes_is_an_error_without_a_cube(run, tmp_path):
    write(tmp_path / "s1" / "S1A_20200113T172400.tif", np.zeros((2, *SHAPE), np.float32))
    outcome = import_radar(run, tmp_path / "s1", tmp_path / "cube")
    assert outcome.code == 1
    assert "none of 1 acquisitions has a pixel with data" in outcome.err
    assert not (tmp_path / "cube").exists()


def test_clouds_of_real_scenes_are_found(run, tmp_path, real_data):
    pytest.importorskip("s2cloudless")
    scenes = np.load(real_data / "eolearn" / "REFERENCE_SCENES.npy")
    for day, scene in (("20150820", scenes[0]), ("20150711", scenes[4])):
        counts = np.round(np.moveaxis(scene, 2, 0) * 10000).astype(np.uint16)
        write(tmp_path / "s2" / f"S2A_{day}T100000.tif", counts)
    words = ["--into", tmp_path / "cube", "--stream", "optical", "--era", "s12", "--grid", "native", "--bands"]
    words += [",".join(OPTICAL), "--pattern", "{platform}_{date:%Y%m%dT%H%M%S}.tif", "--scale", "1e-4"]
    outcome = run("import", "geotiff", tmp_path / "s2", *words, "--level", "L1C", "--clouds", "s2cloudless")
    assert outcome.code == 0, outcome.err
    cube = open_cube(str(tmp_path / "cube"))
    npt.assert_allclose(cube.valid_fraction("optical"), (1, 0), atol=0.05)
    provenance = json.loads(str(cube.acquisitions("optical")["provenance"].values[1]))
    assert provenance["masking"]["clouds"]["resolution_m"] == 160
    refused = run("import", "geotiff", tmp_path / "s2", *words, "--level", "L2A", "--clouds", "s2cloudless")
    assert refused.code == 1
    assert "trained on L1C" in refused.err


def test_masks_that_make_no_sense_are_refused(run, tmp_path):
    write(tmp_path / "s1" / "S1A_20200101T172400.tif", radar(np.random.default_rng(0)))
    assert "lacks" in import_radar(run, tmp_path / "s1", tmp_path / "cube", "--clouds", "s2cloudless").err
    assert import_radar(run, tmp_path / "s1", tmp_path / "cube", "--border", "-1").code == 1
    assert not (tmp_path / "cube").exists()


def test_info_compares_satellites(run, tmp_path):
    rng = np.random.default_rng(0)
    town = np.full((80, 88), 0.05, np.float32)
    for y, x, height, width in zip(*rng.integers(0, 80, (2, 150)), *rng.integers(2, 8, (2, 150)), strict=True):
        town[y : y + height, x : x + width] = rng.uniform(0.05, 0.5)
    for day in range(1, 7):
        left = 8 if day % 2 else 7
        image = np.repeat(town[None, 8:72, left : left + 72], 2, axis=0)
        name = f"{'S1A' if day % 2 else 'S1C'}_202001{day:02d}T172400.tif"
        write(tmp_path / "s1" / name, (image * rng.gamma(20, 1 / 20, image.shape)).astype(np.float32))
    assert import_radar(run, tmp_path / "s1", tmp_path / "cube").code == 0
    (pair,) = run("info", tmp_path / "cube", "--coregistration", "--json").document()["coregistration"]
    assert (pair["reference"], pair["moved"], pair["too_far"]) == ("S1A", "S1C", True)
    assert pair["dx"] == pytest.approx(1, abs=0.15)
    outcome = run("info", tmp_path / "cube", "--coregistration")
    assert "above half a pixel" in outcome.out


def test_doctor_asks_sentinel_hub_for_a_token(run, tmp_path, monkeypatch):
    pytest.importorskip("sentinelhub")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SH_CLIENT_ID", CLIENT_ID)
    monkeypatch.setenv("SH_CLIENT_SECRET", CLIENT_SECRET)
    with serving(hub_scene().deployment) as deployment:
        monitor = monitor_file(tmp_path, deployment.url)
        good = run("doctor", monitor)
        assert "archive sentinel-hub: Sentinel Hub accepts the credentials" in good.out
        assert "7 acquisitions to fetch" in good.out
        monkeypatch.setenv("SH_CLIENT_SECRET", "secret-wrong")
        bad = run("doctor", monitor)
    assert bad.code == 1
    assert "refuses the credentials" in bad.out
    for text in (good.out, good.err, bad.out, bad.err):
        assert CLIENT_SECRET not in text
        assert "secret-wrong" not in text
