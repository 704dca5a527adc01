import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import icechunk
import numpy as np
import numpy.testing as npt
import pytest
import xarray as xr
import zarr

from urbandelta import cube_format
from urbandelta.errors import ConfigError, DuplicateAcquisition, GridError, ShapeError, StoreError
from urbandelta.grid import Grid
from urbandelta.repository import local_lock
from urbandelta.store import create_cube, open_cube
from urbandelta.types import Acquisition, MaskReason

GRID = Grid.from_bounds((500000, 5000000, 501500, 5002100), "EPSG:32631", (210, 150))
BANDS = ("B02", "B03", "B8A")


def optical(day, *, seed=None, **changes):
    rng = np.random.default_rng(day if seed is None else seed)
    mask = (rng.random(GRID.shape) < 0.2).astype(np.uint8) * np.uint8(MaskReason.CLOUD)
    made = Acquisition(
        time=np.datetime64("2020-01-01T10:00", "ns") + np.timedelta64(day, "D"),
        values=rng.integers(0, 10000, (*GRID.shape, 3), dtype=np.uint16),
        mask=mask,
        bands=BANDS,
        scale=1e-4,
        offset=-0.1,
        item_id=f"S2_{day}",
        platform="sentinel-2a" if day % 2 else "sentinel-2b",
        relative_orbit=8,
        orbit_state="descending",
        processing_baseline="05.10",
        processing_level="L1C",
        boa_offset_applied=bool(day % 2),
        provenance={"path": "a.tif"},
    )
    return replace(made, **changes)


def radar(day, **changes):
    rng = np.random.default_rng(day)
    values = rng.gamma(4, 0.05, (*GRID.shape, 2)).astype(np.float32)
    made = Acquisition(
        time=np.datetime64("2020-01-01T17:00", "ns") + np.timedelta64(day, "D"),
        values=values,
        mask=np.zeros(GRID.shape, np.uint8),
        bands=("VV", "VH"),
        item_id=f"S1_{day}",
        orbit_state="ascending",
        backscatter_coefficient="gamma0",
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def days():
    return [optical(day) for day in (4, 0, 7, 2, 1)]


@pytest.fixture
def cube(tmp_path):
    return create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, days):
    cube = create_cube(str(tmp_path_factory.mktemp("filled") / "cube"), era="s12", grid=GRID)
    cube.append("optical", days)
    cube.append("s1_asc", [radar(3), radar(1)])
    return open_cube(cube.url)


def test_new_cube_is_empty(cube):
    again = open_cube(cube.url)
    assert (again.grid, again.era.name, again.streams) == (GRID, "s12", ())
    assert again.times("optical").size == 0
    with pytest.raises(StoreError, match="holds no acquisition of stream optical"):
        again.bands("optical")
    with pytest.raises(ConfigError, match="no stream"):
        again.times("lidar")


def test_arrival_in_any_order_is_read_in_order_of_time(filled, days):
    expected = sorted(days, key=lambda acquisition: acquisition.time)
    assert filled.streams == ("s1_asc", "optical")
    npt.assert_array_equal(filled.times("optical"), [acquisition.time for acquisition in expected])
    values, mask = filled.read("optical", slice(None), slice(None), slice(None))
    assert values.dtype == np.float32
    for position, acquisition in enumerate(expected):
        npt.assert_allclose(values[position], acquisition.values * 1e-4 - 0.1, atol=1e-6)
        npt.assert_array_equal(mask[position], acquisition.mask)


def test_blocks_are_cut_from_the_whole(filled):
    values, mask = filled.read("optical", slice(None), slice(None), slice(None))
    part = slice(1, 4), slice(100, 200), slice(20, 140)
    block, block_mask = filled.read("optical", *part)
    npt.assert_array_equal(block, values[part])
    npt.assert_array_equal(block_mask, mask[part])
    assert filled.read("optical", slice(2, 2), slice(0, 4), slice(0, 5))[0].shape == (0, 4, 5, 3)
    with pytest.raises(StoreError, match="without a step"):
        filled.read("optical", slice(0, 4, 2), slice(None), slice(None))


def test_float32_comes_back_bit_by_bit(filled):
    values, mask = filled.read("s1_asc", slice(None), slice(None), slice(None))
    npt.assert_array_equal(values, np.stack([radar(1).values, radar(3).values]), strict=True)
    assert not mask.any()


