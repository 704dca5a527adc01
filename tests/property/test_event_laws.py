"""Laws of events: updates keep what is settled, blocks do not matter, looser limits take in more."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import numpy.testing as npt
import shapely
import xarray as xr
from event_scene import DAY, GRID, START, dataset
from hypothesis import given, settings

from urbandelta import score_runs
from urbandelta.dating import date_maps
from urbandelta.events import Event, EventOptions, find_events
from urbandelta.grid import Grid

SIDE = 6
SMALL = Grid(GRID.crs, GRID.transform, SIDE, SIDE)
ALL = EventOptions(min_area_m2=0, min_pixels=1, min_days=0, min_windows=1)
QUICK = settings(deadline=None, max_examples=25)
STRICT = EventOptions(min_area_m2=0, min_pixels=2, min_days=20, min_windows=2)


@st.composite
def scores(draw: st.DrawFn) -> xr.Dataset:
    """Noise smoothed over windows, so that runs begin, end, and touch."""
    count = draw(st.integers(6, 18))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.random((count + 2, SIDE, SIDE))
    smooth = (noise[:-2] + noise[1:-1] + noise[2:]) / 3
    level = draw(st.floats(0.8, 1.6))
    values = np.clip((smooth - 0.5) * 2.5 * level + 0.25, 0, 1).astype(np.float32)
    return dataset(values, START + np.arange(count) * 10 * DAY, grid=SMALL)


def holds(event: Event, other: Event) -> bool:
    """Whether one event has all pixels of another."""
    return bool(event.geometry.buffer(0.01).covers(other.geometry))


@given(scores(), st.data(), st.sampled_from([ALL, STRICT]))
@QUICK
def test_later_windows_keep_names_and_change_nothing_that_is_finished(full, data, options):
    count = data.draw(st.integers(3, full.sizes["window"]))
    early = find_events(full.isel(window=slice(0, count)), options)
    late = {event.id: event for event in find_events(full, options)}
    for event in early:
        if event.stage == "finished":
            assert late[event.id] == event
        elif event.id in late:
            assert holds(late[event.id], event)
        elif event.stage == "confirmed":
            # Its name can only have gone to an older one, with which it has grown together.
            assert any(holds(other, event) for other in late.values())


@given(scores(), st.data())
@QUICK
def test_provisional_windows_do_not_rename_what_a_settled_one_shows(full, data):
    count = full.sizes["window"]
    provisional = data.draw(st.integers(1, count - 1))
    marks = ("window", np.arange(count) >= count - provisional)
    before = find_events(full.assign_coords(provisional=marks), ALL)
    other = full.copy(deep=True)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    other["score"][count - provisional :] = rng.random((provisional, SIDE, SIDE)).astype(np.float32)
    after = find_events(other.assign_coords(provisional=marks), ALL)
    settled = find_events(full.isel(window=slice(0, count - provisional)), ALL)
    for events in (before, after):
        names = {event.id for event in events}
        for event in settled:
            assert event.id in names or any(holds(joined, event) for joined in events)
            if event.stage == "finished":
                assert event in events


def pieces(score: xr.DataArray, rows: int, columns: int, seed: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of a size in a random order."""
    found = [
        (slice(y, min(y + rows, SIDE)), slice(x, min(x + columns, SIDE)))
        for y in range(0, SIDE, rows)
        for x in range(0, SIDE, columns)
    ]
    np.random.default_rng(seed).shuffle(found)
    yield from found


@given(scores(), st.integers(1, SIDE), st.integers(1, SIDE), st.integers(0, 99))
@QUICK
def test_blocks_and_their_order_do_not_matter(full, rows, columns, seed):
    whole = find_events(full, ALL)
    maps = date_maps(full)
    with mock.patch.object(score_runs, "column_blocks", lambda score: pieces(score, rows, columns, seed)):
        assert find_events(full, ALL) == whole
        again = date_maps(full)
    for name, image in vars(maps).items():
        npt.assert_array_equal(image, getattr(again, name))


@given(scores(), st.floats(0.1, 0.5), st.floats(0.1, 0.5))
@QUICK
def test_a_lower_limit_takes_in_more(full, one, other):
    low, high = sorted((one, other))
    wide = find_events(full, EventOptions(low=low, min_area_m2=0, min_pixels=1, min_days=0, min_windows=1))
    narrow = find_events(full, EventOptions(low=high, min_area_m2=0, min_pixels=1, min_days=0, min_windows=1))
    assert len(wide) <= len(narrow)
    for event in narrow:
        assert any(holds(larger, event) for larger in wide)


@given(scores(), st.floats(0.3, 1.0), st.floats(0.3, 1.0))
@QUICK
def test_a_higher_threshold_leaves_a_part_of_the_events(full, one, other):
    low, high = sorted((one, other))
    many = find_events(full, EventOptions(threshold=low, min_area_m2=0, min_pixels=1, min_days=0, min_windows=1))
    few = find_events(full, EventOptions(threshold=high, min_area_m2=0, min_pixels=1, min_days=0, min_windows=1))
    outlines = [event.geometry for event in many]
    assert all(any(event.geometry.equals(outline) for outline in outlines) for event in few)


@given(scores())
@QUICK
def test_figures_agree_with_each_other(full):
    events = find_events(full, ALL)
    assert len({event.id for event in events}) == len(events)
    for event in events:
        assert event.geometry.is_valid
        assert event.first_low <= event.first_date <= event.first_high
        assert event.last_low <= event.last_date <= event.last_high
        assert event.first_date <= event.last_date
        assert 0.5 <= event.peak <= 1
        assert 0.3 <= event.mean <= event.peak
        assert 1 <= event.windows <= full.sizes["window"]
        assert abs(event.area_m2 / event.geometry.area - 1) < 2e-3
    maps = date_maps(full)
    dated = maps.first >= 0
    npt.assert_array_equal(dated, full["score"].values.max(axis=0) >= 0.5)
    assert (maps.first_low[dated] <= maps.first[dated]).all()
    assert (maps.first[dated] <= maps.first_high[dated]).all()
    assert (maps.duration[dated] >= 0).all()
    assert (maps.duration[~dated] == -1).all()
    covered = shapely.union_all([event.geometry for event in events]) if events else shapely.Polygon()
    assert covered.area >= 100 * dated.sum() - 1e-6
