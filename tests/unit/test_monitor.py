"""The monitor file: what is read, what is refused and how it is told, its schema, and the file that `init` writes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from urbandelta.errors import ConfigError, MonitorError
from urbandelta.events import EventOptions
from urbandelta.monitor import EventSettings, load_monitor, monitor_schema, parse_monitor
from urbandelta.sources.archives import ARCHIVES
from urbandelta.starting import BY_HAND, departures, initial_text, write_initial

BOX = [5.38, 50.54, 5.40, 50.55]
TODAY = dt.date(2026, 5, 4)
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "monitor.schema.json"
BASE: dict[str, Any] = {
    "version": 1,
    "name": "liege",
    "aoi": {"bbox": BOX},
    "start": dt.date(2019, 1, 1),
    "store": "liege",
    "source": {"kind": "none"},
}


def parse(tmp_path: Path, **changed: Any) -> Any:
    return parse_monitor({**BASE, **changed}, where=tmp_path / "liege.yaml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    monitor = parse(tmp_path)
    assert monitor.cube_url == str(tmp_path / "liege" / "cube")
    assert monitor.scores_url == str(tmp_path / "liege" / "scores")
    assert monitor.folder == tmp_path / "liege"
    assert monitor.weights_path == "s12_simulated"
    remote = parse(tmp_path, store="s3://bucket/cities/liege/")
    assert remote.cube_url == "s3://bucket/cities/liege/cube"
    assert remote.folder == tmp_path / "liege"


def test_grid_and_area(tmp_path: Path) -> None:
    west, south, east, north = BOX
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    monitor = parse(tmp_path, aoi={"geometry": {"type": "Polygon", "coordinates": [ring]}})
    assert monitor.make_grid() == parse(tmp_path).make_grid()
    assert parse(tmp_path, grid={"pixel_m": 20}).make_grid().pixel_size == (20.0, 20.0)
    with pytest.raises(MonitorError, match=r"aoi\.geometry: is no GeoJSON"):
        parse(tmp_path, aoi={"geometry": {"type": "Polygon"}}).aoi_area()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"colour": "red"}, "colour: is no key of a monitor file"),
        ({"events": {"treshold": 0.5}}, r"events\.treshold: is no key"),
        ({"version": 2}, "version is 2; this urbandelta reads version 1"),
        ({"aoi": {}}, "aoi: give exactly one of bbox, file and geometry"),
        ({"aoi": {"bbox": BOX, "file": "a.gpkg"}}, "exactly one"),
        ({"era": "s3"}, "era: no such era; there are s12, ers12ls5"),
        ({"end": dt.date(2018, 1, 1)}, "end 2018-01-01 is not after start 2019-01-01"),
        ({"source": {"kind": "ftp"}}, "source"),
        ({"source": {"kind": "stac", "streams": {"s1": {}}}}, "source names stream s1; era s12 has"),
        ({"events": {"low": 0.6}}, r"low 0\.6 is above threshold 0\.5"),
        ({"notify": {"webhook": "https://hooks.example/SECRET"}}, "notify.webhook"),
        ({"name": "../../etc"}, "name"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MonitorError, match=message) as caught:
        parse(tmp_path, **changed)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: !!python/object/apply:os.system ['true']\n", "no YAML"),
        ("- 1\n", "no mapping"),
        ("a: [\n", "no YAML"),
        ("#" + "x" * 5_000_000, "larger than"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(MonitorError, match=message):
        load_monitor(path)


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="urbandelta init"):
        load_monitor(tmp_path / "none.yaml")


def test_events_are_configured_by_all_of_their_options(tmp_path: Path) -> None:
    assert set(EventSettings.model_fields) == {field.name for field in dataclasses.fields(EventOptions)}
    assert EventSettings().options() == EventOptions()
    assert parse(tmp_path, events={"threshold": 0.6}).events.options() == EventOptions(threshold=0.6)


def test_the_published_schema_is_that_of_the_models() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(monitor_schema()))


@pytest.mark.parametrize("archive", [*ARCHIVES, BY_HAND])
def test_a_new_file_loads_as_it_is(tmp_path: Path, archive: str) -> None:
    path = tmp_path / "m.yaml"
    written = write_initial(path, name="no", bbox=BOX, archive=archive, today=TODAY)
    loaded = load_monitor(path)
    assert loaded == written
    assert (loaded.name, loaded.start, loaded.end) == ("no", dt.date(2024, 1, 1), None)
    assert loaded.events.options() == EventOptions()
    assert loaded.source.kind == ("none" if archive == BY_HAND else "stac")


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("mine")
    with pytest.raises(MonitorError, match="is there already"):
        write_initial(path, name="a", bbox=BOX, today=TODAY)
    assert path.read_text() == "mine"


def test_an_era_that_is_over_begins_and_ends_with_it() -> None:
    text = initial_text(name="a", bbox=BOX, era="ers12ls5", archive=BY_HAND, today=TODAY)
    data = yaml.safe_load(text)
    assert (data["start"], data["end"]) == (dt.date(1991, 1, 1), dt.date(2012, 1, 1))
    assert data["weights"] == "ers12ls5_simulated"


def test_a_new_file_declares_what_the_archive_gives_other_than_weights_expect() -> None:
    from urbandelta.eras import ERAS

    found = departures(ERAS["s12"], "planetary-computer")
    assert found.substitutions == ("B10=0",)
    assert found.accepted == ("processing_level",)
    data = yaml.safe_load(initial_text(name="a", bbox=BOX, today=TODAY))
    assert data["predict"]["substitute"] == ["B10=0"]
    with pytest.raises(ConfigError, match="has nothing of era ers12ls5"):
        departures(ERAS["ers12ls5"], "planetary-computer")


def test_odd_names_of_files_stay_what_they_are(tmp_path: Path) -> None:
    for name in ("yes: no # [x].gpkg", "Lüttich's.gpkg"):
        text = initial_text(name="1", aoi_file=name, today=TODAY)
        assert parse_monitor(yaml.safe_load(text), where=tmp_path / "m.yaml").aoi.file == name
