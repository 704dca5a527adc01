"""The JSON API, its limits and its guards, asked without a network."""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from fastapi.testclient import TestClient
from PIL import Image
from report_scene import make_scene

from urbandelta.cog import write_cog
from urbandelta.errors import ConfigError, StoreError
from urbandelta.event_files import write_events
from urbandelta.events import AlertStatus, find_events
from urbandelta.manifests import write_manifest
from urbandelta.monitor import parse_monitor
from urbandelta.products import grid_of
from urbandelta.rasters import STATUS_MEANINGS
from urbandelta.scores import open_scores
from urbandelta.store import open_cube
from urbandelta.web import WebSource, create_app, find_source
from urbandelta.web.opened import LOOK_AGAIN_SECONDS, Holder


def client_of(source: WebSource, **options) -> TestClient:
    return TestClient(create_app(source, **options), base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    make_scene(folder, shape=(48, 64))
    return folder


@pytest.fixture(scope="module")
def client(store):
    return client_of(find_source(str(store)))


@pytest.fixture(scope="module")
def area(client):
    return client.get("/api/area").json()


@pytest.fixture(scope="module")
def place(area):
    """A place in the larger of the two sites that change: rows 3 to 8, columns 20 to 27."""
    (west, south, east, north), (height, width) = area["bounds"], (48, 64)
    return {"longitude": west + (east - west) * 24 / width, "latitude": north - (north - south) * 6 / height}


def reason(answer, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"detail"}
    return answer.json()["detail"]


def test_the_area(area):
    assert [month["label"] for month in area["months"]][:2] == ["2021-04", "2021-05"]
    assert sum(month["windows"] for month in area["months"]) == 12
    assert [(s["name"], s["count"]) for s in area["streams"]] == [("s1_asc", 8), ("s1_dsc", 8), ("optical", 12)]
    assert area["optical"] == "optical"
    assert area["provenance"]["weights_name"] == "tiny"
    assert area["complete"]
    assert len(area["legends"]) == 6


def test_the_acquisitions_say_how_much_is_valid(client):
    found = client.get("/api/acquisitions/optical").json()["acquisitions"]
    assert found[0] == {
        "moment": "20210103T100000",
        "time": "2021-01-03T10:00:00Z",
        "platform": "sentinel-2a",
        "valid": 1,
    }
    assert found[1]["valid"] == pytest.approx(1 - 10 / 48, abs=1e-3)
    assert "no stream 'ls5' here; there is: s1_asc" in reason(client.get("/api/acquisitions/ls5"), 404)


def test_a_pixel_s_history_is_what_the_stores_hold(client, store, place):
    history = client.get("/api/pixel", params=place).json()
    row, column = history["row"], history["column"]
    assert 3 <= row < 9
    assert 20 <= column < 28
    scores = open_scores(str(store / "scores"))
    npt.assert_allclose(history["score"]["score"], scores["score"].values[:, row, column], atol=1e-5)
    assert history["score"]["start"][0] == "2021-01-03"
    assert history["score"]["n_obs"] == [70] * 12
    cube = open_cube(str(store / "cube"))
    by_name = {stream["name"]: stream for stream in history["streams"]}
    values, mask = cube.read("s1_dsc", slice(None), slice(row, row + 1), slice(column, column + 1))
    npt.assert_allclose(by_name["s1_dsc"]["values"]["VH"], 10 * np.log10(values[:, 0, 0, 1]), atol=1e-3)
    assert by_name["s1_dsc"]["units"] == "dB"
    values, mask = cube.read("optical", slice(None), slice(row, row + 1), slice(column, column + 1))
    assert by_name["optical"]["valid"] == (mask[:, 0, 0] == 0).tolist()
    assert by_name["optical"]["reasons"][:2] == ["", "cloud"]
    (ndvi,) = history["indices"]
    red, nir = (values[mask[:, 0, 0] == 0, 0, 0, k] for k in (2, 3))
    npt.assert_allclose(ndvi["values"], (nir - red) / (nir + red), atol=1e-4)
    assert len(history["events"]) == 1


def test_the_built_up_index_needs_its_bands(make_cube, tmp_path):
    cube = make_cube(days=60)
    found = client_of(WebSource(name="cube", cube_url=cube.url))
    west, south, east, north = found.get("/api/area").json()["bounds"]
    history = found.get("/api/pixel", params={"longitude": (west + east) / 2, "latitude": (south + north) / 2}).json()
    assert [index["name"] for index in history["indices"]] == ["ENDISI", "NDVI"]
    assert all(0 <= value <= 1 for value in history["indices"][0]["values"])
    assert history["score"] is None
    assert found.get("/api/events").json()["remark"] == "there are no scores yet"


def test_events_are_those_of_the_scores(client, store):
    page = client.get("/api/events", params={"sort": "area_m2"}).json()
    expected = {event.id: event for event in find_events(open_scores(str(store / "scores")))}
    assert (page["matched"], page["total"], page["origin"]) == (len(expected), len(expected), "scores")
    assert {event["id"] for event in page["events"]} == set(expected)
    assert [event["area_m2"] for event in page["events"]] == sorted(
        (e["area_m2"] for e in page["events"]), reverse=True
    )
    one = client.get(f"/api/events/{page['events'][0]['id']}").json()
    assert one["geometry"]["type"] in ("Polygon", "MultiPolygon")
    assert one["properties"] == page["events"][0]


@pytest.mark.parametrize(
    ("wanted", "keeps"),
    [
        ({"min_area_m2": 3000}, lambda e: e["area_m2"] >= 3000),
        ({"confidence": "low"}, lambda e: e["confidence"] == "low"),
        ({"confidence": "high"}, lambda e: e["confidence"] == "high"),
        ({"stage": ["finished", "first"]}, lambda e: e["stage"] in ("finished", "first")),
        ({"since": "2021-10-01"}, lambda e: e["last_date"] >= "2021-10-01"),
        ({"until": "2021-10-01"}, lambda e: e["first_date"] <= "2021-10-01"),
        ({"west": 0, "south": 0, "east": 1, "north": 1}, lambda _: False),
    ],
)
def test_filters(client, wanted, keeps):
    everything = client.get("/api/events").json()["events"]
    kept = client.get("/api/events", params=wanted).json()
    assert [event["id"] for event in kept["events"]] == [event["id"] for event in everything if keeps(event)]
    shapes = client.get("/api/events.geojson", params=wanted).json()["features"]
    assert {shape["id"] for shape in shapes} == {event["id"] for event in kept["events"]}


def test_pages(client):
    first = client.get("/api/events", params={"limit": 1}).json()
    second = client.get("/api/events", params={"limit": 1, "offset": 1}).json()
    assert first["matched"] == second["matched"] == 2
    assert first["events"][0]["id"] != second["events"][0]["id"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/events/unknown", 404, "no event unknown"),
        ("/api/events/%2e%2e%2fcube", 404, "Not Found"),
        ("/api/events?since=-1", 422, "since"),
        ("/api/events?since=1609459200", 422, "2021-06-30"),
        ("/api/events?since=0001-01-01", 422, "1900"),
        ("/api/events?since=2021-02-30", 422, "since"),
        ("/api/events?since=2022-01-01&until=2021-01-01", 422, "after"),
        ("/api/events?min_area_m2=-5", 422, "min_area_m2"),
        ("/api/events?min_area_m2=nan", 422, "min_area_m2"),
        ("/api/events?limit=1000000", 422, "limit"),
        ("/api/events?offset=-1", 422, "offset"),
        ("/api/events?sort=__class__", 422, "sort"),
        ("/api/events?west=1", 422, "box"),
        ("/api/events?west=3&east=1&south=0&north=1", 422, "empty"),
        ("/api/pixel?longitude=0&latitude=0", 404, "outside the area"),
        ("/api/pixel?longitude=inf&latitude=0", 422, "longitude"),
        ("/api/pixel?longitude=1e400&latitude=0", 422, "longitude"),
        ("/api/pixel", 422, "longitude"),
        ("/tiles/month/2021-04/23/0/0.png", 422, "z"),
        ("/tiles/month/2021-04/-1/0/0.png", 422, "z"),
        ("/tiles/month/2021-04/99999999999999999999/0/0.png", 422, "z"),
        ("/tiles/month/2021-04/2/4/0.png", 404, "no tile 4, 0 at zoom 2"),
        ("/tiles/month/2021-04/2/-1/0.png", 422, "x"),
        ("/tiles/month/1066-10/2/0/0.png", 404, "months with a score: 2021-04 to"),
        ("/tiles/month/-2021-04/2/0/0.png", 422, "month"),
        ("/tiles/month/2021-04/2/0/0.png?colours=jet", 422, "colours"),
        ("/tiles/map/..%2fcube/0/0/0.png", 404, "Not Found"),
        ("/tiles/map/..cube/0/0/0.png", 422, "name"),
        ("/tiles/map/first_date/0/0/0.png", 404, "there are: score"),
        ("/tiles/image/optical/20210104T100000/0/0/0.webp", 404, "no acquisition"),
        ("/tiles/image/labels/20210103T100000/0/0/0.webp", 404, "no stream"),
        ("/download/month/2021-04.tif?west=0&south=0&east=1&north=1", 404, "does not meet"),
        ("/static/../app.py", 404, "Not Found"),
        ("/static/%2e%2e/app.py", 404, "Not Found"),
        ("/static/..%5capp.py", 404, "Not Found"),
        ("/static//etc/passwd", 404, "Not Found"),
        ("/docs", 404, "Not Found"),
        ("/api/area?x=" + "y" * 5000, 400, "longer than"),
    ],
)
def test_refusals_say_why(client, path, status, says):
    assert says in reason(client.get(path), status)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client, method):
    assert reason(client.request(method, "/api/area"), 405) == "Method Not Allowed"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8765", "[::1]:8765", "192.168.1.5", "city.example"])
