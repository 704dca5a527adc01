from __future__ import annotations

import json

import numpy as np
import numpy.testing as npt
import pytest
import scipy.stats
from event_scene import DAY, GRID, START, scores_of
from observed_scene import BANDS, ERA, BothCube, FakeCube, cube_of, radar_of

from urbandelta import dating, observed_dates
from urbandelta.dating import date_maps
from urbandelta.errors import GridError
from urbandelta.event_files import read_events, write_events
from urbandelta.events import find_events
from urbandelta.grid import Grid
from urbandelta.observed_dates import (
    BOUNDS,
    OPTICAL_FEATURES,
    ROLES,
    STRETCHES,
    Series,
    features_of_stream,
    joint_evidence,
    observed_table,
    pooled,
)

ONE = (slice(3, 8), slice(3, 9))
OTHER = (slice(14, 20), slice(2, 20))
SPREAD = {
    kind: {stretch: dict.fromkeys((*OPTICAL_FEATURES, "log_vv"), 0.1) for stretch in stretches}
    for kind, stretches in STRETCHES.items()
}


def day(number: int) -> int:
    """Days since 1970-01-01 of a day counted from the scene's start."""
    return int((START.astype("datetime64[D]") + number * DAY).astype(int))


@pytest.mark.parametrize(("first", "last"), [(160, 250), (203, 330), (248, 330)])
def test_both_dates_are_found_to_days(first, last):
    scores, cube = scores_of([(*ONE, first)]), cube_of([(*ONE, first, last)])
    maps, rough = date_maps(scores, cube=cube), date_maps(scores)
    assert (maps.source, rough.source) == ("observations", "scores")
    for name, truth in (("first", first), ("last", last)):
        low, middle, high = (getattr(maps, f"{name}{suffix}")[ONE] for suffix in ("_low", "", "_high"))
        assert (np.abs(middle - day(truth)) <= 16).all()
        assert ((low <= day(truth)) & (day(truth) <= high)).all()
    assert (maps.last_high - maps.last_low)[ONE].max() < (rough.last_high - rough.last_low)[ONE].min()
    for name in BOUNDS:
        image = getattr(maps, name)
        assert image.dtype == np.int32
        assert ((image >= 0) == (rough.first >= 0)).all()


def test_radar_tells_when_the_walls_stand_where_clouds_hide_it():
    scores, cube = scores_of([(*ONE, 200)]), cube_of([(*ONE, 200, 320)])
    cube.mask[cube.days > 240] = 2
    radar = radar_of([(*ONE, 200, 320)])
    alone, both = date_maps(scores, cube=cube), date_maps(scores, cube=BothCube(cube, radar))
    assert np.abs(both.last[ONE] - day(320)).max() < np.abs(alone.last[ONE] - day(320)).min()
    assert (both.last_high - both.last_low)[ONE].max() < (alone.last_high - alone.last_low)[ONE].min()


def test_without_an_optical_stream_the_scores_date():
    scores, radar = scores_of([(*ONE, 200)]), radar_of([(*ONE, 200, 320)])
    maps, rough = date_maps(scores, cube=radar), date_maps(scores)
    assert maps.source == "scores"
    npt.assert_array_equal(maps.first, rough.first)
    assert find_events(scores, cube=radar) == find_events(scores)


def test_an_era_that_was_not_calibrated_is_dated_by_scores():
    scores, cube = scores_of([(*ONE, 200)]), cube_of([(*ONE, 200, 300)])
    scores.attrs["era"] = "of tomorrow"
    assert date_maps(scores, cube=cube).source == "scores"


