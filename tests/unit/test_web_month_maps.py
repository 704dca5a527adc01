"""Months straight from a score store: the same pixels as computed whole, made once, bounded, and never stale."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.testing as npt
import pytest
from fastapi.testclient import TestClient
from report_scene import DAY, START, make_scene, small_grid

from urbandelta.cog import write_cog
from urbandelta.composites import shrink
from urbandelta.scores import create_scores, open_scores
from urbandelta.types import Window
from urbandelta.web import WebSource, create_app, month_maps
from urbandelta.web.cache import ByteCache
from urbandelta.web.mercator import TileGrid
from urbandelta.web.month_maps import Kept, MonthMaps
from urbandelta.web.opened import LOOK_AGAIN_SECONDS, Holder
from urbandelta.web.pyramids import UNKNOWN, level_shape, quantise, sample, size_of
from urbandelta.web.score_layers import CogPyramid, StorePyramid
from urbandelta.web.scratch import Scratch

SHAPE = (300, 530)
MONTHS = ((0, 1), (2,), (3, 4, 5), (6, 7), (8,))
"""The third lies across chunks of four windows."""


def smooth(windows: int, shape: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Scores (window, y, x) with a border, a hole and a whole block that nobody knows."""
    random = np.random.default_rng(seed)
    values = random.random((windows, *shape), np.float32) ** 3
    values[:, :5] = np.nan
    values[1, 40:60, 100:131] = np.nan
    values[:, :, 512:] = np.nan
    return values


def write_scores(url, values: np.ndarray, *, overwrite: bool = False) -> str:
    spans = [Window(START + 15 * k * DAY, START + (15 * k + 182) * DAY, 70, k, k + 69) for k in range(len(values))]
    grid = small_grid(*values.shape[1:])
    writer = create_scores(str(url), grid=grid, windows=spans, chunks=(4, 64, 64), attributes={}, overwrite=overwrite)
    writer.add(0, slice(0, grid.height), slice(0, grid.width), values)
    writer.finish()
    return str(url)


@pytest.fixture(scope="module")
def values():
    return smooth(9, SHAPE)


@pytest.fixture(scope="module")
def scores(tmp_path_factory, values):
    return open_scores(write_scores(tmp_path_factory.mktemp("months") / "scores", values))


def kept_with(*, block_bytes: int = 2**24, scratch_bytes: int = 2**24) -> Kept:
    return Kept(block_bytes, 2**24, scratch_bytes)


def whole(maps: MonthMaps, month: int, level: int) -> np.ndarray:
    height, width = level_shape(maps.shape, level)
    return maps.read(month, level, slice(0, height), slice(0, width))


def expected(values: np.ndarray, windows: tuple[int, ...], level: int, coarse: int = 3) -> np.ndarray:
    """Mean of known pixels up to the coarse level; beyond, mean of that level's known cells."""
    highest = np.fmax.reduce(values[list(windows)])
    index = quantise(shrink(highest, 2 ** min(level, coarse)), 0.0, 1.0)
    if level <= coarse:
        return index
    cells = np.where(index == UNKNOWN, np.nan, index / 253).astype(np.float32)
    return quantise(shrink(cells, 2 ** (level - coarse)), 0.0, 1.0)


# "Crowded" keeps not even one block.
@pytest.mark.parametrize(
    "bounds", [{}, {"scratch_bytes": 0}, {"scratch_bytes": 0, "block_bytes": 1000}], ids=["disk", "memory", "crowded"]
)
@pytest.mark.parametrize("level", range(6))
def test_a_month_is_the_mean_of_its_highest_scores(scores, values, level, bounds):
    maps = MonthMaps(scores, MONTHS, kept_with(**bounds))
    for month, windows in enumerate(MONTHS):
        found, exact = whole(maps, month, level), expected(values, windows, level)
        npt.assert_array_equal(found == UNKNOWN, exact == UNKNOWN)
        # The mean of a mean may be rounded the other way.
        npt.assert_allclose(found.astype(int), exact, atol=1 if level else 0)
        assert (found != exact).mean() < 0.001


