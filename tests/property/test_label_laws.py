"""Laws of the omnibus test and of labels, on any series."""

import numpy as np
import numpy.testing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandelta.labels import date_label
from urbandelta.omnibus import omnibus_counts, omnibus_flags, omnibus_layers
from urbandelta.types import Window


@st.composite
def series(draw):
    """Speckle with steps and gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    times, polarisations = draw(st.integers(1, 30)), draw(st.sampled_from((1, 2)))
    values = rng.gamma(3, 0.1, (times, 3, 4, polarisations)).astype(np.float32)
    values[draw(st.integers(0, times - 1)) :, :2] *= draw(st.sampled_from((0.05, 1, 20)))
    values[rng.random(values.shape[:3]) < draw(st.sampled_from((0, 0.3)))] = np.nan
    return values


OPTIONS = st.fixed_dictionaries(
    {"enl": st.sampled_from((1, 3, 4.4, 50)), "significance": st.sampled_from((0.2, 0.1, 0.001))}
)


@settings(deadline=None, max_examples=60)
@given(series(), OPTIONS)
def test_the_past_does_not_look_ahead(values, options):
    npt.assert_array_equal(omnibus_flags(values, **options)[:-1], omnibus_flags(values[:-1], **options))


@settings(deadline=None, max_examples=60)
@given(series(), OPTIONS, st.sampled_from((2.0**-20, 2.0**17)))
def test_units_do_not_matter(values, options, unit):
    npt.assert_array_equal(omnibus_flags(values * np.float32(unit), **options), omnibus_flags(values, **options))


@settings(deadline=None, max_examples=60)
@given(series(), OPTIONS)
def test_layers_agree_with_the_flags(values, options):
    flags, layers = omnibus_flags(values, **options), omnibus_layers(values, **options)
    count, observations = omnibus_counts(values, **options)
    npt.assert_array_equal(layers.count, flags.sum(axis=0))
    npt.assert_array_equal(layers.count, count)
    npt.assert_array_equal(layers.observations, np.isfinite(values).all(axis=3).sum(axis=0))
    npt.assert_array_equal(observations, layers.observations)
    changed = count > 0
    npt.assert_array_equal(layers.first[changed], flags.argmax(axis=0)[changed])
    npt.assert_array_equal(layers.last[changed], (len(flags) - 1 - flags[::-1].argmax(axis=0))[changed])
    assert ((layers.direction > 0) == changed).all()
    # A segment needs an observation to begin with and one to flag.
    assert (2 * count <= observations + (observations == 0)).all()


@settings(deadline=None, max_examples=60)
@given(series(), OPTIONS)
def test_pixels_are_independent(values, options):
    flags = omnibus_flags(values, **options)
    npt.assert_array_equal(omnibus_flags(values[:, 1:2, 2:3], **options), flags[:, 1:2, 2:3])


@given(st.integers(-50, 250), st.integers(10, 180), st.floats(0, 0.49), st.integers(0, 60))
def test_a_date_is_inside_outside_or_does_not_count(day, length, margin, hold):
    start = np.datetime64("1970-01-01", "ns")
    window = Window(start, start + np.timedelta64(length, "D"), 9, 0, 8)
    label = date_label(np.array([[day]]), window, margin=margin, hold=hold)[0, 0]
    if day < 0 or day > length:
        assert label == 0
    elif margin * length + 1e-6 < day < (1 - margin) * length - 1e-6:
        assert label == 1
    elif day < margin * length - 1e-6 or day > (1 - margin) * length + 1e-6:
        assert np.isnan(label)
