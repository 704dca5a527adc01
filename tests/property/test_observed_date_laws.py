"""Laws of dates from observations: in order whatever was seen, and settled once a change is over."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import numpy.testing as npt
from event_scene import DAY, START, WINDOW_DAYS
from hypothesis import given
from observed_scene import BANDS, FakeCube
from test_event_laws import ALL, QUICK, SIDE, SMALL, scores

from urbandelta.dating import date_maps
from urbandelta.events import find_events
from urbandelta.observed_dates import _quantile


@st.composite
def cubes(draw: st.DrawFn) -> FakeCube:
    """Anything that a sensor may deliver, at irregular times."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    days = np.flatnonzero(rng.random(WINDOW_DAYS + 200) < draw(st.floats(0.0, 0.3)))
    values = rng.random((days.size, SIDE, SIDE, len(BANDS)))
    mask = (rng.random(values.shape[:3]) < draw(st.floats(0.0, 1.0))).astype(np.uint8)
    return FakeCube(values, days, mask, SMALL)


@given(scores(), cubes())
@QUICK
def test_dates_are_in_order(full, cube):
    maps = date_maps(full, cube=cube)
    dated = maps.first >= 0
    npt.assert_array_equal(dated, date_maps(full).first >= 0)
    for low, high in (
        ("first_low", "first"),
        ("first", "first_high"),
        ("last_low", "last"),
        ("last", "last_high"),
        ("first", "last"),
    ):
        assert (getattr(maps, low)[dated] <= getattr(maps, high)[dated]).all()


@given(scores(), cubes(), st.data())
@QUICK
def test_an_update_neither_moves_what_is_finished_nor_renames_anything(full, cube, data):
    count = data.draw(st.integers(3, full.sizes["window"]))
    known = full.isel(window=slice(0, count))
    end = (known["window_end"].values.max() - START) / DAY
    early = find_events(known, ALL, cube=cube.until(end + 1))
    late = {event.id: event for event in find_events(full, ALL, cube=cube)}
    assert list(late) == [event.id for event in find_events(full, ALL)]
    for event in early:
        if event.stage == "finished":
            assert late[event.id] == event


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.98))
@QUICK
def test_quantiles_rise_with_the_share(seed, share):
    rng = np.random.default_rng(seed)
    probability = rng.random((4, 9)) ** 4
    candidates = np.linspace(0, 80, 9)[None] + rng.random((4, 1))
    low, high = _quantile(probability, candidates, share), _quantile(probability, candidates, share + 0.01)
    assert (low <= high).all()
    assert (low >= candidates[:, 0] - 5).all()
    assert (high <= candidates[:, -1] + 5).all()
