from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from report_scene import dataset

from urbandelta.accuracy import agreement
from urbandelta.errors import ShapeError
from urbandelta.metrics import roc_auc
from urbandelta.patches import find_patches, label_components
from urbandelta.products import days_of, score_maps

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))


@given(masks)
def test_components_are_those_of_scipy(mask):
    ours = label_components(mask)
    theirs, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
    assert ours.max(initial=0) == count
    pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_a_winding_component_is_one():
    mask = np.zeros((41, 41), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert label_components(mask).max() == 1


@given(hnp.arrays(np.float32, 30, elements=st.sampled_from([0.0, 0.1, 0.5, 0.9])), hnp.arrays(bool, 30))
def test_roc_auc_is_the_chance_that_a_changed_pixel_scores_higher(scores, changed):
    won = scores[changed][:, None] - scores[~changed][None]
    expected = ((won > 0) + 0.5 * (won == 0)).mean() if won.size else np.nan
    npt.assert_allclose(roc_auc(scores, changed), expected, atol=1e-12)


def test_patches_are_ranked_by_summed_score_and_measured():
    values = np.zeros((3, 6, 8))
    values[0, 0:2, 0:2] = 0.6  # four pixels, sum 2.4
    values[1, 4, 5:8] = [0.9, 1.0, 0.9]  # three pixels, sum 2.8
    middles = ["2021-03-01", "2021-09-01", "2022-03-01"]
    maps = score_maps(dataset(values, middles))
    one, two = find_patches(maps, np.full(6, 0.01))
    assert (one.pixels, one.row, one.column, one.peak_score) == (3, 4.0, 6.0, 1.0)
    assert (one.peak_row, one.peak_column) == (4, 6)
    assert one.change_date == np.datetime64(int(np.median(maps.change_date[4, 5:8])), "D")
    assert two.area_ha == pytest.approx(0.04)
    assert find_patches(maps, np.full(6, 0.01), min_pixels=4) == [two]
    assert find_patches(score_maps(dataset(values, middles), threshold=1.0), np.ones(6))[0].pixels == 1


def test_a_scene_without_change_has_no_patch():
    values = np.full((1, 3, 3), np.nan)
    assert find_patches(score_maps(dataset(values, ["2021-03-01"])), np.ones(3)) == []


def test_agreement_counts_what_both_maps_describe():
    values = np.array([[[0.9, 0.9, 0.1, 0.1, np.nan, 0.9]]])
    maps = score_maps(dataset(values, ["2021-07-01"]))
    day = int(days_of(np.datetime64("2021-07-11")))
    early = int(days_of(np.datetime64("2020-01-01")))
    truth = np.array([[day, -1, day, -1, day, early]], np.int32)
    start, end = np.datetime64("2021-04-01"), np.datetime64("2021-10-01")
    found = agreement(maps, truth, start=start, end=end)
    assert (found.pixels, found.changed, found.left_out) == (4, 2, 1)
    assert (found.precision, found.recall, found.f1, found.roc_auc) == (0.5, 0.5, 0.5, 0.5)
    error = maps.change_date[0, 0] - day
    npt.assert_array_equal(found.date_error_days, [error])
    assert (found.median_date_error, found.median_absolute_date_error) == (error, abs(error))


def test_agreement_without_change_has_no_measure_and_says_so():
    maps = score_maps(dataset(np.zeros((1, 2, 2)), ["2021-07-01"]))
    found = agreement(
        maps, np.full((2, 2), -1, np.int32), start=np.datetime64("2021-01-01"), end=np.datetime64("2022-01-01")
    )
    assert np.isnan([found.roc_auc, found.f1, found.precision, found.recall, found.median_date_error]).all()
    with pytest.raises(ShapeError, match="share a grid"):
        agreement(maps, np.zeros((3, 2), np.int32), start=np.datetime64("2021-01-01"), end=np.datetime64("2022-01-01"))
