"""The omnibus test on simulated speckle: its rate of false alarms, what it finds, what it leaves out."""

import numpy as np
import numpy.testing as npt
import pytest
from scipy import stats

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.omnibus import (
    Direction,
    change_probability,
    chi_square,
    omnibus_changes,
    omnibus_counts,
    omnibus_flags,
    omnibus_frequency,
    omnibus_layers,
)

OPTIONS = {"enl": 4, "significance": 0.001}


def speckle(looks, shape, seed=0):
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape).astype(np.float32)


def check_rate(looks, significance, polarisations, times, pixels):
    series = speckle(looks, (times, pixels, 1, polarisations), seed=int(looks))
    flags = omnibus_flags(series, enl=looks, significance=significance)
    # A segment's first observation is compared with nothing: the series' first, and the one after each change.
    tests = pixels * (times - 1) - int(flags[:-1].sum())
    rate, noise = flags.sum() / tests, 4 * np.sqrt(significance / tests)
    assert rate == pytest.approx(significance, abs=0.2 * significance)
    assert rate == pytest.approx(significance, abs=0.025 * significance + noise)
    # Per observation, as an outsider would count, it stays within a fifth as well.
    assert flags.sum() / (pixels * (times - 1)) == pytest.approx(significance, abs=0.2 * significance)


@pytest.mark.parametrize("polarisations", [1, 2])
@pytest.mark.parametrize(("looks", "significance"), [(3, 0.1), (4, 0.01), (4, 0.001), (8, 0.01)])
def test_false_alarms_equal_the_significance(looks, significance, polarisations):
    check_rate(looks, significance, polarisations, times=40, pixels=40_000)


