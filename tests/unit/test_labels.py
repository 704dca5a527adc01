"""Labels of one window: from radar and index, and from dates."""

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, ShapeError
from urbandelta.indices import endisi
from urbandelta.labels import date_label, fresh_steps, synthetic_label, window_mean
from urbandelta.omnibus import omnibus_frequency
from urbandelta.types import Window

SHAPE = (8, 9)
OPTIONS = {"betas": (0.15, 0.2), "shift": 0.25}


def inputs(era="s12", steps=40, seed=0):
    row = ERAS[era]
    rng = np.random.default_rng(seed)
    sar = [rng.gamma(4, 0.02, (steps, *SHAPE, row.label.polarisations)).astype(np.float32) for _ in range(2)]
    for series in sar:
        series[25:, :4] *= 15
    optical = [rng.uniform(0.03, 0.4, (steps, *SHAPE, row.optical_bands)).astype(np.float32) for _ in range(2)]
    optical[1][..., 0] *= 2
    return [*sar, *optical]


@pytest.mark.parametrize("era", list(ERAS))
def test_the_label_is_gain_times_shift_times_changes(era):
    asc, dsc, before, after = inputs(era)
    rule = ERAS[era].label
    changes = [omnibus_frequency(s, enl=rule.looks, significance=rule.significance) for s in (asc, dsc)]
    index = [
        endisi(o.mean(axis=0), beta, era=era, shift=0.25, mode="corrected")
        for o, beta in zip((before, after), OPTIONS["betas"], strict=True)
    ]
    expected = np.clip(rule.gain * abs(index[1] - index[0]) * sum(changes) / 2, 0, 1)
    assert expected[:4].min() > 0
    npt.assert_allclose(synthetic_label(asc, dsc, before, after, era=era, **OPTIONS), expected, atol=1e-6)
    row = ERAS[era]
    npt.assert_allclose(synthetic_label(asc, dsc, before, after, era=row, **OPTIONS), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["corrected", "reference"])
def test_means_stand_for_their_windows(mode):
    asc, dsc, before, after = inputs()
    whole = synthetic_label(asc, dsc, before, after, era="s12", **OPTIONS, mode=mode)
    means = synthetic_label(asc, dsc, before.mean(axis=0), after.mean(axis=0), era="s12", **OPTIONS, mode=mode)
    npt.assert_allclose(means, whole, atol=1e-6)
    assert whole.dtype == np.float32


def test_carried_images_are_no_observations():
    asc, dsc, before, after = inputs()
    label = synthetic_label(asc, dsc, before, after, era="s12", **OPTIONS)
    carried = [np.repeat(series, [1, 3] * 20, axis=0) for series in (asc, dsc)]
    npt.assert_array_equal(synthetic_label(*carried, before, after, era="s12", **OPTIONS), label)
    assert not np.array_equal(
        synthetic_label(*carried, before, after, era="s12", **OPTIONS, mode="reference"),
        synthetic_label(asc, dsc, before, after, era="s12", **OPTIONS, mode="reference"),
    )
    npt.assert_array_equal(fresh_steps(np.array([1, 1, 2, 2, 1.0]).reshape(5, 1, 1, 1)).ravel(), [1, 0, 1, 0, 1])


def test_unseen_ground_has_no_label():
    asc, dsc, before, after = inputs()
    whole = synthetic_label(asc, dsc, before, after, era="s12", **OPTIONS)
    before[:, 0] = np.nan
    after[:, 1] = 0
    asc[:, 2] = np.nan
    dsc[:, 2] = 0
    asc[:, 5] = 0  # one orbit is enough
    before[3, 6] = np.nan  # one step is no harm
    label = synthetic_label(asc, dsc, before, after, era="s12", **OPTIONS)
    assert np.isnan(label[:3]).all()
    assert np.isfinite(label[3:]).all()
    npt.assert_array_equal(label[4], whole[4])
    assert np.isfinite(synthetic_label(asc, dsc, before, after, era="s12", **OPTIONS, mode="reference")).all()


def test_an_orbit_without_steps():
    asc, dsc, before, after = inputs()
    label = synthetic_label(asc, dsc[:0], before, after, era="s12", **OPTIONS)
    assert label[:4].min() > 0


def test_means_over_what_was_seen():
    stack = np.ones((4, 1, 3, 13), np.float32)
    stack[1] = 3
    stack[2, 0, 0] = np.nan
    stack[3, 0, 1] = 0
    stack[:, 0, 2] = 0
    bands = (1, 2, 11, 12)
    npt.assert_allclose(window_mean(stack, bands, mode="corrected")[0], [[5 / 3, 5 / 3, np.nan]])
    npt.assert_allclose(window_mean(stack, bands, mode="reference")[0], [[np.nan, 5 / 4, 0]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: np.ones((5, *SHAPE, 1), np.float32)}, ShapeError, "polarisation"),
        ({0: np.ones((5, 3, 3, 2), np.float32)}, ShapeError, "SAR"),
        ({2: np.ones((5, *SHAPE, 7), np.float32)}, ShapeError, "13 bands"),
        ({3: np.ones((3, 3, 13), np.float32)}, ShapeError, "image before"),
        ({"mode": "other"}, ConfigError, "unknown mode"),
        ({"shift": 3.0}, ConfigError, "shift"),
        ({"looks": 0.1}, ConfigError, "looks"),
    ],
)
def test_wrong_arguments(change, error, message):
    arrays = inputs()
    for position in [key for key in change if isinstance(key, int)]:
        arrays[position] = change.pop(position)
    with pytest.raises(error, match=message):
        synthetic_label(*arrays, era="s12", **{**OPTIONS, **change})


def window(first, last):
    moments = [np.datetime64("2020-01-01", "ns") + np.timedelta64(day, "D") for day in (first, last)]
    return Window(*moments, 10, 0, 9)


EPOCH = int(np.datetime64("2020-01-01").astype(int))


def test_dates_inside_with_a_margin():
    days = np.array([-1, *(EPOCH + np.array([-26, -25, -1, 0, 14, 15, 50, 85, 86, 100, 101]))])
    nan = np.nan
    npt.assert_array_equal(date_label(days[None], window(0, 100))[0], [0, 0, nan, nan, nan, nan, 1, 1, 1, nan, nan, 0])
    npt.assert_array_equal(
        date_label(days[None], window(0, 100), margin=0, hold=0)[0], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    )


def test_wrong_margins():
    with pytest.raises(ConfigError, match="margin"):
        date_label(np.zeros((1, 1), int), window(0, 9), margin=0.5)
    with pytest.raises(ConfigError, match="hold"):
        date_label(np.zeros((1, 1), int), window(0, 9), hold=-1)
