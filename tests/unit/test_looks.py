"""Looks estimated from series whose looks are known."""

import numpy as np
import pytest

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.omnibus import estimate_looks

SHAPE = (20, 60, 60)


def scene(looks, polarisations=2, seed=0):
    """Textured ground under speckle, brightening and darkening as a whole."""
    rng = np.random.default_rng(seed)
    texture = rng.gamma(2, 0.5, (1, *SHAPE[1:], 1))
    weather = rng.uniform(0.7, 1.4, (SHAPE[0], 1, 1, 1))
    return rng.gamma(looks, 1 / looks, (*SHAPE, polarisations)) * texture * weather


def smooth(field):
    return sum(np.roll(field, shift, axis) for axis in (1, 2) for shift in (-1, 0, 1))


def correlated(looks, seed=0):
    """Speckle whose neighbouring pixels are correlated, as after oversampling."""
    rng = np.random.default_rng(seed)
    field = [smooth(rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)) for _ in range(looks)]
    return sum(np.abs(each) ** 2 for each in field)[..., None]


@pytest.mark.parametrize("polarisations", [1, 2])
@pytest.mark.parametrize("looks", [3, 4, 8])
def test_looks_of_speckle(looks, polarisations):
    assert estimate_looks(scene(looks, polarisations)) == pytest.approx(looks, rel=0.03)


@pytest.mark.parametrize("looks", [3, 4, 8])
def test_looks_of_correlated_speckle(looks):
    assert estimate_looks(correlated(looks)) == pytest.approx(looks, rel=0.05)


@pytest.mark.parametrize("looks", [3, 4, 8])
def test_a_quarter_of_changed_pixels_moves_it_little(looks):
    series = scene(looks)
    series[10:, :15] *= 5
    assert estimate_looks(series) == pytest.approx(looks, rel=0.06)


def test_missing_and_repeated_observations_do_not_count():
    series = np.repeat(scene(4), 2, axis=0)  # carried forward
    gaps = np.random.default_rng(1).random(series.shape[:3]) < 0.3
    series[gaps] = np.random.default_rng(2).choice([np.nan, 0.0, -1.0], gaps.sum())[:, None]
    hidden = np.random.default_rng(3).random(series.shape[:3]) < 0.2
    series[hidden] = 1000.0
    assert estimate_looks(series, ~hidden) == pytest.approx(4, rel=0.05)


def test_too_little_is_refused():
    with pytest.raises(ConfigError, match="too few"):
        estimate_looks(np.ones((10, 20, 20, 1)))
    with pytest.raises(ConfigError, match="too few"):
        estimate_looks(scene(4)[:1])
    with pytest.raises(ShapeError):
        estimate_looks(np.ones((3, 4, 5)))
    with pytest.raises(ShapeError):
        estimate_looks(scene(4), np.ones((2, 2, 2), bool))
