from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from event_scene import DAY, GRID, START, scores_of

from urbandelta.errors import EventError, ProductError
from urbandelta.events import AlertStatus, EventOptions, find_events, outline
from urbandelta.grid import Grid
from urbandelta.score_runs import WindowTable, column_blocks, find_runs, linked_runs

BLOCK = (slice(4, 9), slice(5, 10), 200)
OTHER = (slice(14, 18), slice(3, 9), 250)


def test_a_building_site_is_one_event_with_its_outline_dates_and_figures():
    (event,) = find_events(scores_of([BLOCK]))
    assert event.geometry.equals(shapely.box(600_050, 5_599_910, 600_100, 5_599_960))
    assert event.area_m2 == pytest.approx(2500, rel=2e-3)
    day = START.astype("datetime64[D]") + 200 * DAY
    assert abs(event.first_date - day) < 20 * DAY
    assert event.first_low <= event.first_date <= event.first_high
    assert event.last_low <= event.last_date <= event.last_high
    assert event.last_date > event.first_date
    assert event.duration_days == (event.last_date - event.first_date) / DAY
    assert (event.peak, event.mean, event.spread) == (0.95, 0.95, None)
    assert event.status is AlertStatus.FINISHED_HIGH
    assert (event.stage, event.confidence) == ("finished", "high")
    assert 10 < event.windows < 18
    assert 40 <= event.n_obs < 80


def test_sites_apart_in_space_or_time_are_two_events():
    later = (BLOCK[0], BLOCK[1], 200 + 250)
    found = find_events(scores_of([BLOCK, OTHER, later], windows=60))
    assert len(found) == len({event.id for event in found}) == 3
    assert found[0].first_date < found[1].first_date < found[2].first_date
    assert found[0].geometry.equals(found[2].geometry)


def test_neighbours_that_windows_flag_together_are_one_event_and_its_dates_are_medians():
    beside = (slice(4, 9), slice(10, 11), 230)
    (event,) = find_events(scores_of([BLOCK, beside]))
    (alone,) = find_events(scores_of([BLOCK]))
    assert event.first_date == alone.first_date
    assert event.geometry.bounds[2] == alone.geometry.bounds[2] + 10


def test_corners_join_unless_told():
    corner = (slice(9, 12), slice(10, 13), 200)
    scores = scores_of([BLOCK, corner])
    (event,) = find_events(scores)
    assert event.geometry.geom_type == "MultiPolygon"
    assert event.geometry.is_valid
    assert len(find_events(scores, EventOptions(connectivity=4))) == 2


def test_hysteresis_takes_what_touches_and_nothing_alone():
    scores = scores_of([BLOCK])
    run = slice(8, 24)
    scores["score"][run, 4:9, 10] = 0.4
    scores["score"][run, 15:20, 15:20] = 0.45
    (event,) = find_events(scores)
    assert event.geometry.bounds[2] == 600_110
    assert len(find_events(scores, EventOptions(low=0.5))) == 1
    assert find_events(scores, EventOptions(low=0.5))[0].geometry.bounds[2] == 600_100


@pytest.mark.parametrize("options", [EventOptions(min_area_m2=2600), EventOptions(min_pixels=26)])
def test_small_events_are_left_out(options):
    assert find_events(scores_of([BLOCK]), options) == []


def test_a_blip_is_no_event_however_high():
    scores = scores_of([])
    scores["score"][10:13, 4:10, 4:10] = 0.99
    assert find_events(scores) == []
    (event,) = find_events(scores, EventOptions(min_days=15))
    assert event.stage == "finished"


def test_status_goes_from_first_to_finished():
    scores = scores_of([BLOCK], windows=60)
    seen = []
    for count in range(1, 60):
        for event in find_events(scores.isel(window=slice(0, count))):
            if event.stage not in seen:
                seen.append(event.stage)
    assert seen == ["first", "provisional", "confirmed", "finished"]


def test_only_settled_windows_confirm():
    scores = scores_of([BLOCK], windows=20)
    assert find_events(scores)[0].stage == "confirmed"
    marked = scores.assign_coords(provisional=("window", np.arange(20) >= 10))
    (event,) = find_events(marked)
    assert event.stage == "provisional"
    unmarked = scores.drop_vars("provisional")
    assert find_events(unmarked) == find_events(scores)


def test_confidence_needs_a_high_mean_and_members_that_agree():
    assert find_events(scores_of([BLOCK], spread=0.05))[0].status is AlertStatus.FINISHED_HIGH
    assert find_events(scores_of([BLOCK], spread=0.05))[0].spread == pytest.approx(0.05)
    assert find_events(scores_of([BLOCK], spread=0.3))[0].status is AlertStatus.FINISHED_LOW
    assert find_events(scores_of([BLOCK]), EventOptions(high_confidence=0.97))[0].confidence == "low"


def test_windows_out_of_order_and_pixels_without_scores_change_nothing():
    scores = scores_of([BLOCK, OTHER])
    shuffled = scores.isel(window=np.random.default_rng(1).permutation(40))
    assert find_events(shuffled) == find_events(scores)
    scores["score"][:, 20:, 20:] = np.nan
    assert find_events(scores) == find_events(shuffled)


