"""Laws of steps, carry-forward and windows."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.testing as npt
from hypothesis import given
from hypothesis.extra import numpy as hnp

from urbandelta.assemble import carry_forward, time_steps
from urbandelta.recurrence import open_windows
from urbandelta.windows import find_windows


@st.composite
def cubes(draw: st.DrawFn) -> tuple[Any, Any]:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)))
    bands = draw(st.integers(1, 2))
    values = draw(hnp.arrays(np.float32, (*shape, bands), elements=st.floats(-100, 100, width=32)))
    return values, draw(hnp.arrays(np.bool_, shape))


@given(cubes())
def test_carry_forward_never_looks_ahead(cube: Any) -> None:
    values, valid = cube
    npt.assert_array_equal(carry_forward(values[:-1], valid[:-1]), carry_forward(values, valid)[:-1])


@given(cubes())
def test_carry_forward_shows_a_pixel_as_it_was_last_seen(cube: Any) -> None:
    values, valid = cube
    filled = carry_forward(values, valid, initial=-1000)
    for time in range(len(values)):
        for y, x in np.ndindex(valid.shape[1:]):
            seen = np.flatnonzero(valid[: time + 1, y, x])
            expected = values[seen[-1], y, x] if seen.size else -1000
            npt.assert_array_equal(filled[time, y, x], np.broadcast_to(expected, filled.shape[-1:]))


@given(cubes())
def test_carrying_forward_twice_changes_nothing(cube: Any) -> None:
    values, valid = cube
    once = carry_forward(values, valid, initial=0)
    npt.assert_array_equal(carry_forward(once, np.ones_like(valid), initial=0), once)


times = st.lists(st.integers(0, 2000), min_size=1, max_size=60).map(lambda seconds: np.array(seconds))


@given(times, st.integers(0, 500), st.integers(1, 1500), st.integers(1, 300))
def test_a_step_is_the_last_acquisition_of_its_bucket(seconds: Any, start: int, span: int, step: int) -> None:
    steps = time_steps(seconds, start=start, end=start + span, step=step)
    by_bucket: dict[int, int] = {}
    for second in sorted(seconds):
        if start <= second < start + span:
            by_bucket[(second - start) // step] = second
    assert steps.tolist() == list(by_bucket.values())


@given(times, st.integers(1, 900), st.integers(1, 5), st.integers(0, 20), st.integers(1, 4))
def test_windows_hold_what_their_definition_says(seconds: Any, length: int, least: int, more: int, stride: int) -> None:
    steps = np.unique(seconds)
    found = {w.first: w for w in find_windows(steps, length=length, min_obs=least, max_obs=least + more, stride=stride)}
    for first in range(0, len(steps), stride):
        members = [s for s in steps[first : first + least + more] if s < steps[first] + length]
        if len(members) < least:
            assert first not in found
        else:
            window = found.pop(first)
            assert (window.start, window.end, window.count) == (members[0], members[-1], len(members))
            assert window.last == first + len(members) - 1
    assert not found


@given(times, st.integers(1, 900), st.integers(1, 6), st.integers(1, 4))
def test_open_windows_is_the_most_that_share_a_step(seconds: Any, length: int, least: int, stride: int) -> None:
    windows = find_windows(np.unique(seconds), length=length, min_obs=least, max_obs=least + 20, stride=stride)
    shared = [sum(w.first <= step <= w.last for w in windows) for step in range(len(seconds))]
    assert open_windows(windows) == max(shared, default=0)
