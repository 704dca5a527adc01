from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import shapely
from event_scene import DAY, GRID, START, scores_of
from PIL import Image

from urbandelta.builtup import built_up
from urbandelta.cartography import MapFrame
from urbandelta.dating import NO_DATE, date_maps
from urbandelta.districts import District, read_districts
from urbandelta.errors import AoiError, ConfigError
from urbandelta.grid import Grid
from urbandelta.store import create_cube
from urbandelta.types import Acquisition
from urbandelta.zonal import land_consumption_rate, write_zonal, zonal_table

TWO = [(slice(2, 8), slice(2, 8), 200), (slice(14, 20), slice(10, 18), 300)]
WEST, _, _, NORTH = GRID.bounds


def area(name, left, top, right, bottom, **values):
    """A district of whole pixels of the grid."""
    box = shapely.box(WEST + 10 * left, NORTH - 10 * bottom, WEST + 10 * right, NORTH - 10 * top)
    return District(name, box, values)


HALVES = [area("west", 0, 0, 12, 24), area("east", 12, 0, 24, 24)]


@pytest.fixture(scope="module")
def scores():
    return scores_of(TWO)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """Optical acquisitions every 20 days: one place turns from field to bright roof after 300 days."""
    cube = create_cube(str(tmp_path_factory.mktemp("cube") / "c"), era="s12", grid=GRID)
    frames = []
    for k in range(28):
        values = np.empty((*GRID.shape, 4), np.uint16)
        values[:] = (600, 900, 2600, 1500)  # field: blue, green, short-wave infrared 1 and 2
        values[0, 0:6] = (4000, 4200, 2900, 2500)  # roofs that always were there
        if k >= 15:
            values[14:20, 10:18] = (4000, 4200, 2900, 2500)
        mask = np.zeros(GRID.shape, np.uint8)
        mask[:, 12:] = 2 * (k % 2)
        frames.append(
            Acquisition(
                time=START + 20 * k * DAY,
                values=values,
                scale=1e-4,
                mask=mask,
                bands=("B02", "B03", "B11", "B12"),
                platform="sentinel-2a",
            )
        )
    cube.append("optical", frames)
    return cube


def test_areas_of_districts_add_up_to_the_map_and_months_to_the_area(scores):
    table = zonal_table(scores, HALVES)
    ha = MapFrame(GRID).row_area_ha[:, None]
    changed = date_maps(scores).first != NO_DATE
    assert sum(row.changed_ha for row in table.rows) == pytest.approx(float((changed * ha).sum()), abs=2e-4)
    np.testing.assert_allclose(table.changed_ha.sum(axis=1), [row.changed_ha for row in table.rows], atol=1e-4)
    assert sum(row.area_ha for row in table.rows) == pytest.approx(float(ha.sum() * GRID.width), abs=2e-4)
    # The second place lies on both sides: it is one event in each.
    assert [row.events for row in table.rows] == [2, 1]
    assert [row.confirmed_events for row in table.rows] == [2, 1]
    assert sum(row.event_ha for row in table.rows) == pytest.approx(sum(row.changed_ha for row in table.rows), abs=1e-3)
    assert table.rows[0].built_up_start_percent is None
    assert "no cube was given" in " ".join(table.notes)


def test_a_district_outside_the_grid_is_empty_and_not_an_error(scores):
    (row,) = zonal_table(scores, [area("far", 100, 100, 120, 120)]).rows
    assert (row.area_ha, row.changed_ha, row.changed_percent, row.events) == (0, 0, None, 0)


def test_built_up_ground_is_taken_from_the_index_at_both_ends(scores, cube):
    west, east = zonal_table(scores, HALVES, cube=cube).rows
    assert west.built_up_start_percent == pytest.approx(100 * 6 / 288, abs=0.01)
    assert west.built_up_end_percent == pytest.approx(100 * (6 + 12) / 288, abs=0.01)
    assert east.built_up_start_percent == 0
    assert east.land_consumption_percent_per_year is None  # nothing to begin with: there is no rate
    found = built_up(cube, scores["window_start"].values.min(), scores["window_end"].values.max())
    expected = 100 * ((18 - 6) / 6) / found.years
    assert west.land_consumption_percent_per_year == pytest.approx(expected, rel=1e-3)
    assert (west.observations, east.observations) == (28, 14)


