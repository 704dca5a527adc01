"""When a pixel changed, from runs of flagged windows."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from urbandelta.dating import NO_DATE, SIGHT_SHARE, START_WEIGHT, StrongestRun

LENGTH = 180.0


def dates(scores, starts, *, threshold=0.5, length=LENGTH):
    """Estimated days of a stack of scores (window, y, x)."""
    strongest = StrongestRun(scores.shape[1:])
    for number, each in enumerate(scores):
        strongest.add(number, each, each >= threshold)
    return strongest.dates(np.asarray(starts, float), np.asarray(starts, float) + length)


def one_pixel(series, starts):
    return int(dates(np.asarray(series, np.float32)[:, None, None], starts)[0, 0])


def flags(change, starts):
    """An ideal detector: what a window holds is flagged, if the window goes on for long enough behind it."""
    return (starts <= change) & (change <= starts + (1 - SIGHT_SHARE) * LENGTH)


@given(change=st.floats(200, 800), step=st.floats(3, 25))
def test_an_ideal_detector_is_dated_to_within_a_step(change, step):
    starts = np.arange(0, 1000, step)
    assert abs(one_pixel(flags(change, starts), starts) - change) <= step + 1


@given(change=st.floats(0, 500), margin=st.floats(0, 0.45))
def test_a_date_lies_within_all_windows_of_its_run(change, margin):
    starts = np.arange(0, 400, 10.0)
    flagged = (starts + margin * LENGTH <= change) & (change <= starts + (1 - margin) * LENGTH)
    found = one_pixel(flagged, starts)
    if flagged.any():
        assert starts[flagged].max() - 1 <= found <= starts[flagged].min() + LENGTH


@pytest.mark.parametrize("change", [70.0, 510.0])
def test_a_run_that_the_series_cuts_is_dated_by_its_other_end(change):
    starts = np.arange(0, 400, 10.0)
    flagged = flags(change, starts)
    assert flagged[0 if change < 200 else -1]
    assert abs(one_pixel(flagged, starts) - change) <= 11


def test_the_run_with_the_highest_score_counts_and_no_run_has_no_date():
    starts = np.arange(0, 700, 70.0)
    series = [0, 0.6, 0.6, 0, 0, 0.9, 0.6, 0, 0, 0]
    # Windows 5 and 6 begin on days 350 and 420 and end on days 530 and 600.
    seen = 530 - SIGHT_SHARE * LENGTH
    assert one_pixel(series, starts) == int(START_WEIGHT * 420 + (1 - START_WEIGHT) * seen)
    assert one_pixel(np.zeros(10), starts) == NO_DATE


@given(hnp.arrays(np.float32, (8, 2, 3), elements=st.sampled_from([0.0, 0.4, 0.5, 0.7, 0.9, 1.0])))
def test_the_strongest_run_equals_a_plain_search(scores):
    strongest = StrongestRun(scores.shape[1:])
    for number, each in enumerate(scores):
        strongest.add(number, each, each >= 0.5)
    for y, x in np.ndindex(2, 3):
        runs, begun = [], None
        for number, score in enumerate([*scores[:, y, x], 0.0]):
            if score >= 0.5 and begun is None:
                begun = number
            elif score < 0.5 and begun is not None:
                runs.append((max(scores[begun:number, y, x]), -begun, number - 1))
                begun = None
        peak, first, last = max(runs, default=(0.0, 1, -1))
        npt.assert_array_equal([strongest.first[y, x], strongest.last[y, x]], [-first, last], err_msg=str(peak))