def test_identifiers_are_those_of_the_place_not_of_the_area_of_interest():
    (event,) = find_events(scores_of([BLOCK]))
    a, b, c, d, e, f = GRID.transform
    moved = Grid(GRID.crs, (a, b, c + 20, d, e, f - 30), 24, 24)
    (again,) = find_events(scores_of([(slice(1, 6), slice(3, 8), 200)], grid=moved))
    assert (again.id, again.geometry) == (event.id, event.geometry)
    (elsewhere,) = find_events(scores_of([(slice(5, 10), slice(5, 10), 200)]))
    assert elsewhere.id != event.id


def test_the_older_name_stays_when_two_grow_together():
    scores = scores_of([BLOCK, (slice(4, 9), slice(12, 17), 230)], windows=60)
    before = find_events(scores)
    assert len(before) == 2
    scores["score"][18:22, 4:9, 10:12] = 0.6
    (joined,) = find_events(scores)
    assert joined.id == before[0].id


def test_a_grid_in_degrees_has_areas_in_square_metres():
    degrees = Grid("EPSG:4326", (1e-4, 0.0, 5.0, 0.0, -1e-4, 50.0), 24, 24)
    (event,) = find_events(scores_of([BLOCK], grid=degrees))
    assert event.area_m2 == pytest.approx(25 * 7.16 * 11.12, rel=0.01)


def test_no_events_in_quiet_scores_and_an_error_without_scores():
    assert find_events(scores_of([])) == []
    with pytest.raises(ProductError, match="no score"):
        find_events(scores_of([]).drop_vars("score"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 0.6}, "low <= threshold"),
        ({"threshold": 1.5}, "threshold <= 1"),
        ({"min_area_m2": float("nan")}, "no area|not an area"),
        ({"min_pixels": 0}, "at least 1"),
        ({"min_days": -1.0}, "no duration"),
        ({"connectivity": 6}, "neither 4"),
        ({"high_confidence": 2.0}, "0..1"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, message):
    with pytest.raises(EventError, match=message):
        replace(EventOptions(), **change)


def test_statuses_are_those_of_dist_s1():
    assert [AlertStatus(n).stage for n in range(9)] == [
        "none", "first", "provisional", "confirmed", "first", "provisional", "confirmed", "finished", "finished",
    ]  # fmt: skip
    assert [AlertStatus(n).confidence for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 255)] == [
        None, "low", "low", "low", "high", "high", "high", "low", "high", None,
    ]  # fmt: skip
    assert all(AlertStatus.of(status.stage, status.confidence) is status for status in AlertStatus if status.confidence)


def test_outlines_keep_holes_and_corners_valid():
    mask = np.ones((5, 5), bool)
    mask[1:3, 1:3] = mask[3, 3] = False
    rows, columns = np.nonzero(mask)
    shape = outline(rows, columns, GRID)
    assert shape.is_valid
    assert shape.area == mask.sum() * 100
    assert len(shape.interiors) == 2


def test_runs_are_the_same_whatever_the_block(monkeypatch):
    scores = scores_of([BLOCK, OTHER])
    whole = find_events(scores)
    monkeypatch.setattr("urbandelta.score_runs.BLOCK_BYTES", 4 * 40 * 30)
    blocks = list(column_blocks(scores["score"]))
    assert len(blocks) > 10
    cover = np.zeros(GRID.shape, int)
    for y, x in blocks:
        cover[y, x] += 1
    assert (cover == 1).all()
    assert find_events(scores) == whole


def test_runs_say_where_they_begin_end_and_peak():
    scores = scores_of([(slice(0, 1), slice(0, 1), 200)])
    runs = find_runs(scores, threshold=0.5, low=0.3)
    series = scores["score"].values[:, 0, 0]
    inside = np.flatnonzero(series >= 0.3)
    above = np.flatnonzero(series >= 0.5)
    assert len(runs) == 1
    assert (runs.first[0], runs.last[0]) == (inside[0], inside[-1])
    assert (runs.above[0], runs.above_first[0], runs.above_last[0]) == (above.size, above[0], above[-1])
    assert runs.peak_at[0] == series.argmax()
    assert len(find_runs(scores, threshold=0.5, low=0.3, floor=0.96)) == 0


def test_runs_link_only_where_they_share_a_window():
    scores = scores_of([(slice(0, 1), slice(0, 1), 100), (slice(0, 1), slice(1, 2), 350)])
    runs = find_runs(scores, threshold=0.5, low=0.3)
    assert len(runs) == 2
    one, other = linked_runs(runs, 24)
    assert one.size == other.size == 0


def test_the_row_s_end_is_no_neighbour_of_the_next_row_s_start():
    scores = scores_of([(slice(3, 4), slice(23, 24), 200), (slice(5, 6), slice(0, 1), 200)])
    one, _ = linked_runs(find_runs(scores, threshold=0.5, low=0.3), 24)
    assert one.size == 0


def test_windows_know_how_many_are_settled():
    assert WindowTable.of(scores_of([], provisional=3)).settled_count == 37
    assert WindowTable.of(scores_of([])).settled_count == 40
