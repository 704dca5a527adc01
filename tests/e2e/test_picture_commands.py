"""Pictures, districts and exports of one small scene, by the command line."""

from __future__ import annotations

import csv
import json

import pytest
import xarray as xr
from command import Run, runner
from PIL import Image
from pyproj import Transformer
from report_scene import make_scene, small_grid


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    make_scene(folder)
    grid = small_grid()
    west, south, east, north = grid.bounds
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    middle = (west + east) / 2
    features = []
    for name, x0, x1 in (("Harbour", west, middle), ("Old town", middle, east)):
        ring = [
            to_degrees.transform(x, y) for x, y in ((x0, south), (x1, south), (x1, north), (x0, north), (x0, south))
        ]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"quarter": name}, "geometry": geometry})
    (folder / "districts.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return folder


def test_time_lapses_and_pictures_are_written_where_they_were_asked_for(run, scene, tmp_path):
    done = run("timelapse", scene / "scores", "--out", tmp_path / "t.gif", "--size", 64, "--json").document()
    with Image.open(tmp_path / "t.gif") as picture:
        assert picture.n_frames == done["frames"] == 11  # months with two windows
    for kind in ("overlay", "series", "pixel"):
        out = run("picture", scene / "scores", "--kind", kind, "--out", tmp_path / f"{kind}.png")
        assert (out.code, out.out.strip()) == (0, str(tmp_path / f"{kind}.png"))
        with Image.open(tmp_path / f"{kind}.png") as picture:
            picture.verify()


def test_a_table_per_district(run, scene, tmp_path):
    words = ("zonal", scene / "scores", scene / "districts.geojson", "--out", tmp_path, "--name-field", "quarter")
    done = run(*words, "--json").document()
    harbour, town = done["districts"]
    assert (harbour["district"], town["district"]) == ("Harbour", "Old town")
    assert harbour["changed_ha"] == pytest.approx(0.12, rel=0.02)
    assert town["changed_ha"] == pytest.approx(0.48, rel=0.02)
    assert harbour["land_consumption_percent_per_year"] is None  # this cube has no short-wave infrared
    assert "lacks the index's bands" in " ".join(done["notes"])
    with (tmp_path / "districts.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_zarr_store_for_xarray(run, scene, tmp_path):
    done = run("export", scene / "scores", "--to", tmp_path / "s.zarr", "--format", "zarr")
    assert done.out.strip() == str(tmp_path / "s.zarr")
    with xr.open_zarr(tmp_path / "s.zarr") as read:
        assert read["score"].shape == (12, 20, 32)
    again = run("export", scene / "scores", "--to", tmp_path / "s.zarr", "--format", "zarr")
    assert "1 file holds the same already" in again.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("timelapse", "SCORES", "--out", "t.avi"), 1),
        (("timelapse", "SCORES", "--out", "t.gif", "--fps", "0"), 1),
        (("picture", "SCORES", "--out", "p.png", "--kind", "pixel", "--at", "0,0"), 1),
        (("picture", "SCORES", "--out", "p.png", "--kind", "pixel", "--at", "here"), 2),
        (("picture", "SCORES", "--out", "p.png", "--at", "4.5,51.9"), 2),
        (("picture", "SCORES", "--out", "p.jpg"), 1),
        (("zonal", "SCORES", "none.gpkg", "--out", "z"), 1),
        (("export", "SCORES", "--to", "z", "--format", "zarr", "--set"), 2),
    ],
)
def test_wrong_input_is_one_line_without_a_traceback(run, scene, tmp_path, monkeypatch, words, code):
    monkeypatch.chdir(tmp_path)
    done = run(*(scene / "scores" if word == "SCORES" else word for word in words))
    assert done.code == code
    assert "Traceback" not in done.err
    if code == 1:
        assert sum(line.startswith("urbandelta: error: ") for line in done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