def test_the_share_of_the_user_takes_the_place_of_the_index(scores, cube):
    districts = [area("a", 0, 0, 12, 24, share="0.25"), area("b", 12, 0, 24, 24, share=0.5)]
    table = zonal_table(scores, districts, cube=cube, built_up_field="share")
    for row, share in zip(table.rows, (0.25, 0.5), strict=True):
        assert row.built_up_start_percent == pytest.approx(100 * share)
        assert row.built_up_end_percent == pytest.approx(100 * (share + row.event_ha / row.area_ha), abs=0.01)
    assert "upper bound" in " ".join(table.notes)
    with pytest.raises(ConfigError, match="no field"):
        zonal_table(scores, districts, built_up_field="other")
    with pytest.raises(ConfigError, match="0 to 1"):
        zonal_table(scores, [area("a", 0, 0, 9, 9, share=25)], built_up_field="share")


def test_land_consumption_rate_is_that_of_the_united_nations():
    # The older revisions' formula gives less, and is not meant.
    assert land_consumption_rate(100.0, 110.0, 10.0) == pytest.approx(0.01)
    assert np.log(110 / 100) / 10 == pytest.approx(0.0095, abs=5e-5)
    assert land_consumption_rate(100.0, 121.0, 7.0) == pytest.approx(0.03)
    assert land_consumption_rate(0.0, 5.0, 7.0) is None
    assert land_consumption_rate(100.0, 90.0, 10.0) == pytest.approx(-0.01)


def test_a_cube_without_the_bands_gives_no_built_up_share(tmp_path):
    cube = create_cube(str(tmp_path / "c"), era="s12", grid=Grid(GRID.crs, GRID.transform, 2, 2))
    assert built_up(cube, START, START + 400 * DAY) is None


@pytest.fixture
def file(tmp_path):
    def write(*features, crs="urn:ogc:def:crs:EPSG::32631"):
        path = tmp_path / "districts.geojson"
        listed = [
            {"type": "Feature", "properties": values, "geometry": shapely.geometry.mapping(shape)}
            for values, shape in features
        ]
        named = {"crs": {"type": "name", "properties": {"name": crs}}}
        path.write_text(json.dumps({"type": "FeatureCollection", **named, "features": listed}))
        return path

    return write


def test_files_hold_the_table_the_months_the_notes_and_a_plot(scores, file, tmp_path):
    path = file(({"Name": "West"}, HALVES[0].geometry), ({"Name": "East"}, HALVES[1].geometry))
    table, paths = write_zonal(scores, path, tmp_path / "out")
    assert [p.name for p in paths] == ["districts.csv", "districts_months.csv", "districts.json", "districts.png"]
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert [row["district"] for row in rows] == ["West", "East"]
    assert rows[0]["built_up_start_percent"] == ""
    months = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert len(months) == 2 * len(table.months)
    assert sum(float(m["changed_ha"]) for m in months) == pytest.approx(sum(r.changed_ha for r in table.rows), abs=1e-2)
    assert json.loads(paths[2].read_text())["notes"] == list(table.notes)
    with Image.open(paths[3]) as picture:
        assert picture.width > 1000
    before = [p.read_bytes() for p in paths]
    write_zonal(scores, path, tmp_path / "out")
    assert [p.read_bytes() for p in paths] == before


def test_names_come_from_the_field_that_is_asked_for_and_are_told_apart(file):
    path = file(({"code": "A"}, HALVES[0].geometry), ({"code": "A"}, HALVES[1].geometry))
    assert [d.name for d in read_districts(path, GRID, name_field="code")] == ["A", "A (2)"]
    assert [d.name for d in read_districts(path, GRID)] == ["district 1", "district 2"]
    with pytest.raises(AoiError, match="no field 'x'"):
        read_districts(path, GRID, name_field="x")


def test_files_that_are_no_districts_are_refused(file, tmp_path):
    with pytest.raises(AoiError, match="no such file"):
        read_districts(tmp_path / "none.gpkg", GRID)
    with pytest.raises(AoiError, match="no polygons"):
        read_districts(file(({}, shapely.Point(1, 2))), GRID)
    (tmp_path / "bad.geojson").write_text("{")
    with pytest.raises(AoiError, match="not a readable"):
        read_districts(tmp_path / "bad.geojson", GRID)
