from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from report_scene import dataset, make_scene, small_grid

from urbandelta import products
from urbandelta.cog import write_cog
from urbandelta.errors import ProductError, ShapeError
from urbandelta.products import days_of, export_cogs, grid_of, period_maxima, score_maps
from urbandelta.scores import open_scores

MIDDLES = ["2021-04-05", "2021-04-20", "2021-06-30T23:59", "2021-07-01"]
score_values = st.one_of(st.just(np.nan), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
score_arrays = hnp.arrays(np.float32, (4, 7, 9), elements=st.floats(0, 1, width=16) | score_values)


@given(score_arrays)
def test_maps_equal_a_plain_loop_over_pixels_whatever_the_blocks(values):
    scores = dataset(values, MIDDLES)
    days = days_of(scores["time"].values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "SPAN_PX", 4)
        patch.setattr(products, "BLOCK_BYTES", 4 * 4 * 4 * 2)  # two windows of a 4 x 4 block at a time
        maps = score_maps(scores, threshold=0.5)
    for y, x in np.ndindex(7, 9):
        series = values[:, y, x]
        seen = np.flatnonzero(~np.isnan(series))
        above = np.flatnonzero(series >= 0.5)
        got = [m[y, x] for m in (maps.window_of_maximum, maps.count, maps.first_date, maps.last_date)]
        if seen.size:
            best = seen[np.argmax(series[seen])]
            dates = [days[above].min(), days[above].max()] if above.size else [-1, -1]
            assert maps.maximum[y, x] == series[best]
            assert got == [best, above.size, *dates]
        else:
            assert np.isnan(maps.maximum[y, x])
            assert got == [-1, -1, -1, -1]


def test_dates_do_not_depend_on_the_order_of_windows():
    values = np.array([0.9, 0.1, 0.8], np.float32)[:, None, None]
    maps = score_maps(dataset(values, ["2021-08-01", "2021-07-01", "2021-03-01"]))
    assert maps.first_date[0, 0] == days_of(np.datetime64("2021-03-01"))
    assert maps.last_date[0, 0] == days_of(np.datetime64("2021-08-01"))


def test_days_before_1970_round_down_and_1991_fits():
    assert days_of(np.datetime64("1969-12-31T23:00")) == -1
    assert days_of(np.datetime64("1991-08-01")) == 7882


@given(score_arrays)
def test_a_period_holds_the_windows_whose_middle_lies_in_it(values):
    periods = list(period_maxima(dataset(values, MIDDLES)))
    assert [str(p.start) for p in periods] == ["2021-04-01", "2021-05-01", "2021-06-01", "2021-07-01"]
    assert [p.windows for p in periods] == [2, 0, 1, 1]
    assert np.isnan(periods[1].maximum).all()
    npt.assert_array_equal(periods[0].maximum, np.fmax(values[0], values[1]))
    npt.assert_array_equal(periods[3].maximum, values[3])


def test_quarters_and_years_start_where_the_calendar_does():
    scores = dataset(np.zeros((2, 1, 1)), ["2020-11-15", "2021-02-15"])
    assert [str(p.start) for p in period_maxima(scores, months=3)] == ["2020-10-01", "2021-01-01"]
    assert [str(p.start) for p in period_maxima(scores, months=12)] == ["2020-01-01", "2021-01-01"]


def test_blocks_cover_the_map_once_in_whole_chunks():
    score = dataset(np.zeros((1, 130, 70)), ["2021-01-01"])["score"]
    score.encoding["preferred_chunks"] = {"window": 1, "y": 48, "x": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "SPAN_PX", 100)
        blocks = list(products.pixel_blocks(score))
    covered = np.zeros((130, 70), int)
    for y, x in blocks:
        covered[y, x] += 1
        assert y.start % 48 == 0
        assert x.start % 64 == 0
    assert (covered == 1).all()


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_a_threshold_outside_the_scores_is_refused(threshold):
    with pytest.raises(ProductError, match="threshold"):
        score_maps(dataset(np.zeros((1, 2, 2)), ["2021-01-01"]), threshold=threshold)


def test_a_store_without_windows_is_refused():
    with pytest.raises(ProductError, match="no window"):
        score_maps(dataset(np.zeros((0, 2, 2)), []))
    with pytest.raises(ProductError, match="no score"):
        score_maps(dataset(np.zeros((1, 2, 2)), ["2021-01-01"]).drop_vars("score"))


# ---------------------------------------------------------------- GeoTIFFs


def read(path: Path):
    with rasterio.open(path) as source:
        return source.read(1), source.profile, source.tags(), source.overviews(1), source.tags(ns="IMAGE_STRUCTURE")


def test_a_cog_reads_back_with_its_place_tags_statistics_and_overviews(tmp_path):
    grid = small_grid(70, 90)
    values = np.random.default_rng(1).random((70, 90)).astype(np.float32)
    values[:5] = np.nan
    write_cog(tmp_path / "a.tif", values, grid, nodata=np.nan, tags={"weights_sha256": "ab"}, description="score")
    got, profile, tags, overviews, structure = read(tmp_path / "a.tif")
    npt.assert_array_equal(got, values)
    assert structure["LAYOUT"] == "COG"
    assert overviews
    assert np.isnan(profile["nodata"])
    assert tuple(profile["transform"])[:6] == grid.transform
    assert profile["crs"].to_string() == "EPSG:32631"
    assert tags["weights_sha256"] == "ab"
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.descriptions == ("score",)
        assert float(source.tags(1)["STATISTICS_MAXIMUM"]) == pytest.approx(float(np.nanmax(values)), rel=1e-6)
    assert os.listdir(tmp_path) == ["a.tif"]


def test_overviews_of_categories_hold_no_invented_value(tmp_path):
    grid = small_grid(64, 64)
    days = np.where(np.indices((64, 64)).sum(axis=0) % 2, 18_000, 19_000).astype(np.int32)
    scores = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)
    write_cog(tmp_path / "days.tif", days, grid, nodata=-1, tags={}, categories=True)
    write_cog(tmp_path / "score.tif", scores, grid, nodata=np.nan, tags={})
    with rasterio.open(tmp_path / "days.tif", overview_level=0) as source:
        assert set(np.unique(source.read(1))) <= {18_000, 19_000}
    with rasterio.open(tmp_path / "score.tif", overview_level=0) as source:
        npt.assert_allclose(source.read(1), 0.5)