@pytest.mark.slow
@pytest.mark.parametrize("polarisations", [1, 2])
@pytest.mark.parametrize("significance", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("looks", [3, 4, 4.4, 8])
@pytest.mark.parametrize("times", [2, 3, 10, 60])
def test_false_alarms_of_every_kind(looks, significance, polarisations, times):
    check_rate(looks, significance, polarisations, times=times, pixels=20_000_000 // times)


def test_published_faults_are_kept_on_request():
    series = speckle(4, (60, 100, 100, 2))
    flags = omnibus_flags(series, **OPTIONS, mode="reference")
    assert flags[1].all()
    assert flags[2:].mean() > 10 * OPTIONS["significance"]
    assert not omnibus_flags(series, **OPTIONS)[1].all()


@pytest.mark.parametrize("polarisations", [1, 2])
@pytest.mark.parametrize("factor", [20, 0.05])
def test_a_step_is_found_once_where_it_is(polarisations, factor):
    series = np.ones((30, 3, 4, polarisations), np.float32)
    series[12:, 1, 2] *= factor
    layers = omnibus_layers(series, **OPTIONS)
    expected = np.zeros((3, 4), int)
    expected[1, 2] = 1
    npt.assert_array_equal(layers.count, expected)
    assert layers.first[1, 2] == layers.last[1, 2] == 12
    assert layers.direction[1, 2] == (Direction.RISE if factor > 1 else Direction.FALL)
    assert layers.frequency[1, 2] == pytest.approx(1 / 30)
    assert layers.observations[1, 2] == 30
    others = expected == 0
    assert (layers.first[others] == -1).all()
    assert (layers.last[others] == -1).all()
    assert (layers.direction[others] == Direction.NONE).all()


def test_directions_of_several_changes():
    series = np.ones((40, 1, 2, 2), np.float32)
    series[10:20, 0, 0] = 30
    series[30:, 0, 0] = 1  # 20 on already
    series[15:, 0, 1] = (20, 0.05)
    series[20:, 0, 0] = 1
    layers = omnibus_layers(series, **OPTIONS)
    assert layers.count.tolist() == [[2, 1]]
    assert layers.first.tolist() == [[10, 15]]
    assert layers.last.tolist() == [[20, 15]]
    assert layers.direction.tolist() == [[Direction.FALL, Direction.MIXED]]


@pytest.mark.parametrize("missing", [np.nan, 0, -1, np.inf])
def test_missing_observations_are_skipped(missing):
    series = speckle(4, (25, 20, 20, 2), seed=3)
    series[15:, :5] *= 9
    gaps = np.random.default_rng(5).random(series.shape[:3]) < 0.3
    holed = series.copy()
    holed[gaps, np.random.default_rng(6).integers(0, 2)] = missing
    flags, count = omnibus_flags(holed, **OPTIONS), omnibus_counts(holed, **OPTIONS)
    assert not flags[gaps].any()
    npt.assert_array_equal(flags, omnibus_flags(series, **OPTIONS, valid=~gaps))
    npt.assert_array_equal(count[1], (~gaps).sum(axis=0))
    # One pixel with its gaps cut out says the same.
    for y, x in ((0, 0), (3, 7), (19, 19)):
        kept = series[~gaps[:, y, x], y, x][:, None, None]
        npt.assert_array_equal(omnibus_flags(kept, **OPTIONS)[:, 0, 0], flags[~gaps[:, y, x], y, x])


def test_nothing_observed_is_nothing_changed():
    series = np.zeros((5, 2, 2, 2), np.float32)
    assert omnibus_frequency(series, **OPTIONS).max() == 0
    assert omnibus_changes(series[:0], **OPTIONS).tolist() == [[0, 0], [0, 0]]
    layers = omnibus_layers(series, **OPTIONS)
    assert layers.observations.max() == 0
    assert (layers.frequency == 0).all()


@pytest.mark.parametrize("polarisations", [1, 2])
def test_the_interval_that_spares_logarithms_changes_nothing(polarisations):
    """Against the test written down frame by frame, with scipy's distribution."""
    looks, significance = 3, 0.1
    series = speckle(looks, (20, 200, 1, polarisations), seed=8)
    flags = omnibus_flags(series, enl=looks, significance=significance)[:, :, 0]
    for pixel, values in enumerate(series[:, :, 0].astype(float).transpose(1, 0, 2)):
        total, n = values[0], 1
        for t in range(1, len(values)):
            if n == 0:
                total, n = values[t], 1
                assert not flags[t, pixel]
                continue
            old, total, n = total, total + values[t], n + 1
            ratio = np.sum(
                n * np.log(n) - (n - 1) * np.log(n - 1) + (n - 1) * np.log(old / total) + np.log(values[t] / total)
            )
            rho = 1 - (1 + 1 / (n * (n - 1))) / (6 * looks)
            w = -(polarisations / 4) * (1 - 1 / rho) ** 2
            z = -2 * rho * looks * ratio
            below = (1 - w) * stats.chi2.cdf(z, polarisations) + w * stats.chi2.cdf(z, polarisations + 4)
            assert flags[t, pixel] == (1 - below <= significance)
            n = 0 if flags[t, pixel] else n


@pytest.mark.parametrize("degrees", [1, 2, 4, 5, 6])
def test_closed_forms(degrees):
    z = np.array([0, 1e-6, 0.01, 0.5, 1, 3, 10, 40, 200])
    npt.assert_allclose([chi_square(v, degrees) for v in z], stats.chi2.cdf(z, degrees), atol=1e-14, rtol=1e-9)
    assert chi_square(-1.0, degrees) == 0


def test_other_degrees_are_refused():
    with pytest.raises(ConfigError, match="3 degrees"):
        chi_square(1.0, 3)


def test_probability_of_one_polarisation_is_that_of_the_beta_distribution():
    """R_n of one polarisation is a function of a beta variate: the approximation against the exact size."""
    for looks in (3, 4, 8):
        for n in (2, 3, 20):
            share = stats.beta(looks, (n - 1) * looks)
            grid = np.linspace(1e-6, 1 - 1e-6, 400_001)
            rho = 1 - (1 + 1 / (n * (n - 1))) / (6 * looks)
            constant = n * np.log(n) - (n - 1) * np.log(n - 1)
            z = -2 * rho * looks * (constant + (n - 1) * np.log1p(-grid) + np.log(grid))
            for limit in (2.7, 6.6, 10.8):
                inside = grid[z < limit]
                exact = share.cdf(inside[0]) + share.sf(inside[-1])
                assert change_probability(limit, n=n, enl=looks, polarisations=1) == pytest.approx(exact, rel=0.02)


def test_float64_and_units_make_no_difference():
    series = speckle(3, (30, 40, 40, 1), seed=2)
    series[20:] *= 3
    flags = omnibus_flags(series, enl=3, significance=0.1)
    npt.assert_array_equal(flags, omnibus_flags(series.astype(np.float64), enl=3, significance=0.1))
    npt.assert_array_equal(flags, omnibus_flags(series * np.float32(2**17), enl=3, significance=0.1))
    npt.assert_array_equal(flags, omnibus_flags(np.asfortranarray(series), enl=3, significance=0.1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"series": np.ones((4, 2, 2))}, ShapeError, "polarisation"),
        ({"series": np.ones((4, 2, 2, 3))}, ShapeError, "1 or 2"),
        ({"valid": np.ones((4, 2, 3), bool)}, ShapeError, "valid"),
        ({"enl": 0.5}, ConfigError, "looks"),
        ({"enl": np.nan}, ConfigError, "looks"),
        ({"significance": 1.0}, ConfigError, "significance"),
        ({"mode": "other"}, ConfigError, "unknown mode"),
        ({"mode": "reference", "valid": np.ones((4, 2, 2), bool)}, ConfigError, "validity"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"series": np.ones((4, 2, 2, 2)), **OPTIONS, **change}
    with pytest.raises(error, match=message):
        omnibus_changes(arguments.pop("series"), **arguments)
