"""Offers of folders and of other cubes, and what is refused before anything is asked."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine

from urbandelta.errors import ConfigError
from urbandelta.fetching import fetch
from urbandelta.monitor import parse_monitor
from urbandelta.offering import find_offers, period_of
from urbandelta.store import open_cube

BBOX = [4.9999, 50.5, 5.002, 50.502]


def monitor(tmp_path, source, *, name="m", **more):
    document = {"version": 1, "name": name, "aoi": {"bbox": BBOX}, "start": "2018-01-01", "end": "2019-01-01"}
    return parse_monitor({**document, "store": name, "source": source, **more}, where=tmp_path / f"{name}.yaml")


@pytest.fixture
def folder(tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number, day in enumerate(("20180101", "20180113", "20180125")):
        add_scene(scenes, day, number)
    return scenes


def add_scene(scenes, day, seed):
    rng = np.random.default_rng(seed)
    with rasterio.open(
        scenes / f"S1A_{day}T173000Z.tif", "w", driver="GTiff", count=2, height=60, width=60, dtype="float32",
        crs="EPSG:32631", transform=Affine(10, 0, 641_600, 0, -10, 5_596_500),
    ) as target:  # fmt: skip
        target.write(rng.uniform(0.01, 1, (2, 60, 60)).astype(np.float32))


IMPORT = {
    "stream": "s1_asc",
    "path": "scenes",
    "pattern": "{platform}_{date:%Y%m%dT%H%M%SZ}.tif",
    "bands": ["VV", "VH"],
    "level": "GRD",
    "coefficient": "gamma0",
    "orbit": "ascending",
}


def test_a_folder_is_fetched_as_scenes_come(tmp_path, folder):
    dropped = monitor(tmp_path, {"kind": "folder", "imports": [IMPORT]})
    assert fetch(dropped, until="2018-01-20").added == {"s1_asc": 2}
    assert fetch(dropped).added == {"s1_asc": 1}
    add_scene(folder, "20180206", 9)
    assert fetch(dropped).added == {"s1_asc": 1}
    report = fetch(dropped)
    assert (report.added, report.skipped, report.missing) == ({"s1_asc": 0}, 4, ())
    cube = open_cube(dropped.cube_url)
    assert set(cube.acquisitions("s1_asc")["platform"].values) == {"S1A"}
    assert cube.grid == dropped.make_grid()


def test_a_folder_that_is_gone_is_missing_and_not_empty(tmp_path):
    report = fetch(monitor(tmp_path, {"kind": "folder", "imports": [IMPORT]}))
    assert [item.stream for item in report.missing] == ["s1_asc"]
    assert "no such file or folder" in report.missing[0].reason


def test_another_cube_is_copied_up_to_a_date(tmp_path, folder):
    first = monitor(tmp_path, {"kind": "folder", "imports": [IMPORT]})
    fetch(first)
    copy = monitor(tmp_path, {"kind": "cube", "url": "m/cube"}, name="copy")
    assert fetch(copy, until="2018-01-13T17:30:00").added["s1_asc"] == 1
    assert fetch(copy).added["s1_asc"] == 2
    assert fetch(copy).skipped == 3
    one, other = open_cube(first.cube_url).acquisitions("s1_asc"), open_cube(copy.cube_url).acquisitions("s1_asc")
    for key in ("digest", "item_id", "platform", "orbit_state", "provenance", "processing_level"):
        np.testing.assert_array_equal(one[key].values, other[key].values)


def test_a_cube_on_another_grid_is_refused(tmp_path, folder):
    fetch(monitor(tmp_path, {"kind": "folder", "imports": [IMPORT]}))
    other = monitor(tmp_path, {"kind": "cube", "url": "m/cube"}, name="copy", grid={"pixel_m": 20})
    with pytest.raises(ConfigError, match="must agree"):
        fetch(other)


def test_nothing_to_fetch(tmp_path):
    none = monitor(tmp_path, {"kind": "none"})
    assert find_offers(none, None) == []
    assert fetch(none).added == {}


def test_periods(tmp_path):
    open_ended = monitor(tmp_path, {"kind": "none"}, end=None)
    assert period_of(open_ended).end <= np.datetime64("now", "ns")
    assert period_of(open_ended, until="2018-06-01T12:00+02:00").end == np.datetime64("2018-06-01T10:00", "ns")
    assert period_of(monitor(tmp_path, {"kind": "none"}), until="2020-01-01").end == np.datetime64("2019-01-01", "ns")
    with pytest.raises(ConfigError, match="nothing lies between"):
        period_of(open_ended, until="2017-01-01")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ({"kind": "stac", "archive": "nowhere"}, "unknown archive"),
        ({"kind": "stac", "archive": "custom"}, "needs source.url"),
        ({"kind": "stac", "archive": "custom", "url": "http://127.0.0.1:9"}, "no collection"),
        (
            {"kind": "stac", "archive": "copernicus", "streams": {"s1_asc": {"collection": "sentinel-1-grd"}}},
            "radar geometry",
        ),
    ],
)
def test_sources_that_make_no_sense(tmp_path, source, cause):
    with pytest.raises(ConfigError, match=cause):
        find_offers(monitor(tmp_path, source), None)


def test_streams_that_an_archive_lacks_are_left_out_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("urbandelta.offering.search_items", lambda *words: [])
    source = {"kind": "stac", "archive": "earth-search"}
    assert [found.stream for found in find_offers(monitor(tmp_path, source), None)] == ["optical"]
    with pytest.raises(ConfigError, match="radar geometry"):
        find_offers(monitor(tmp_path, {**source, "streams": {"s1_asc": {}}}), None)