def test_a_palette_is_kept_and_refused_for_numbers(tmp_path):
    grid = small_grid(8, 8)
    palette = {0: (0, 0, 0, 255), 3: (213, 94, 0, 255)}
    classes = np.full((8, 8), 3, np.uint8)
    write_cog(tmp_path / "c.tif", classes, grid, nodata=255, tags={}, colormap=palette, categories=True)
    with rasterio.open(tmp_path / "c.tif") as source:
        assert source.colormap(1)[3] == (213, 94, 0, 255)
    with pytest.raises(ShapeError, match="palette"):
        write_cog(tmp_path / "d.tif", classes.astype(np.float32), grid, nodata=-1, tags={}, colormap=palette)


def test_a_map_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="grid"):
        write_cog(tmp_path / "a.tif", np.zeros((3, 4), np.float32), small_grid(4, 3), nodata=0, tags={})


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "a.tif"
    target.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("urbandelta.cog.os.replace", fail)
    with pytest.raises(ProductError, match="disk full"):
        write_cog(target, np.zeros((4, 4), np.float32), small_grid(4, 4), nodata=-1, tags={})
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.tif"]


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(ProductError, match="cannot write"):
        write_cog(tmp_path / "no" / "a.tif", np.zeros((4, 4), np.float32), small_grid(4, 4), nodata=-1, tags={})


# ---------------------------------------------------------------- export


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return open_scores(make_scene(tmp_path_factory.mktemp("scene"))[0])


def test_the_grid_comes_from_the_store_and_else_from_the_grid_mapping(scores):
    assert grid_of(scores) == small_grid()
    bare = scores.drop_attrs(deep=False)
    assert grid_of(bare) == small_grid()
    with pytest.raises(ProductError, match="grid mapping"):
        grid_of(bare.drop_vars("spatial_ref"))


@pytest.mark.parametrize(
    ("which", "files"),
    [
        ("max", ["score_max.tif"]),
        (
            "maps",
            [
                f"{name}.tif"
                for name in ("change_date", "count", "first_date", "last_date", "score_max", "window_of_max")
            ],
        ),
        (
            "monthly",
            [f"score_2021-{m:02d}.tif" for m in range(4, 13)] + [f"score_2022-0{m}.tif" for m in (1, 2, 3)][:3],
        ),
    ],
)
def test_export_writes_the_maps_that_were_asked_for(scores, tmp_path, which, files):
    done = export_cogs(scores, tmp_path / "maps", which=which)
    present = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert sorted(p.name for p in done.written) == present
    assert set(present) <= set(files)
    assert files[0] in present


def test_exported_maps_hold_the_scores_and_their_provenance(scores, tmp_path):
    export_cogs(scores, tmp_path, which="maps")
    maximum, _, tags, *_ = read(tmp_path / "score_max.tif")
    npt.assert_array_equal(maximum, scores["score"].values.max(axis=0))
    assert tags["weights_sha256"] == "cd" * 32
    assert tags["cube_snapshot"] == scores.attrs["cube_snapshot"]
    first, profile, tags, *_ = read(tmp_path / "first_date.tif")
    assert first.dtype == np.int32
    assert profile["nodata"] == -1
    assert (tags["units"], tags["threshold"]) == ("days since 1970-01-01", "0.5")


def test_one_file_a_window(scores, tmp_path):
    seen = []
    done = export_cogs(scores, tmp_path, which="windows", progress=lambda k, n, name: seen.append((k, n)))
    assert len(done.written) == scores.sizes["window"] == 12
    assert seen[-1] == (12, 12)
    values, _, tags, *_ = read(tmp_path / "window_0003_20210403_20211002.tif")
    npt.assert_array_equal(values, scores["score"].values[3])
    assert tags["window_start"] == "2021-04-03T10:00:00Z"
    assert tags["time"] == "2021-07-03T10:00:00Z"


def test_exporting_again_changes_nothing_and_other_content_is_not_overwritten(scores, tmp_path):
    first = export_cogs(scores, tmp_path, which="maps")
    before = {path: path.stat().st_mtime_ns for path in first.written}
    again = export_cogs(scores, tmp_path, which="maps")
    assert (len(again.written), len(again.kept)) == (0, 6)
    assert before == {path: path.stat().st_mtime_ns for path in first.written}
    with pytest.raises(ProductError, match="--overwrite"):
        export_cogs(scores, tmp_path, which="maps", threshold=0.4)
    changed = export_cogs(scores, tmp_path, which="maps", threshold=0.4, overwrite=True)
    assert {p.name for p in changed.kept} == {"score_max.tif", "window_of_max.tif"}


def test_a_foreign_or_damaged_file_is_not_overwritten(scores, tmp_path):
    (tmp_path / "score_max.tif").write_bytes(b"not a tiff")
    with pytest.raises(ProductError, match="another result"):
        export_cogs(scores, tmp_path)
