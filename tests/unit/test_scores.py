import logging
from pathlib import Path

import icechunk
import numpy as np
import numpy.testing as npt
import pytest
import xarray as xr

from urbandelta.errors import ShapeError, StoreError
from urbandelta.grid import Grid, blocks
from urbandelta.store import create_cube, create_scores, open_cube, open_scores, resume_scores
from urbandelta.types import Window

GRID = Grid.from_bounds((500000, 5000000, 500900, 5000700), "EPSG:32631", (70, 90))
RUN = {"identity": {"weights_sha256": "abc", "tile": 16}, "version": "0.1"}


def windows(count=5):
    first = np.datetime64("2020-01-01T10:00", "ns")
    step = np.timedelta64(5, "D")
    return [Window(first + i * step, first + (i + 40) * step, 41, i, i + 40) for i in range(count)]


@pytest.fixture
def writer(tmp_path):
    return create_scores(str(tmp_path / "scores"), grid=GRID, windows=windows(), chunks=(2, 32, 32), attributes=RUN)


def contribution(y, x, seed):
    return np.random.default_rng(seed).random((5, y.stop - y.start, x.stop - x.start)).astype(np.float32)


def test_contributions_of_overlapping_blocks_add_up(writer):
    expected = np.full((5, *GRID.shape), np.nan, np.float32)
    plan = blocks(GRID.shape, tile=16, halo=4, block=32)
    for block_id, block in enumerate(plan[:-1]):
        part = contribution(*block.patch, block_id)
        writer.add(block_id, *block.patch, part)
        here = (slice(None), *block.patch)
        expected[here] = np.nan_to_num(expected[here]) + part
    npt.assert_array_equal(open_scores(writer.url)["score"], expected)
    assert np.isnan(expected).any()
    assert writer.done == frozenset(range(len(plan) - 1))


def test_nan_adds_nothing(writer):
    part = np.full((5, 8, 8), np.nan, np.float32)
    part[:, :4] = 0.25
    writer.add(0, slice(0, 8), slice(0, 8), part)
    writer.add(1, slice(0, 8), slice(4, 12), part)
    score = open_scores(writer.url)["score"].values[0]
    npt.assert_array_equal(score[0, :12], [0.25] * 4 + [0.5] * 4 + [0.25] * 4)
    assert np.isnan(score[4:8]).all()
    assert np.isfinite(score).sum() == 4 * 12


def test_blocks_count_once(writer):
    part = contribution(slice(0, 8), slice(0, 8), 1)
    writer.add(3, slice(0, 8), slice(0, 8), part)
    other = resume_scores(writer.url, RUN)
    assert other.done == {3}
    with pytest.raises(StoreError, match="block 3 is finished already"):
        other.add(3, slice(0, 8), slice(0, 8), part)
    other.add(7, slice(0, 8), slice(8, 16), part)
    with pytest.raises(StoreError, match="block 7"):
        writer.add(7, slice(0, 8), slice(8, 16), part)
    with pytest.raises(StoreError, match="not negative"):
        writer.add(-1, slice(0, 8), slice(0, 8), part)
    npt.assert_array_equal(open_scores(writer.url)["score"][:, :8, :16], np.concatenate([part, part], axis=2))


def test_wrong_shape_is_refused(writer):
    with pytest.raises(ShapeError, match="does not fit"):
        writer.add(0, slice(0, 8), slice(0, 8), np.zeros((4, 8, 8), np.float32))
    with pytest.raises(ShapeError, match="does not fit"):
        writer.add(0, slice(66, 74), slice(0, 8), np.zeros((5, 8, 8), np.float32))
    assert open_scores(writer.url).attrs["blocks_done"] == []


def test_dataset_follows_cf(writer):
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(writer.url)).readonly_session("main")
    data = xr.open_zarr(session.store, consolidated=False, chunks=None, decode_coords="all")
    spans = windows()
    npt.assert_array_equal(data["window_start"], [window.start for window in spans])
    npt.assert_array_equal(data["window_end"], [window.end for window in spans])
    npt.assert_array_equal(data["time"], [window.middle for window in spans])
    npt.assert_array_equal(data["time_bounds"], [[window.start, window.end] for window in spans])
    npt.assert_array_equal(data["n_obs"], 41)
    npt.assert_array_equal(data["x"], GRID.x)
    npt.assert_array_equal(data["y"], GRID.y)
    assert data["score"].dims == ("window", "y", "x")
    assert data["score"].dtype == np.float32
    assert data["score"].isnull().all()
    assert data["spatial_ref"].attrs["crs_wkt"].startswith("PROJCRS")
    assert data.attrs["version"] == "0.1"
    assert Grid.from_json(data.attrs["grid"]) == GRID


def test_incomplete_scores_are_announced(writer, caplog):
    with caplog.at_level(logging.WARNING):
        assert not open_scores(writer.url).attrs["complete"]
    assert "incomplete" in caplog.text
    caplog.clear()
    snapshot = writer.finish()
    assert writer.finish() == snapshot == open_scores(writer.url).attrs["snapshot"]
    assert open_scores(writer.url).attrs["complete"]
    assert not caplog.text


def test_another_run_is_not_resumed(writer):
    assert resume_scores(writer.url, RUN).done == frozenset()
    for identity, key in (
        ({"weights_sha256": "abc", "tile": 32}, "tile is 16, not 32"),
        ({"weights_sha256": "abc"}, "tile is 16, not None"),
        ({**RUN["identity"], "halo": 8}, "halo is None, not 8"),
    ):
        with pytest.raises(StoreError, match=key):
            resume_scores(writer.url, {"identity": identity})


def test_overwriting_must_be_asked_for(writer):
    again = {"grid": GRID, "windows": windows(3), "chunks": (2, 32, 32), "attributes": RUN}
    with pytest.raises(StoreError, match="exists already"):
        create_scores(writer.url, **again)
    writer.add(0, slice(0, 8), slice(0, 8), contribution(slice(0, 8), slice(0, 8), 1))
    fresh = create_scores(writer.url, **again, overwrite=True)
    assert fresh.done == frozenset()
    assert open_scores(writer.url).sizes["window"] == 3


def test_cubes_and_scores_are_told_apart(writer, tmp_path):
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)
    with pytest.raises(StoreError, match="holds scores, not cube"):
        open_cube(writer.url)
    with pytest.raises(StoreError, match="holds cube, not scores"):
        open_scores(cube.url)
    with pytest.raises(StoreError, match="no such scores"):
        open_scores(str(tmp_path / "none"))


def test_finished_scores_keep_no_superseded_chunks(writer):
    for block_id in range(6):
        writer.add(block_id, slice(0, 64), slice(0, 64), contribution(slice(0, 64), slice(0, 64), block_id))
    folder = Path(writer.url)
    expected = open_scores(writer.url)["score"].values
    before = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    writer.finish()
    after = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert after < before / 4
    npt.assert_array_equal(open_scores(writer.url)["score"], expected)
    assert resume_scores(writer.url, RUN).done == frozenset(range(6))
    writer.finish()
    npt.assert_array_equal(open_scores(writer.url)["score"], expected)