def test_threads_read_the_same(filled):
    parts = [(slice(None), slice(y, y + 40), slice(0, 150)) for y in range(0, 200, 40)] * 3
    whole, _ = filled.read("optical", slice(None), slice(None), slice(None))
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda part: filled.read("optical", *part)[0], parts))
    for part, block in zip(parts, blocks, strict=True):
        npt.assert_array_equal(block, whole[part])


def test_metadata_are_known_without_pixels(filled):
    info = filled.attributes("optical")
    assert (info.bands, info.dtype, info.scale, info.offset) == (BANDS, "uint16", 1e-4, -0.1)
    assert (info.count, info.units, info.kind) == (5, "reflectance", "optical")
    assert info.platforms == ("sentinel-2a", "sentinel-2b")
    assert info.boa_offset_applied == (False, True)
    assert info.relative_orbits == (8,)
    assert filled.attributes("s1_asc").backscatter_coefficients == ("gamma0",)
    table = filled.acquisitions("optical")
    assert list(table["item_id"].values) == ["S2_0", "S2_1", "S2_2", "S2_4", "S2_7"]
    assert "values" not in table
    npt.assert_allclose(filled.valid_fraction("optical"), 0.8, atol=0.02)
    npt.assert_array_equal(table["valid_fraction"], filled.valid_fraction("optical"))


def test_nan_becomes_nodata(cube):
    values = radar(0).values.copy()
    values[3, 4, 1] = np.nan
    cube.append("s1_asc", [radar(0, values=values)])
    read, mask = cube.read("s1_asc", slice(None), slice(None), slice(None))
    assert mask[0, 3, 4] == MaskReason.NODATA
    assert mask.astype(bool).sum() == 1
    npt.assert_array_equal(read[0], values)


def test_same_acquisition_twice_is_one(cube, days):
    first = cube.append("optical", days[:3])
    second = cube.append("optical", days[:4])
    assert (first.added, first.skipped, second.added, second.skipped) == (3, 0, 1, 3)
    third = open_cube(cube.url, "a").append("optical", days[:4])
    assert (third.added, third.skipped, third.snapshot) == (0, 4, second.snapshot)


def test_same_time_with_other_content_is_refused(cube):
    cube.append("optical", [optical(1)])
    with pytest.raises(DuplicateAcquisition, match="twin at 2020-01-02T10:00:00"):
        cube.append("optical", [optical(1, seed=9, item_id="twin")])
    assert cube.attributes("optical").count == 1


def test_each_acquisition_is_one_commit(cube, days):
    before = len(cube.history())
    seen = []
    cube.append("optical", iter(days[:3]), progress=lambda *report: seen.append(report[:2]))
    history = cube.history()
    assert len(history) - before == 3
    assert seen == [(1, 0), (2, 0), (3, 0)]
    assert "S2_7" in history[0].message
    assert [commit.metadata.get("appended") for commit in history[:3]] == [3, 2, 1]
    assert json.loads(cube.acquisitions("optical")["provenance"].values[0]) == {"path": "a.tif"}
    older = open_cube(cube.url, snapshot=history[1].snapshot)
    assert older.attributes("optical").count == 2
    with pytest.raises(StoreError, match="newest snapshot"):
        open_cube(cube.url, "a", snapshot=history[1].snapshot)
    with pytest.raises(StoreError, match="has no snapshot"):
        open_cube(cube.url, snapshot="FY545PB4ETQDNQENNYAG")


def test_readers_keep_their_snapshot(cube, days):
    cube.append("optical", days[:1])
    reader = open_cube(cube.url)
    cube.append("optical", days[1:2])
    assert len(reader.times("optical")) == 1
    assert len(cube.times("optical")) == 2
    assert len(open_cube(cube.url).times("optical")) == 2


def test_two_writers_see_each_other(cube, days):
    other = open_cube(cube.url, "a")
    cube.append("optical", days[:2])
    assert other.append("optical", days[1:3]).skipped == 1
    cube.append("optical", days)
    assert cube.attributes("optical").count == 5