def test_pixels_under_clouds_keep_what_the_scores_say():
    scores, cube = scores_of([(*ONE, 200)]), cube_of([(*ONE, 200, 300)])
    cube.mask[:, :5] = 2
    cube.values[:, 6:, :5] = np.nan
    maps, rough = date_maps(scores, cube=cube), date_maps(scores)
    hidden = np.zeros(GRID.shape, bool)
    hidden[:5], hidden[6:, :5] = True, True
    for name in BOUNDS:
        npt.assert_array_equal(getattr(maps, name)[hidden], getattr(rough, name)[hidden])
    seen = ~hidden & (rough.first >= 0)
    assert (maps.last_high[seen] - maps.last_low[seen] < rough.last_high[seen] - rough.last_low[seen]).all()


def test_what_is_over_is_not_moved_by_later_acquisitions():
    scores, cube = scores_of([(*ONE, 200)], windows=30), cube_of([(*ONE, 200, 300)], days=900)
    whole = date_maps(scores, cube=cube)
    ends = (scores["window_end"].values - START) / DAY
    # Windows that begin after the change no longer flag it; the first of them ends so many days after it.
    soon = date_maps(scores, cube=cube.until(ends[25]))
    for name in BOUNDS:
        npt.assert_array_equal(getattr(whole, name), getattr(soon, name))
    cube.values[cube.days > ends.max()] = 0.9
    npt.assert_array_equal(date_maps(scores, cube=cube).last, whole.last)


def test_tiles_and_batches_do_not_matter(monkeypatch):
    scores = scores_of([(*ONE, 180), (*OTHER, 240)])
    cube = cube_of([(*ONE, 180, 260), (*OTHER, 240, 330)])
    whole = date_maps(scores, cube=cube)
    monkeypatch.setattr(observed_dates, "_TILE_PX", 5)
    monkeypatch.setattr(observed_dates, "_MOST_RUNS", 11)
    monkeypatch.setattr(observed_dates, "_RUNS_AT_ONCE", 7)
    monkeypatch.setattr(observed_dates, "_BATCH", 3)
    parts = date_maps(scores, cube=cube)
    for name in BOUNDS:
        npt.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_quiet_scores_read_nothing():
    cube = cube_of([])
    maps = date_maps(scores_of([]), cube=cube)
    assert (maps.first == -1).all()
    assert cube.read_days == 0


def test_a_cube_of_another_shape_is_refused():
    cube = cube_of([], grid=Grid(GRID.crs, GRID.transform, 8, 8))
    with pytest.raises(GridError, match="pass the cube that they come from"):
        date_maps(scores_of([(*ONE, 200)]), cube=cube)


def test_events_differ_by_their_dates_only(tmp_path):
    scores, cube = scores_of([(*ONE, 200)]), cube_of([(*ONE, 200, 300)])
    (event,), (rough,) = find_events(scores, cube=cube), find_events(scores)
    assert (event.dated_by, rough.dated_by) == ("observations", "scores")
    assert (event.id, event.geometry, event.status, event.windows) == (
        rough.id,
        rough.geometry,
        rough.status,
        rough.windows,
    )
    assert abs(int((event.last_date - (START + 300 * DAY)) / DAY)) <= 16
    paths = write_events([event], tmp_path, grid=GRID)
    assert [read_events(path)[0].dated_by for path in paths] == ["observations"] * 3


def test_event_files_of_earlier_versions_are_read(tmp_path):
    (event,) = find_events(scores_of([(*ONE, 200)]))
    (path,) = write_events([event], tmp_path, grid=GRID, formats=["geojson"])
    content = json.loads(path.read_text())
    del content["features"][0]["properties"]["dated_by"]
    path.write_text(json.dumps(content))
    assert read_events(path)[0].dated_by == "scores"


def test_rows_name_their_source_and_no_held_out_scene():
    for row in observed_table().values():
        assert row["source"] == "experiments/dating/fit_observed.py"
        assert len(row["weights_sha256"]) == 64
        assert row["level"] == 0.9
        assert not set(row["seeds"]) & {7, 301, 302, 303}
        assert {kind: set(stretches) for kind, stretches in row["spread"].items()} == {
            kind: set(stretches) for kind, stretches in STRETCHES.items()
        }
        assert set(row["evidence"]) == {*STRETCHES, "scores"}


