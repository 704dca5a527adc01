"""The worked example of Olofsson et al. 2014 (table 8): accuracies and the area of deforestation as published."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.area_accuracy import area_accuracy
from urbandelta.errors import ShapeError

MATRIX = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
PIXELS = [200_000, 150_000, 3_200_000, 6_450_000]


def test_the_worked_example():
    found = area_accuracy(MATRIX, PIXELS)
    npt.assert_allclose(found.areas[0].value, 235_086, atol=1)
    npt.assert_allclose(found.areas[0].margin, 68_418, atol=1)
    npt.assert_allclose([found.overall.value, found.overall.margin], [0.947, 0.018], atol=5e-4)
    npt.assert_allclose([e.value for e in found.users], [0.88, 0.73, 0.93, 0.96], atol=0.005)
    npt.assert_allclose([e.margin for e in found.users], [0.07, 0.10, 0.04, 0.02], atol=0.005)
    npt.assert_allclose([e.value for e in found.producers], [0.75, 0.85, 0.93, 0.96], atol=0.005)
    npt.assert_allclose(found.producers[0].margin, 0.21, atol=0.005)
    assert found.proportions.sum() == pytest.approx(1)
    assert sum(e.value for e in found.areas) == pytest.approx(sum(PIXELS))


def test_a_truth_that_covers_everything_has_no_sampling_error():
    matrix = np.array([[30, 10], [5, 955]])
    found = area_accuracy(matrix, [0.4, 9.6], population=[40, 960])
    assert [e.standard_error for e in (found.overall, *found.users, *found.producers, *found.areas)] == [0] * 7
    assert found.areas[0].value == pytest.approx(0.35)
    assert found.producers[0].value == pytest.approx(30 / 35)


def test_a_class_that_is_mapped_must_be_sampled():
    with pytest.raises(ShapeError, match="no sample unit"):
        area_accuracy([[0, 0], [1, 9]], [1.0, 9.0])
    with pytest.raises(ShapeError, match=r"need \(k, k\)"):
        area_accuracy([[1, 0]], [1.0, 9.0])
    with pytest.raises(ShapeError, match="holds them all"):
        area_accuracy([[5, 0], [0, 5]], [1.0, 9.0], population=[4, 9])


def test_one_unit_has_no_standard_error():
    found = area_accuracy([[1, 0], [1, 9]], [1.0, 9.0])
    assert np.isnan(found.users[0].standard_error)
