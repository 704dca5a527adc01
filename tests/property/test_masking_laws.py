"""Laws of the masks of radar borders."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from urbandelta.masking import BorderOptions, border_noise

SHAPES = st.tuples(st.integers(3, 14), st.integers(3, 14))


@st.composite
def scenes(draw):
    shape = draw(SHAPES)
    valid = draw(arrays.arrays(np.bool_, shape))
    zeros = draw(arrays.arrays(np.bool_, shape))
    seed = draw(st.integers(0, 99))
    power = np.random.default_rng(seed).gamma(1.0, 0.1, (*shape, 2)).astype(np.float32) + np.float32(1e-6)
    power[zeros] = 0
    return power, valid, zeros


OPTIONS = st.builds(BorderOptions, erode_px=st.integers(0, 3), fringe_px=st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(scenes(), OPTIONS)
def test_only_valid_pixels_are_hidden_and_all_zeros_are(scene, options):
    power, valid, zeros = scene
    hidden = border_noise(power, valid, options)
    assert not (hidden & ~valid).any()
    assert hidden[valid & zeros].all()


@settings(max_examples=60, deadline=None)
@given(scenes(), OPTIONS)
def test_a_wider_margin_hides_no_less(scene, options):
    power, valid, _ = scene
    wider = BorderOptions(erode_px=options.erode_px + 1, fringe_px=options.fringe_px)
    assert not (border_noise(power, valid, options) & ~border_noise(power, valid, wider)).any()


@settings(max_examples=60, deadline=None)
@given(scenes(), OPTIONS)
def test_turning_the_scene_turns_the_mask(scene, options):
    power, valid, _ = scene
    turned = border_noise(np.rot90(power), np.rot90(valid), options)
    npt.assert_array_equal(turned, np.rot90(border_noise(power, valid, options)))


@settings(max_examples=40, deadline=None)
@given(scenes(), OPTIONS, st.floats(0.01, 100))
def test_the_unit_of_power_does_not_matter(scene, options, gain):
    power, valid, _ = scene
    gain = np.float32(2.0 ** np.round(np.log2(gain)))
    npt.assert_array_equal(border_noise(power * gain, valid, options), border_noise(power, valid, options))