def test_streams_show_features_if_they_have_the_bands():
    optical = ERA.stream("optical")
    assert features_of_stream(optical, BANDS) == OPTICAL_FEATURES
    assert features_of_stream(optical, BANDS[1:]) == ()
    assert features_of_stream(ERA.stream("s1_asc"), ("VV", "VH")) == ("log_vv", "log_vh")
    assert len(ROLES) == len(BANDS)


@pytest.mark.parametrize("kind", ["optical", "sar"])
def test_evidence_is_the_product_of_what_each_acquisition_adds(kind):
    """Oracle: Student's t of each value given those before it in its stretch."""
    features = OPTICAL_FEATURES if kind == "optical" else ("log_vv",)
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 1, len(features)))
    valid = np.ones((9, 1), bool)
    valid[4] = False
    values[4] = np.nan
    days = np.arange(9.0)
    candidates = np.array([[1.5, 3.5, 6.5]])
    series = Series(kind, features, days, values, valid)
    found = np.broadcast_to(joint_evidence(series, candidates, SPREAD[kind]), (1, 3, 3))[0]
    centred = values[:, 0] - np.nanmean(values[:, 0], axis=0)

    def by_hand(first: float, last: float) -> float:
        edges = (-np.inf, first, last, np.inf) if kind == "optical" else (-np.inf, last, np.inf)
        total = 0.0
        for stretch, begin, end in zip(STRETCHES[kind], edges, edges[1:], strict=False):
            for x in centred[(days >= begin) & (days < end) & valid[:, 0]].T:
                mean, weight, shape, scale = 0.0, observed_dates._MEAN_WEIGHT[stretch], 2.0, 2.0 * 0.1**2
                for value in x:
                    width = np.sqrt(scale * (weight + 1) / (shape * weight))
                    total += scipy.stats.t.logpdf(value, 2 * shape, mean, width)
                    scale += weight * (value - mean) ** 2 / (2 * (weight + 1))
                    mean, weight, shape = (weight * mean + value) / (weight + 1), weight + 1, shape + 0.5
        return total

    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    expected = np.array([by_hand(candidates[0, i], candidates[0, j]) for i, j in pairs])
    got = np.array([found[i, j] for i, j in pairs])
    npt.assert_allclose(got - got[0], expected - expected[0], atol=1e-8)


def test_neighbours_are_averaged_where_they_are_valid():
    values = np.array([[[1.0], [3.0], [8.0]], [[1.0], [3.0], [8.0]]]).repeat(3, axis=2)
    valid = np.array([[True, True, True], [True, False, True]])
    series = pooled(Series("sar", ("log_vv",), np.zeros(2), values, valid), np.array([0, 1, 1]), np.array([1, 0, 2]), 2)
    npt.assert_array_equal(series.values[..., 0], [[2.0, 4.0], [1.0, 4.5]])
    npt.assert_array_equal(series.valid, valid[:, :2])


def test_a_fake_cube_asks_for_what_a_cube_has():
    from urbandelta.store import Cube

    assert all(hasattr(Cube, name) for name in ("streams", "times", "bands", "read", "url"))
    assert FakeCube(np.zeros((1, *GRID.shape, 4)), np.zeros(1)).era is ERA


def test_radar_whose_bands_were_not_calibrated_is_left_out(monkeypatch):
    scores, cube = scores_of([(*ONE, 200)]), cube_of([(*ONE, 200, 320)])
    both = BothCube(cube, radar_of([(*ONE, 200, 320)]))
    alone = date_maps(scores, cube=cube)
    assert (date_maps(scores, cube=both).last_high != alone.last_high).any()
    row = json.loads(json.dumps(observed_table()["s12"]))
    del row["spread"]["sar"]["built"]["log_vh"]
    monkeypatch.setattr(dating, "observed_table", lambda: {"s12": row})
    npt.assert_array_equal(date_maps(scores, cube=both).last_high, alone.last_high)