def test_many_acquisitions_cross_the_chunks_of_the_coordinates(tmp_path, monkeypatch):
    monkeypatch.setattr(cube_format, "_TIMES_CHUNK", 4)
    count = 10
    grid = Grid.from_bounds((0, 0, 20, 20), "EPSG:3035", (2, 2))
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=grid)
    order = np.random.default_rng(0).permutation(count)
    made = [
        Acquisition(
            time=np.datetime64("2020-01-01", "ns") + np.timedelta64(int(day), "D"),
            values=np.full((2, 2, 1), day, np.float32),
            mask=np.zeros((2, 2), np.uint8),
            bands=("VV",),
            item_id=f"scene {day} é",
            relative_orbit=int(day),
        )
        for day in order
    ]
    cube.append("s1_dsc", made)
    again = open_cube(cube.url)
    npt.assert_array_equal(again.read("s1_dsc", slice(None), slice(0, 1), slice(0, 1))[0].ravel(), np.arange(count))
    table = again.stream("s1_dsc")
    npt.assert_array_equal(table["relative_orbit"], np.arange(count))
    assert list(table["item_id"].values) == [f"scene {day} é" for day in range(count)]
    assert len(set(again.acquisitions("s1_dsc")["digest"].values)) == count


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scale": 2e-4}, StoreError, "scale 0.0002 differs from 0.0001"),
        ({"offset": 0.0}, StoreError, "offset"),
        ({"bands": ("B03", "B02", "B8A")}, StoreError, "bands"),
        ({"bands": ("B02", "B03", "X")}, StoreError, "do not fit stream optical"),
        ({"bands": ("B02", "B03")}, ShapeError, "with 2 bands"),
        ({"values": np.zeros((*GRID.shape, 3), np.float32)}, StoreError, "dtype 'float32' differs"),
        ({"values": np.zeros((*GRID.shape, 3), complex)}, ShapeError, "no numbers"),
        ({"values": np.zeros((10, 10, 3), np.uint16)}, GridError, "resample"),
        ({"mask": np.zeros((10, 10), np.uint8)}, ShapeError, "mask"),
        ({"mask": np.zeros(GRID.shape, bool)}, ShapeError, "mask"),
        ({"scale": 0.0}, StoreError, "finite"),
        ({"time": np.datetime64("NaT")}, StoreError, "no time"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_written(cube, change, error, message):
    cube.append("optical", [optical(0)])
    snapshot = open_cube(cube.url).snapshot
    with pytest.raises(error, match=message) as caught:
        cube.append("optical", [optical(1, **change)])
    assert "\n" not in str(caught.value)
    assert open_cube(cube.url).snapshot == snapshot


def test_orbits_and_coefficients_are_never_mixed(cube):
    with pytest.raises(StoreError, match="ascending, stream s1_dsc is descending"):
        cube.append("s1_dsc", [radar(0)])
    cube.append("s1_asc", [radar(0)])
    with pytest.raises(StoreError, match="sigma0"):
        cube.append("s1_asc", [radar(1, backscatter_coefficient="sigma0")])


def test_reading_mode_does_not_write(filled):
    with pytest.raises(StoreError, match="mode='a'"):
        filled.append("optical", [optical(9)])
    with pytest.raises(ConfigError, match="mode"):
        open_cube(filled.url, "w")


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_plain_xarray_reads_the_stream(tmp_path, crs):
    bounds = (500000, 5000000, 500040, 5000060) if crs == "EPSG:32631" else (4, 50, 4.4, 50.6)
    grid = Grid.from_bounds(bounds, crs, (6, 4))
    cube = create_cube(str(tmp_path / "cube"), era="ers12ls5", grid=grid)
    values = np.arange(24, dtype=np.uint8).reshape(6, 4, 1)
    times = np.array(["1991-05-02T10:00:00.123456789", "1990-01-01"], "datetime64[ns]")
    made = [
        Acquisition(time=time, values=values, mask=np.eye(6, 4, dtype=np.uint8), bands=("B1",), scale=0.5, offset=1.0)
        for time in times
    ]
    cube.append("optical", made)
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "cube"))).readonly_session(
        "main"
    )
    data = xr.open_zarr(session.store, group="optical", consolidated=False, chunks=None, decode_coords="all")
    npt.assert_array_equal(data["time"], times)
    npt.assert_allclose(data["values"][0], values * 0.5 + 1.0)
    assert data["values"].dims == ("time", "y", "x", "band")
    npt.assert_array_equal(data["mask"][0], np.eye(6, 4))
    npt.assert_array_equal(data["x"], grid.x)
    npt.assert_array_equal(data["y"], grid.y)
    assert list(data["band"].values) == ["B1"]
    mapping = data["values"].encoding["grid_mapping"]
    c, a, b, f, d, e = (float(value) for value in data[mapping].attrs["GeoTransform"].split())
    assert Grid(data[mapping].attrs["crs_wkt"], (a, b, c, d, e, f), 6, 4) == grid
    assert data["mask"].attrs["flag_meanings"].split()[0] == "nodata"
    assert data["mask"].attrs["flag_masks"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert set(data["values"].coords) >= {"platform", "item_id", "valid_fraction", "relative_orbit"}
    ours = cube.stream("optical")
    npt.assert_array_equal(ours["time"], np.sort(times))
    npt.assert_allclose(ours["values"], data["values"])


def test_native_encoding_takes_fewer_bytes_than_raw(filled):
    raw = 5 * 210 * 150 * (3 * 2 + 1) + 2 * 210 * 150 * (2 * 4 + 1)
    assert 0 < filled.bytes_stored() < raw


def test_existing_things_are_not_overwritten(cube, tmp_path):
    with pytest.raises(StoreError, match="exists already"):
        create_cube(cube.url, era="s12", grid=GRID)
    cube.append("optical", [optical(0)])
    fresh = create_cube(cube.url, era="s12", grid=GRID, overwrite=True)
    assert fresh.streams == open_cube(cube.url).streams == ()
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"exists already|not a readable"):
            create_cube(str(foreign), era="s12", grid=GRID, overwrite=overwrite)
    assert (foreign / "holiday.jpg").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert create_cube(f"file://{empty}", era="s12", grid=GRID).streams == ()