def test_known_names_are_answered(store, host):
    found = client_of(find_source(str(store)), allowed_hosts=["City.example"])
    assert found.get("/api/area", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a b"]
)
def test_foreign_names_are_not(client, host):
    assert "--allowed-host" in reason(client.get("/api/area", headers={"host": host}), 421)


def test_every_answer_is_guarded(client):
    for path in ("/", "/api/area", "/nowhere", "/static/app.css", "/tiles/month/2021-04/0/0/0.png"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


def test_the_page_holds_no_inline_code_and_nothing_foreign(client):
    page = client.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick" not in page
    assert "http://" not in page.replace('xmlns="http://www.w3.org', "")
    assert "https://" not in page
    for script in page.split("<script")[1:]:
        assert script.lstrip().startswith("src=")


def test_tiles_are_kept_as_long_as_their_data(client, area):
    path = "/tiles/month/2021-04/0/0/0.png"
    assert client.get(path).headers["cache-control"] == "no-cache"
    assert "immutable" in client.get(path, params={"v": area["version"]}).headers["cache-control"]
    assert client.get(path, params={"v": "0" * 12}).headers["cache-control"] == "no-cache"


def test_downloads_are_on_the_grid(client, store, area, tmp_path):
    scores = open_scores(str(store / "scores"))
    answer = client.get("/download/month/2021-06.tif")
    assert answer.headers["content-disposition"].startswith("attachment")
    with rasterio.MemoryFile(answer.content) as file, file.open() as raster:
        members = np.flatnonzero(scores["time"].values.astype("datetime64[M]") == np.datetime64("2021-06"))
        npt.assert_array_equal(raster.read(1), np.fmax.reduce(scores["score"].values[members]))
        assert tuple(raster.transform)[:6] == grid_of(scores).transform
        assert raster.crs.to_epsg() == 32631
        assert raster.tags()["weights_sha256"] == "cd" * 32
    west, south, east, north = area["bounds"]
    box = {"west": west, "south": (south + north) / 2, "east": (west + east) / 2, "north": north}
    with rasterio.MemoryFile(client.get("/download/map/score.tif", params=box).content) as file, file.open() as raster:
        assert raster.height in range(24, 27)
        assert raster.width in range(32, 35)
        whole = np.fmax.reduce(scores["score"].values)
        npt.assert_array_equal(raster.read(1), whole[: raster.height, : raster.width])
    content = client.get("/download/image/optical/20210211T100000.tif").content
    with rasterio.MemoryFile(content) as file, file.open() as raster:
        values = raster.read()
        assert values.shape == (3, 48, 64)
        assert np.isnan(values[:, :10]).all()
        assert np.isfinite(values[:, 10:]).all()


def test_tables(client, place):
    rows = list(csv.DictReader(io.StringIO(client.get("/download/events.csv").text)))
    assert len(rows) == 2
    assert {row["stage"] for row in rows} <= {"first", "provisional", "confirmed", "finished"}
    history = client.get("/download/pixel.csv", params=place)
    rows = list(csv.DictReader(io.StringIO(history.text)))
    assert {row["source"] for row in rows} == {"score", "s1_asc", "s1_dsc", "optical", "index"}
    assert "cloud" in {row["remark"] for row in rows}


def test_a_text_that_looks_like_a_formula_stays_a_text():
    from urbandelta.web.download_routes import _table

    assert _table(iter([["=1+1", "-x", -1.5, "plain"]])) == "'=1+1,'-x,-1.5,plain\r\n"


def test_giant_downloads_are_refused(client, monkeypatch):
    monkeypatch.setattr("urbandelta.web.download_routes.MOST_VALUES", 1000)
    assert "zoom in" in reason(client.get("/download/month/2021-06.tif"), 413)


# ---------------------------------------------------------------- what is served


def copy_of(store: Path, folder: Path) -> Path:
    return Path(shutil.copytree(store, folder / "city"))


def test_products_are_used_where_they_are(store, tmp_path):
    city = copy_of(store, tmp_path)
    scores = open_scores(str(city / "scores"))
    grid = grid_of(scores)
    rasters = city / "products" / "rasters"
    rasters.mkdir(parents=True)
    marked = np.full(grid.shape, 0.25, np.float32)
    write_cog(rasters / "score_2021-04.tif", marked, grid, nodata=np.nan, tags={})
    write_cog(rasters / "score_2030-01.tif", (marked * 400).astype(np.uint8), grid, nodata=255, tags={})
    days = np.where(np.arange(64) < 32, -1, np.arange(64) + 18_000)[None].repeat(48, axis=0).astype(np.int32)
    write_cog(rasters / "first_date.tif", days, grid, nodata=-1, tags={}, categories=True)
    (rasters / "spread.tif").write_bytes(b"not a raster")
    write_cog(rasters / "score_2021-05.tif", marked[:, :50], grid_cut(grid, 50), nodata=np.nan, tags={})
    found = client_of(find_source(str(city)))
    area = found.get("/api/area").json()
    labels = [month["label"] for month in area["months"]]
    assert labels[0] == "2021-04"
    assert labels[-1] == "2030-01"
    maps = {one["name"]: one for one in area["maps"]}
    assert set(maps) == {"score", "first_date"}
    assert (maps["first_date"]["low"], maps["first_date"]["high"]) == (18_032, 18_063)
    with rasterio.MemoryFile(found.get("/download/month/2021-04.tif").content) as file, file.open() as raster:
        npt.assert_array_equal(raster.read(1), marked)
    # A raster of another grid is passed over: the scores themselves are there.
    with rasterio.MemoryFile(found.get("/download/month/2021-05.tif").content) as file, file.open() as raster:
        assert raster.read(1).std() > 0
    assert found.get("/tiles/map/first_date/0/0/0.png").status_code == 200


def test_status_is_drawn_in_the_colours_of_its_legend(store, tmp_path):
    city = copy_of(store, tmp_path)
    grid = grid_of(open_scores(str(city / "scores")))
    status = np.arange(64, dtype=np.uint8)[None].repeat(48, axis=0) // 8
    status[:24, :8] = AlertStatus.FINISHED_HIGH
    status[24:, 56:] = AlertStatus.NODATA
    (city / "products" / "rasters").mkdir(parents=True)
    options = {"nodata": AlertStatus.NODATA, "tags": {}, "categories": True}
    write_cog(city / "products" / "rasters" / "status.tif", status, grid, **options)
    found = client_of(find_source(str(city)))
    area = found.get("/api/area").json()
    (shown,) = (one for one in area["maps"] if one["name"] == "status")
    assert [each["title"] for each in shown["classes"]][:3] == ["first, low", "first, high", "provisional, low"]
    legend = {each["value"]: each["colour"] for each in shown["classes"]}
    assert set(legend) == set(STATUS_MEANINGS) - {AlertStatus.NONE}
    # At this zoom the area lies in at most four tiles.
    west, _, _, north = area["bounds"]
    zoom = 12
    x = int((west + 180) / 360 * 2**zoom)
    y = int((1 - np.arcsinh(np.tan(np.radians(north))) / np.pi) / 2 * 2**zoom)
    drawn = set()
    for dx in (0, 1):
        for dy in (0, 1):
            tile = found.get(f"/tiles/map/status/{zoom}/{x + dx}/{y + dy}.png?fade=yes&colours=viridis")
            image = Image.open(io.BytesIO(tile.content)).convert("RGBA")
            drawn |= {colour for _, colour in image.getcolors() if colour[3]}
    assert {"rgb({}, {}, {})".format(*colour) for colour in drawn} == set(legend.values())
    with rasterio.MemoryFile(found.get("/download/map/status.tif").content) as file, file.open() as raster:
        npt.assert_array_equal(raster.read(1)[:24], status[:24])
        assert "4 first_high" in raster.tags()["meanings"]


def grid_cut(grid, width):
    from urbandelta.grid import Grid

    return Grid(grid.crs, grid.transform, grid.height, width)


@pytest.mark.parametrize("kind", ["gpkg", "geoparquet", "geojson"])
def test_event_files_are_used_where_they_are(store, tmp_path, kind, client):
    city = copy_of(store, tmp_path)
    scores = open_scores(str(city / "scores"))
    chosen = find_events(scores)[:1]
    write_events(chosen, city / "products" / "events", formats=[kind], grid=grid_of(scores))
    found = client_of(find_source(str(city)))
    page = found.get("/api/events").json()
    assert page["origin"].startswith("events.")
    assert [event["id"] for event in page["events"]] == [chosen[0].id]
    shape = found.get(f"/api/events/{chosen[0].id}").json()["geometry"]
    expected = client.get(f"/api/events/{chosen[0].id}").json()["geometry"]
    npt.assert_allclose(
        np.sort(np.concatenate(shape["coordinates"]), axis=0),
        np.sort(np.concatenate(expected["coordinates"]), axis=0),
        atol=2e-7,
    )


MONITOR = {
    "version": 1,
    "name": "harbour",
    "aoi": {"bbox": [4.3, 51.8, 4.4, 51.9]},
    "start": "2021-01-01",
    "store": "city",
    "source": {"kind": "none"},
}


def test_without_event_files_events_are_found_with_the_monitor_s_options(store, tmp_path, caplog):
    """`make_scene` changes two sites, the larger of 6 x 8 pixels."""
    city = copy_of(store, tmp_path)
    scores = open_scores(str(city / "scores"))
    large = min(event.area_m2 for event in find_events(scores)) + 1

    def found(target: Path) -> int:
        return client_of(find_source(str(target))).get("/api/events").json()["total"]

    assert found(city) == 2
    monitor = tmp_path / "harbour.yaml"
    monitor.write_text(json.dumps({**MONITOR, "events": {"min_area_m2": large}}))
    assert found(monitor) == 1
    # A store says what its monitor's last update took.
    cube = open_cube(str(city / "cube"))
    for day, least in ((1, 400.0), (2, large)):
        write_manifest(
            parse_monitor({**MONITOR, "events": {"min_area_m2": least}}, where=monitor),
            moment=datetime(2026, 1, day, tzinfo=UTC),
            until=None,
            scores_url=str(city / "scores"),
            cube_url=cube.url,
            cube_snapshot=cube.snapshot,
            outputs=[],
        )
        assert found(city) == 3 - day
    monitor.write_text(json.dumps(MONITOR))
    assert found(monitor) == 2
    (city / "runs" / "20260103T000000Z-00000000.json").write_text("{}")
    assert found(city) == 2
    assert "default options" in caplog.text


def test_a_damaged_event_file_is_told(store, tmp_path):
    city = copy_of(store, tmp_path)
    (city / "products" / "events").mkdir(parents=True)
    (city / "products" / "events" / "events.geojson").write_text(json.dumps({"features": [{"id": 1}]}))
    found = client_of(find_source(str(city)))
    assert "run `urbandelta events` again" in found.get("/api/events").json()["remark"]


def test_what_an_update_adds_shows_without_a_restart(store, tmp_path):
    city = copy_of(store, tmp_path)
    now = [0.0]
    holder = Holder(find_source(str(city)), clock=lambda: now[0])
    before = holder.get()
    assert len(before.events) == 2
    scores = open_scores(str(city / "scores"))
    write_events([], city / "products" / "events", formats=["geojson"], grid=grid_of(scores))
    assert holder.get() is before
    now[0] += LOOK_AGAIN_SECONDS
    after = holder.get()
    assert after.version != before.version
    assert len(after.events) == 0
    shutil.rmtree(city / "scores")
    now[0] += LOOK_AGAIN_SECONDS
    assert holder.get() is after


def test_sources(store, tmp_path):
    assert find_source(str(store)).name == store.name
    scores = find_source(str(store / "scores"))
    assert scores.cube_url == str(store / "cube")
    assert scores.folder is None
    city = copy_of(store, tmp_path)
    (city / "products").mkdir()
    assert find_source(str(city / "scores")).folder == city
    monitor = tmp_path / "city.yaml"
    monitor.write_text(
        "version: 1\nname: harbour\naoi: {bbox: [4.3, 51.8, 4.4, 51.9]}\nera: s12\nstart: 2021-01-01\n"
        "store: city\nsource: {kind: none}\n"
    )
    found = find_source(str(monitor))
    assert (found.name, found.folder) == ("harbour", city)
    assert found.scores_url is not None
    shutil.rmtree(city / "scores")
    assert find_source(str(monitor)).scores_url is None


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "no such file"), ("cube", "not scores"), ("cube.truth.tif", "no monitor file"), ("empty", "serve")],
)
def test_sources_that_are_none(store, name, says):
    (store / "empty").mkdir(exist_ok=True)
    with pytest.raises((ConfigError, StoreError), match=says):
        find_source(str(store / name))


def test_a_cube_on_another_grid_is_not_shown(store, make_cube, caplog):
    found = client_of(find_source(str(store / "scores"), cube=make_cube(days=60).url))
    assert found.get("/api/area").json()["streams"] == []
    assert "another grid" in caplog.text


def test_small_answers_are_sent_at_once():
    """On a socket whose protocol is not named, asyncio leaves Nagle's algorithm on: 40 ms for each tile."""
    from urbandelta.cli.serving import _listen

    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
