"""Measures against hand-written ones that know nothing of sorting."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from urbandelta.errors import ShapeError
from urbandelta.metrics import (
    Counts,
    average_precision,
    best_f1,
    calibration,
    counts_at,
    merge,
    pr_curve,
    roc_auc,
    roc_curve,
    tally,
    tally_roc_auc,
)

LEVELS = [0.0, 0.1, 0.25, 0.5, 0.5 + 1e-7, 0.9, 1.0]
SAMPLES = st.lists(st.tuples(st.sampled_from(LEVELS), st.booleans()), min_size=1, max_size=40)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs]), np.array([truth for _, truth in pairs])


def count(scores: np.ndarray, truth: np.ndarray, threshold: float) -> Counts:
    cells = {(a, b): 0 for a in (False, True) for b in (False, True)}
    for score, changed in zip(scores.tolist(), truth.tolist(), strict=True):
        cells[score >= threshold, changed] += 1
    return Counts(cells[True, True], cells[False, True], cells[True, False], cells[False, False])


@given(SAMPLES, st.sampled_from([*LEVELS, 0.3, 1.5]))
def test_counts_are_those_of_a_loop(pairs, threshold):
    scores, truth = arrays(pairs)
    assert counts_at(tally(scores, truth), threshold) == count(scores, truth, threshold)


@given(SAMPLES)
def test_curves_have_a_point_for_each_distinct_score(pairs):
    scores, truth = arrays(pairs)
    pixels = tally(scores, truth)
    roc, precision_recall = roc_curve(pixels), pr_curve(pixels)
    for k, threshold in enumerate(sorted(set(scores.tolist()), reverse=True)):
        counts = count(scores, truth, threshold)
        npt.assert_allclose([roc.x[k + 1], roc.y[k + 1]], [counts.false_alarm_rate, counts.recall])
        npt.assert_allclose([precision_recall.x[k], precision_recall.y[k]], [counts.recall, counts.precision])
        assert roc.thresholds[k + 1] == precision_recall.thresholds[k] == threshold
    if truth.any() and not truth.all():
        area = sum(
            (roc.x[k + 1] - roc.x[k]) * (roc.y[k + 1] + roc.y[k]) / 2 for k in range(len(roc.x) - 1)
        )  # trapezoids
        npt.assert_allclose(area, tally_roc_auc(pixels), atol=1e-12)


@given(SAMPLES)
def test_roc_auc_is_the_share_of_pairs_won(pairs):
    scores, truth = arrays(pairs)
    won = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    npt.assert_allclose(roc_auc(scores, truth), np.mean(won) if won else np.nan, atol=1e-12)


@given(SAMPLES)
def test_average_precision_and_best_f1_are_those_of_all_thresholds(pairs):
    scores, truth = arrays(pairs)
    levels = sorted(set(scores.tolist()), reverse=True)
    found = [count(scores, truth, level) for level in levels]
    recalls = [0.0, *(counts.recall for counts in found)]
    expected = sum((recalls[k + 1] - recalls[k]) * counts.precision for k, counts in enumerate(found))
    pixels = tally(scores, truth)
    npt.assert_allclose(average_precision(pixels), expected if truth.any() else np.nan, atol=1e-12)
    threshold, f1 = best_f1(pixels)
    if truth.any():
        assert f1 == pytest.approx(max(counts.f1 for counts in found))
        assert count(scores, truth, threshold).f1 == pytest.approx(f1)
    else:
        assert np.isnan([threshold, f1]).all()


@given(SAMPLES, st.integers(0, 40))
def test_tallies_of_parts_merge_into_that_of_the_whole(pairs, cut):
    scores, truth = arrays(pairs)
    whole = tally(scores, truth)
    parts = merge([tally(scores[:cut], truth[:cut]), tally(scores[cut:], truth[cut:])])
    for name in ("values", "changed", "unchanged"):
        npt.assert_array_equal(getattr(parts, name), getattr(whole, name))
    npt.assert_allclose(parts.sums, whole.sums)
    assert parts.exact


def test_a_coarse_tally_moves_areas_by_less_than_its_bins():
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.1
    scores = np.where(truth, rng.beta(4, 2, truth.size), rng.beta(2, 4, truth.size))
    whole, coarse = tally(scores, truth), tally(scores, truth).coarsened(500)
    assert len(coarse.values) <= 500
    assert not coarse.exact
    assert tally_roc_auc(coarse) == pytest.approx(tally_roc_auc(whole), abs=1e-3)
    assert average_precision(coarse) == pytest.approx(average_precision(whole), abs=5e-3)
    kept = float(coarse.values[250])
    assert counts_at(coarse, kept) == counts_at(whole, kept)
    assert whole.coarsened(30_000) is whole


@given(hnp.arrays(np.int64, 4, elements=st.integers(0, 50)))
def test_kappa_is_agreement_beyond_chance(cells):
    counts = Counts(*cells.tolist())
    n = cells.sum()
    if not n:
        assert np.isnan(counts.kappa)
        return
    a, b, c, d = cells / n
    by_chance = (a + c) * (a + b) + (b + d) * (c + d)
    if by_chance < 1 - 1e-12:
        assert counts.kappa == pytest.approx((a + d - by_chance) / (1 - by_chance), abs=1e-9)
    if counts.f1 == counts.f1:
        assert counts.iou == pytest.approx(counts.f1 / (2 - counts.f1))


def test_calibration_bins_hold_their_edge_and_the_last_one_holds_one():
    found = calibration(tally([0.0, 0.1, 0.95, 1.0, 0.5], [False, True, True, False, True]))
    npt.assert_array_equal(found.pixels, [1, 1, 1, 2])
    npt.assert_allclose(found.mean_score, [0.0, 0.1, 0.5, 0.975])
    npt.assert_allclose(found.changed_share, [0, 1, 1, 0.5])
    assert found.expected_error == pytest.approx((0 + 0.9 + 0.5 + 2 * 0.475) / 5)
    assert found.largest_error == pytest.approx(0.9)
    with pytest.raises(ShapeError, match=r"0\.\.1"):
        calibration(tally([1.2], [True]))


def test_measures_of_nothing_are_nan_and_not_zero():
    counts = Counts(0, 0, 0, 0)
    assert np.isnan([counts.precision, counts.recall, counts.f1, counts.iou, counts.overall, counts.kappa]).all()
    assert np.isnan([tally_roc_auc(merge([])), average_precision(merge([])), *best_f1(merge([]))]).all()


def test_pixels_without_score_are_refused():
    with pytest.raises(ShapeError, match="not scored"):
        tally([0.1, np.nan], [True, False])
    with pytest.raises(ShapeError, match="one of each"):
        tally([0.1], [True, False])


def test_thinned_curves_keep_their_ends():
    rng = np.random.default_rng(1)
    curve = roc_curve(tally(rng.random(5000), rng.random(5000) < 0.3))
    thin = curve.thinned(50)
    assert len(thin.x) <= 52
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
