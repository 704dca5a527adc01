"""When a pixel changed, from runs of flagged windows."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from urbandelta.dating import EDGE_SHARE, LAG_SHARE, NO_DATE, START_WEIGHT, StrongestRun

LENGTH = 180.0


def dates(scores, starts, *, threshold=0.5):
    """Estimated days of a stack of scores (window, y, x)."""
    strongest = StrongestRun(scores.shape[1:], threshold)
    for each, start in zip(scores, starts, strict=True):
        strongest.add(each, float(start), float(start) + LENGTH)
    return strongest.dates()


def one_pixel(series, starts):
    return int(dates(np.asarray(series, np.float32)[:, None, None], starts)[0, 0])


def flags(change, starts):
    """An ideal detector: late by `LAG_SHARE` of a window at both ends."""
    lag = LAG_SHARE * LENGTH
    return (starts <= change + lag) & (change + lag <= starts + LENGTH)


@given(change=st.floats(200, 800), step=st.floats(3, 25))
def test_an_ideal_detector_is_dated_to_within_a_step(change, step):
    starts = np.arange(0, 1000, step)
    assert abs(one_pixel(flags(change, starts), starts) - change) <= step + 1


@pytest.mark.parametrize("change", [70.0, 510.0])
def test_a_run_that_the_series_cuts_is_dated_by_its_other_end(change):
    starts = np.arange(0, 400, 10.0)
    flagged = flags(change, starts)
    assert flagged[0 if change < 200 else -1]
    assert abs(one_pixel(flagged, starts) - change) <= 11


@given(hnp.arrays(np.float32, (12,), elements=st.floats(0, 1, width=16)))
def test_a_date_lies_within_the_series(series):
    found = one_pixel(series, np.arange(100, 340, 20.0))
    assert (found == NO_DATE) == (series.max() < 0.5)
    assert found == NO_DATE or 100 <= found <= 320 + LENGTH


def test_the_flanks_of_a_run_tell_where_it_begins_and_ends():
    edge = EDGE_SHARE * 0.5
    series = [0.0, 2 * edge, 0.9, 2 * edge, 0.0, 0.0]
    starts = np.arange(0, 600, 100.0)
    # The score passes the edge half-way between windows 0 and 1, and half-way between 3 and 4.
    lag = LAG_SHARE * LENGTH
    expected = START_WEIGHT * (350 - lag) + (1 - START_WEIGHT) * (50 + LENGTH - lag)
    assert abs(one_pixel(series, starts) - expected) <= 1


def test_the_run_with_the_highest_score_counts_and_low_runs_have_no_date():
    starts = np.arange(0, 700, 70.0)
    alone = [0, 0, 0, 0, 0, 0.9, 0.6, 0, 0, 0]
    assert one_pixel([0, 0.6, 0.6, 0, 0, 0.9, 0.6, 0, 0, 0], starts) == one_pixel(alone, starts)
    assert one_pixel(np.full(10, 0.4), starts) == NO_DATE
    assert one_pixel(np.full(10, -np.inf), starts) == NO_DATE


@given(hnp.arrays(np.float32, (8, 2, 3), elements=st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.7, 0.9, 1.0])))
def test_the_strongest_run_equals_a_plain_search(scores):
    starts = np.arange(0, 800, 100.0)
    edge, lag = EDGE_SHARE * 0.5, LAG_SHARE * LENGTH
    got = dates(scores, starts)
    for y, x in np.ndindex(2, 3):
        series = [float(score) for score in scores[:, y, x]]
        best, expected = 0.0, NO_DATE
        begun = None
        for number in range(9):
            inside = number < 8 and series[number] >= edge
            if inside and begun is None:
                begun = number
            elif not inside and begun is not None:
                if max(series[begun:number]) >= 0.5 and max(series[begun:number]) > best:
                    best = max(series[begun:number])
                    expected = estimate(series, starts, begun, number - 1, edge, lag)
                begun = None
        npt.assert_allclose(got[y, x], expected, atol=1)


def estimate(series, starts, first, last, edge, lag):
    latest, earliest = starts[first] + LENGTH - lag, starts[last] - lag
    if first > 0:
        latest -= 100 * (series[first] - edge) / (series[first] - series[first - 1])
    if last < 7:
        earliest += 100 * (series[last] - edge) / (series[last] - series[last + 1])
    if first == 0 and last < 7:
        return max(earliest, 0)
    if last == 7 and first > 0:
        return latest
    return max(START_WEIGHT * earliest + (1 - START_WEIGHT) * latest, 0)