def test_a_part_is_the_part_of_the_whole(scores):
    maps = MonthMaps(scores, MONTHS, kept_with())
    for level in range(5):
        height, width = level_shape(SHAPE, level)
        rows, columns = slice(height // 3, height - 1), slice(width // 5, width)
        npt.assert_array_equal(maps.read(2, level, rows, columns), whole(maps, 2, level)[rows, columns])


def test_months_may_come_in_any_order(scores):
    # As in a store of imported windows, which are in no order of time.
    shuffled = ((8, 0), (5, 3), (1,), (7, 2), (4, 6))
    maps = MonthMaps(scores, shuffled, kept_with())
    for month, windows in enumerate(shuffled):
        npt.assert_array_equal(whole(maps, month, 0), expected(scores["score"].values, windows, 0))


def test_a_large_area_has_a_small_coarse_level(scores, values, monkeypatch):
    monkeypatch.setattr(month_maps, "_COARSE_PX", 32)
    maps = MonthMaps(scores, MONTHS, kept_with())
    assert maps.coarse_level == 5
    for level in range(7):
        npt.assert_allclose(whole(maps, 2, level).astype(int), expected(values, MONTHS[2], level, 5), atol=1)


@pytest.mark.parametrize("zooms_out", range(4))
def test_tiles_are_those_of_the_rasters(tmp_path, zooms_out):
    """A raster's overviews weigh cells at the border of what is known otherwise, so here everything is known."""
    known = np.nan_to_num(smooth(9, (768, 1024)), nan=0.3)
    scores = open_scores(write_scores(tmp_path / "scores", known))
    grid = small_grid(768, 1024)
    path = tmp_path / "score_2021-05.tif"
    write_cog(path, np.fmax.reduce(known[3:6]), grid, nodata=np.nan, tags={})
    tiles = TileGrid(grid)
    z = max(tiles.native_zoom + 1 - zooms_out, 0)
    west, _, east, _ = tiles.bounds
    x = int(((west + east) / 2 + 180) / 360 * 2**z)
    y = next(y for y in range(2**z * 5 // 16, 2**z) if tiles.pixels(z, x, y) is not None)
    pyramids = (StorePyramid(MonthMaps(scores, MONTHS, kept_with()), (2,)), CogPyramid(path, grid.shape))
    where = tiles.pixels(z, x, y)
    # The raster has one overview; beyond, GDAL picks pixels of that.
    assert where.level <= 1
    drawn = [sample(pyramid, ByteCache(2**24, size_of), where).astype(int) for pyramid in pyramids]
    npt.assert_allclose(*drawn, atol=0 if where.level == 0 else 1)
    assert len(np.unique(drawn[0])) > 10


def test_eight_that_ask_for_a_block_have_it_made_once(scores, monkeypatch):
    made, gate = [], threading.Event()
    make = MonthMaps._make

    def slow(self, run, i, j):
        gate.wait(5)
        made.append((run.number, i, j))
        return make(self, run, i, j)

    monkeypatch.setattr(MonthMaps, "_make", slow)
    maps = MonthMaps(scores, MONTHS, kept_with())
    with ThreadPoolExecutor(8) as pool:
        # Two months of one run, at several levels.
        asked = [pool.submit(maps.read, k % 2, k % 3, slice(0, 60), slice(0, 60)) for k in range(8)]
        gate.set()
        for one in asked:
            one.result()
    assert made == [(0, 0, 0)]


def test_what_was_prepared_needs_the_store_no_more(scores, monkeypatch):
    maps = MonthMaps(scores, MONTHS, kept_with())
    for work in maps.preparation(range(len(MONTHS))):
        work()
    monkeypatch.setattr(MonthMaps, "_highest", None)
    for level in range(6):
        assert whole(maps, 4, level).shape == level_shape(SHAPE, level)


def test_preparing_drops_nothing_that_was_asked_for(scores, monkeypatch):
    months = [(window,) for window in range(9)]
    kept = kept_with(scratch_bytes=0, block_bytes=1_400_000)
    maps = MonthMaps(scores, months, kept)
    maps.read(0, 0, slice(0, 60), slice(0, 60))
    for work in maps.preparation(range(len(months))):
        work()
        assert kept.blocks.bytes_kept <= 1_400_000
    assert not all(at in kept.blocks for at in itertools.product(range(3), range(2), range(3)))
    monkeypatch.setattr(MonthMaps, "_highest", None)
    maps.read(0, 0, slice(0, 60), slice(0, 60))
    # All zoomed-out tiles are at hand, whatever else had room.
    for month in range(len(months)):
        whole(maps, month, 3)


def test_only_runs_that_are_wanted_are_prepared(scores):
    kept = kept_with()
    for work in MonthMaps(scores, MONTHS, kept).preparation([4]):
        work()
    assert 2 in kept.coarse
    assert 0 not in kept.coarse


# ---------------------------------------------------------------- the scratch file


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_scratch_file_gives_back_what_it_took(temporary):
    scratch = Scratch(1000)
    assert scratch.bytes_kept == 0
    places = [(scratch.put(content), content) for content in (b"a" * 300, b"", b"b" * 500)]
    for at, content in reversed(places):
        assert scratch.get(at, len(content)) == content
    assert scratch.put(b"c" * 201) is None
    assert scratch.put(b"c" * 200) == 800
    assert scratch.bytes_kept == 1000
    if os.name == "posix":
        assert list(temporary.iterdir()) == []


def test_no_scratch_file_is_made_without_need(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    assert Scratch(0).put(b"a") is None
    Scratch(10)


def test_a_full_disk_is_no_failure(temporary, monkeypatch, caplog):
    scratch = Scratch(1000)
    at = scratch.put(b"first")

    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "_opened", fail)
    assert scratch.put(b"second") is None
    assert scratch.put(b"third") is None
    assert caplog.text.count("No space left") == 1
    assert scratch.get(at, 5) == b"first"


def test_a_scratch_file_leaves_room_on_the_disk(temporary, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(1000, 900, 100))
    scratch = Scratch(1000)
    assert scratch.put(bytes(51)) is None
    assert scratch.put(bytes(50)) == 0


# ---------------------------------------------------------------- the server


def files_of(folder) -> dict[str, tuple[int, int]]:
    stats = {str(path): path.stat() for path in folder.rglob("*")}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def month_tile(client: TestClient, area: dict, *, out: int = 0) -> bytes:
    west, south, east, north = area["bounds"]
    z = area["native_zoom"] - out
    x = int(((west + east) / 2 + 180) / 360 * 2**z)
    latitude = np.radians((south + north) / 2)
    y = int((1 - np.arcsinh(np.tan(latitude)) / np.pi) / 2 * 2**z)
    answer = client.get(f"/tiles/month/{area['months'][1]['label']}/{z}/{x}/{y}.png")
    assert answer.status_code == 200, answer.text
    return answer.content


def client_of(source: WebSource, **options) -> TestClient:
    return TestClient(create_app(source, **options), base_url="http://localhost")


def test_a_server_without_a_scratch_file_draws_the_same(tmp_path, values):
    source = WebSource(name="city", scores_url=write_scores(tmp_path / "scores", values))
    drawn = []
    for scratch_bytes in (2**24, 0):
        client = client_of(source, scratch_bytes=scratch_bytes)
        area = client.get("/api/area").json()
        drawn.append([month_tile(client, area, out=out) for out in range(5)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5


def test_an_update_at_night_shows_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("urbandelta.web.opened.LOOK_AGAIN_SECONDS", 0)
    source = WebSource(name="city", scores_url=write_scores(tmp_path / "scores", smooth(9, SHAPE)))
    # Within `with`, the server prepares tiles of its own accord: of the old snapshot, then of the new one.
    with client_of(source) as client:
        area = client.get("/api/area").json()
        before = [month_tile(client, area, out=out) for out in range(5)]
        write_scores(tmp_path / "scores", smooth(9, SHAPE, seed=2), overwrite=True)
        after = [month_tile(client, area, out=out) for out in range(5)]
        assert client.get("/api/area").json()["version"] != area["version"]
    fresh = client_of(source)
    assert after == [month_tile(fresh, area, out=out) for out in range(5)]
    assert not set(before) & set(after)


def test_what_is_kept_goes_with_its_snapshot_and_not_before(tmp_path):
    now = [0.0]
    make_scene(tmp_path, shape=(48, 64))
    holder = Holder(WebSource(name="city", scores_url=str(tmp_path / "scores")), clock=lambda: now[0])
    first = holder.get()
    (tmp_path / "products" / "events").mkdir(parents=True)
    write_scores(tmp_path / "other", smooth(9, (48, 64)))
    shutil.rmtree(tmp_path / "scores")
    (tmp_path / "other").rename(tmp_path / "scores")
    now[0] += LOOK_AGAIN_SECONDS
    second = holder.get()
    assert second.kept is not first.kept


def test_events_alone_leave_what_is_kept(tmp_path):
    now = [0.0]
    make_scene(tmp_path, shape=(48, 64))
    source = WebSource(name="city", scores_url=str(tmp_path / "scores"), folder=tmp_path)
    holder = Holder(source, clock=lambda: now[0])
    first = holder.get()
    (tmp_path / "products" / "events").mkdir(parents=True)
    (tmp_path / "products" / "events" / "events.geojson").write_text("{}")
    now[0] += LOOK_AGAIN_SECONDS
    second = holder.get()
    assert second is not first
    assert second.kept is first.kept


def test_a_server_prepares_and_leaves_the_store_as_it_is(tmp_path, values, monkeypatch):
    source = WebSource(name="city", scores_url=write_scores(tmp_path / "scores", values))
    files = files_of(tmp_path)
    holders: list[Holder] = []
    monkeypatch.setattr("urbandelta.web.app.Holder", lambda *a, **k: holders.append(Holder(*a, **k)) or holders[0])
    with client_of(source) as client:
        kept = holders[0].get().kept
        for _ in range(1000):
            if all(number in kept.coarse for number in range(3)):
                break
            time.sleep(0.01)
        monkeypatch.setattr(MonthMaps, "_highest", None)
        area = client.get("/api/area").json()
        for out in range(5):
            month_tile(client, area, out=out)
    assert files_of(tmp_path) == files


def test_nothing_is_prepared_where_rasters_are(tmp_path, values):
    source = WebSource(name="city", scores_url=write_scores(tmp_path / "scores", values), folder=tmp_path)
    assert len(list(Holder(source).get().preparation())) == 3 * (6 + 1)
    rasters = tmp_path / "products" / "rasters"
    rasters.mkdir(parents=True)
    for label in Holder(source).get().months:
        write_cog(rasters / f"score_{label}.tif", values[0], small_grid(*SHAPE), nodata=np.nan, tags={})
    assert list(Holder(source).get().preparation()) == []