def test_missing_foreign_and_newer_stores_are_named(tmp_path, cube):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "bare")))
    other = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "other")))
    session = other.writable_session("main")
    zarr.create_group(session.store)
    session.commit("other")
    newer = icechunk.Repository.open(icechunk.local_filesystem_storage(cube.url)).writable_session("main")
    zarr.open_group(newer.store, mode="r+").attrs["urbandelta_format"] = 2
    newer.commit("newer")
    for name, message in (
        ("none", "no such cube"),
        ("file", "is a file"),
        ("folder", "not a readable Icechunk repository"),
        ("bare", "not created completely"),
        ("other", "not a cube of urbandelta"),
        ("cube", "newer urbandelta"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            open_cube(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_cube_in_memory():
    cube = create_cube("memory://test_store/one", era="s12", grid=GRID)
    cube.append("optical", [optical(0)])
    assert open_cube("memory://test_store/one").attributes("optical").count == 1
    assert cube.bytes_stored() is None
    with pytest.raises(StoreError, match="exists already"):
        create_cube("memory://test_store/one", era="s12", grid=GRID)
    assert create_cube("memory://test_store/one", era="s12", grid=GRID, overwrite=True).streams == ()


@pytest.mark.parametrize("url", ["s3://bucket", "ftp://host/cube", "gs://"])
def test_urls_that_cannot_be_are_named(url):
    with pytest.raises(StoreError, match=r"bucket and a prefix|unknown kind of URL"):
        open_cube(url)


def test_azure_needs_an_account(monkeypatch):
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match="AZURE_STORAGE_ACCOUNT"):
        open_cube("az://container/cube")


def test_lost_files_and_impossible_folders_are_named(cube, tmp_path):
    cube.append("s1_asc", [radar(0)])
    for chunk in (Path(cube.url) / "chunks").iterdir():
        chunk.unlink()
    with pytest.raises(StoreError, match="could not be read") as caught:
        open_cube(cube.url).read("s1_asc", slice(None), slice(None), slice(None))
    assert "\n" not in str(caught.value)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="folder cannot be made"):
        create_cube(str(tmp_path / "file" / "cube"), era="s12", grid=GRID)


def test_a_waiting_writer_says_so(cube, monkeypatch):
    monkeypatch.setattr("urbandelta.repository._LOCK_SECONDS", 0.05)
    with local_lock(Path(cube.url), cube.url), pytest.raises(StoreError, match="another process has been writing"):
        cube.append("s1_asc", [radar(0)])
    assert cube.append("s1_asc", [radar(0)]).added == 1
