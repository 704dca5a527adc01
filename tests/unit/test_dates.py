from __future__ import annotations

import numpy as np
import pytest
import rasterio
from event_scene import DAY, GRID, START, WINDOW_DAYS, dataset, response, scores_of

from urbandelta.dating import CUTS, date_maps, date_table, run_dates, window_days_of
from urbandelta.eras import ERAS
from urbandelta.flanks import Edges, edges_of
from urbandelta.observed_dates import BOUNDS

ONE = (slice(3, 5), slice(3, 6))


def day(number: int) -> int:
    """Days since 1970-01-01 of a day counted from the scene's start."""
    return int((START.astype("datetime64[D]") + number * DAY).astype(int))


def test_flanks_lie_where_the_score_passes_the_level():
    start = np.arange(6) * 10.0
    series = np.array([[0.0, 0.1, 0.5, 0.9, 0.3, 0.1]], np.float32)
    edges = edges_of(series, np.array([0]), np.array([3]), start, start + 100)
    assert edges.rise[0] == pytest.approx(110 + 10 * (0.2 - 0.1) / 0.4)
    assert edges.fall[0] == pytest.approx(40 + 10 * 0.5)
    assert (edges.cut_start[0], edges.cut_end[0], edges.after[0]) == (False, False, 5)


def test_flanks_that_the_series_cuts_are_marked():
    start = np.arange(4) * 10.0
    series = np.array([[0.9, 0.9, 0.1, 0.0], [0.0, 0.1, 0.8, 0.9], [0.5, 0.6, 0.9, 0.5]], np.float32)
    edges = edges_of(series, np.arange(3), series.argmax(axis=1), start, start + 100)
    assert edges.cut_start.tolist() == [True, False, True]
    assert edges.cut_end.tolist() == [False, True, True]
    assert (edges.rise[0], edges.fall[1]) == (100, 30)
    assert edges.after.tolist() == [2, 4, 4]


@pytest.mark.parametrize("number", [150, 200, 255, 310])
def test_a_change_is_dated_within_its_interval(number):
    maps = date_maps(scores_of([(*ONE, number)]))
    assert (maps.first >= 0).sum() == 6
    inside = maps.first[ONE]
    assert (np.abs(inside - day(number)) <= 15).all()
    assert (maps.first_low[ONE] <= day(number)).all()
    assert (day(number) <= maps.first_high[ONE]).all()
    assert (maps.last[ONE] > inside).all()
    assert (maps.duration[ONE] == maps.last[ONE] - inside).all()
    for image in (getattr(maps, name) for name in BOUNDS):
        assert image.dtype == np.int32
        assert (image[10:] == -1).all()
    assert (maps.duration[10:] == -1).all()


def test_runs_that_the_ends_cut_have_wider_or_equal_intervals_that_still_hold():
    whole = scores_of([(*ONE, 200)])
    exact = date_maps(whole)
    for part in (slice(10, 40), slice(0, 12), slice(9, 15)):
        cut = date_maps(whole.isel(window=part))
        assert (cut.first[ONE] >= 0).all()
        assert (cut.first_low[ONE] <= day(200)).all()
        assert (day(200) <= cut.first_high[ONE]).all()
        assert (np.abs(cut.first[ONE] - exact.first[ONE]) < 60).all()


def test_the_strongest_run_is_dated_and_of_equals_the_earliest():
    twice = scores_of([(*ONE, 200), (*ONE, 460)], windows=60)
    once = date_maps(scores_of([(*ONE, 200)], windows=60))
    np.testing.assert_array_equal(date_maps(twice).first, once.first)
    twice["score"][:30] *= 0.9
    assert (date_maps(twice).first[ONE] > day(400)).all()


def test_every_era_has_its_row_with_its_source():
    assert set(date_table()) == set(ERAS)
    for row in date_table().values():
        assert row["source"] == "experiments/dating/fit.py"
        assert len(row["weights_sha256"]) == 64
        assert row["level"] == 0.9
        assert not set(row["seeds"]) & {7, 301, 302, 303}
        for which in ("first", "last"):
            assert set(row[which]) == set(CUTS)


def test_an_era_without_a_row_takes_the_default_scaled_by_its_window():
    zero = np.zeros(1)
    flags = np.zeros(1, bool)
    edges = Edges(zero, zero, flags, flags, np.ones(1, np.int32))
    known, unknown = (run_dates(edges, window_days=182, era=era) for era in ("s12", "none"))
    assert known.first_high == unknown.first_high
    twice = run_dates(edges, window_days=364, era="none")
    assert abs(int(twice.last_high[0]) - 2 * int(known.last_high[0])) <= 1


def test_the_window_s_length_is_the_era_s_or_the_longest():
    scores = scores_of([])
    assert window_days_of(scores) == 182
    del scores.attrs["era"]
    assert window_days_of(scores) == WINDOW_DAYS


def test_no_pixel_is_dated_in_quiet_scores():
    quiet = dataset(np.full((5, *GRID.shape), 0.4, np.float32), START + np.arange(5) * 10 * DAY)
    assert (date_maps(quiet).first == -1).all()
    assert response(np.array([0.5]))[0] == pytest.approx(0.95)


def test_a_scene_s_last_day_is_written_beside_its_first(tmp_path):
    from urbandelta.simulate import simulate, write_last_truth

    scene = simulate("s12", size=32, months=6, seed=3)
    with rasterio.open(write_last_truth(scene, tmp_path / "last.tif")) as source:
        last = source.read(1)
        assert source.nodata == -1
    built = scene.truth >= 0
    assert (last[~built] == -1).all()
    assert (last[built] > scene.truth[built] + 29).all()
