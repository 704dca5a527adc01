from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import duckdb
import numpy as np
import pyogrio
import pytest
import shapely
from event_scene import GRID, scores_of

from urbandelta.errors import EventError
from urbandelta.event_files import (
    FORMATS,
    PROPERTIES,
    feature,
    gfw_code,
    provenance_of_events,
    read_events,
    to_degrees,
    write_event_file,
    write_events,
)
from urbandelta.events import AlertStatus, EventOptions, find_events

NAMES = ["events.gpkg", "events.parquet", "events.geojson"]


@pytest.fixture(scope="module")
def events():
    sites = [(slice(2, 7), slice(2, 7), 200), (slice(7, 10), slice(7, 11), 200), (slice(15, 20), slice(3, 9), 260)]
    return find_events(scores_of(sites, spread=0.04))


def test_every_format_gives_the_events_back(events, tmp_path):
    paths = write_events(events, tmp_path / "new", grid=GRID, provenance={"weights": "w"})
    assert [path.name for path in paths] == NAMES
    assert {event.geometry.geom_type for event in events} == {"Polygon", "MultiPolygon"}
    for path in paths[:2]:
        assert read_events(path) == events
    for event, again in zip(events, read_events(paths[2]), strict=True):
        assert replace(again, geometry=event.geometry) == event
        assert again.geometry.bounds == pytest.approx(to_degrees(event.geometry, GRID.crs).bounds)


def test_missing_spread_and_no_events_survive(events, tmp_path):
    alone = [replace(events[0], spread=None), events[1]]
    for path in write_events(alone, tmp_path / "a", grid=GRID)[:2]:
        assert read_events(path) == alone
    lone = [replace(event, spread=None) for event in events]
    for path in write_events(lone, tmp_path / "b", grid=GRID)[:2]:
        assert read_events(path) == lone
    for path in write_events([], tmp_path / "c", grid=GRID):
        assert read_events(path) == []


def test_the_same_events_leave_the_files_alone(events, tmp_path):
    paths = write_events(events, tmp_path, grid=GRID)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    assert write_events(events, tmp_path, grid=GRID) == paths
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths} == before
    elsewhere = write_events(events, tmp_path / "other", grid=GRID)
    assert [path.read_bytes() for path in elsewhere] == [path.read_bytes() for path in paths]
    assert write_event_file(events[:1], paths[0], grid=GRID)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_only_the_formats_asked_for(events, tmp_path):
    assert [path.name for path in write_events(events, tmp_path, formats=["geojson"], grid=GRID)] == [NAMES[2]]
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[2]]
    with pytest.raises(EventError, match="unknown format kml"):
        write_events(events, tmp_path, formats=["kml"], grid=GRID)


def test_geojson_follows_rfc_7946(events, tmp_path):
    (path,) = write_events(events, tmp_path, formats=["geojson"], grid=GRID, provenance={"weights": "w"})
    collection = json.loads(path.read_text())
    assert "crs" not in collection
    assert collection["provenance"] == {"weights": "w"}
    assert [item["id"] for item in collection["features"]] == [event.id for event in events]
    for item in collection["features"]:
        assert list(item["properties"]) == [column.name for column in PROPERTIES]
        shape = shapely.geometry.shape(item["geometry"])
        west, south, east, north = shape.bounds
        assert 4.4 < west < east < 4.5
        assert 50.5 < south < north < 50.6
        for polygon in getattr(shape, "geoms", [shape]):
            assert polygon.exterior.is_ccw


def test_outlines_are_cut_at_the_antimeridian():
    degrees = to_degrees(shapely.box(179.99, 10, 180.01, 10.02), "OGC:CRS84")
    assert degrees.bounds == pytest.approx((179.99, 10, 180.01, 10.02))  # already told in one piece
    utm = to_degrees(shapely.box(828_000, 1_106_000, 830_500, 1_107_000), "EPSG:32660")
    assert utm.geom_type == "MultiPolygon"
    assert utm.is_valid
    assert sorted(round(part.bounds[0]) for part in utm.geoms) == [-180, 180]


def test_geopackage_opens_elsewhere(events, tmp_path):
    (path,) = write_events(events, tmp_path, formats=["gpkg"], grid=GRID, provenance={"weights": "w"})
    info = pyogrio.read_info(path, layer="events")
    assert (info["features"], info["geometry_type"], info["crs"]) == (2, "MultiPolygon", "EPSG:32631")
    assert list(info["fields"]) == [column.name for column in PROPERTIES]
    assert "OFTDate" in info["ogr_types"]
    assert json.loads(info["layer_metadata"]["provenance"]) == {"weights": "w"}
    if shutil.which("ogrinfo"):
        told = subprocess.run(["ogrinfo", "-al", "-so", str(path)], capture_output=True, text=True, check=True)
        assert "Feature Count: 2" in told.stdout


def test_geoparquet_opens_elsewhere(events, tmp_path):
    (path,) = write_events(events, tmp_path, formats=["geoparquet"], grid=GRID)
    with duckdb.connect() as database:
        rows = database.execute(f"select id, first_date, area_m2, status from '{path}' order by id").fetchall()
        ((geo,),) = database.execute(f"select value from parquet_kv_metadata('{path}') where key = 'geo'").fetchall()
    assert [row[0] for row in rows] == sorted(event.id for event in events)
    assert {np.datetime64(row[1]) for row in rows} == {event.first_date for event in events}
    column = json.loads(geo)["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32631}
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]


@pytest.mark.parametrize("name", NAMES)
def test_foreign_files_are_told_apart(name, tmp_path):
    with pytest.raises(EventError, match="no such file"):
        read_events(tmp_path / name)
    (tmp_path / name).write_text('{"type": "FeatureCollection", "features": [{"id": 1}]}')
    with pytest.raises(EventError, match="does not hold events"):
        read_events(tmp_path / name)


def test_unknown_endings_and_folders_that_are_files_are_refused(events, tmp_path):
    with pytest.raises(EventError, match="end in"):
        write_event_file(events, tmp_path / "events.kml", grid=GRID)
    (tmp_path / "file").write_text("")
    with pytest.raises(EventError, match="cannot make this folder"):
        write_events(events, tmp_path / "file", grid=GRID)


def test_global_forest_watch_codes(events):
    event = replace(events[0], first_date=np.datetime64("2020-01-01"), status=AlertStatus.CONFIRMED_HIGH)
    assert gfw_code(event) == 31_827
    assert gfw_code(replace(event, status=AlertStatus.FIRST_LOW)) == 21_827
    assert gfw_code(replace(event, first_date=np.datetime64("1996-01-01"))) is None
    assert feature(event, GRID.crs)["properties"]["gfw"] == 31_827


def test_provenance_names_weights_and_options():
    found = provenance_of_events(scores_of([]), EventOptions(low=0.2))
    assert found["weights_name"] == "by hand"
    assert found["options"]["low"] == 0.2
    assert FORMATS == ("gpkg", "geoparquet", "geojson")
