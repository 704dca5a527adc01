"""Laws of the Landsat modules: parsing is total, correction is monotone, fill is never valid."""

import contextlib

import numpy as np
import numpy.testing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from landsat_scene import BEFORE_2012, as_json, as_text, groups

from urbandelta.errors import MetadataError
from urbandelta.landsat_mtl import parse_mtl
from urbandelta.landsat_qa import collection1_reasons, collection2_reasons
from urbandelta.toa import correct, find_correction
from urbandelta.types import MaskReason

GOOD = (as_text(groups()), as_text(groups(collection=2)), as_json(groups(collection=2)), BEFORE_2012)
MTL = parse_mtl(GOOD[0], where="x")
quality = hnp.arrays(np.uint16, (3, 4))


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed_or_refused(content):
    with contextlib.suppress(MetadataError):
        parse_mtl(content, where="x")


@settings(max_examples=40)
@given(st.sampled_from(GOOD), st.integers(0, 3000), st.integers(0, 40), st.text(max_size=12))
def test_a_file_that_was_cut_or_overwritten_somewhere_is_parsed_or_refused(text, start, length, other):
    damaged = text[:start] + other + text[start + length :]
    try:
        mtl = parse_mtl(damaged, where="x")
    except MetadataError:
        return
    assert -90 <= mtl.sun_elevation <= 90
    assert mtl.bands


@given(hnp.arrays(np.uint8, (4, 5)), st.sampled_from(["1", "6"]), st.floats(1.0, 90.0))
def test_more_light_is_more_of_everything_and_fill_is_nothing(dn, band, elevation):
    values = correct(dn, find_correction(MTL, band), sun_elevation=elevation)
    npt.assert_array_equal(np.isnan(values), dn == 0)
    order = np.argsort(dn[dn > 0], kind="stable")
    assert (np.diff(values[dn > 0][order]) >= 0).all()


@given(quality, quality, st.sampled_from([5, 7, 8]))
def test_fill_and_dropped_frames_are_never_valid(pixel, saturation, spacecraft):
    one = collection1_reasons(pixel, spacecraft=spacecraft)
    two = collection2_reasons(pixel, saturation, spacecraft=spacecraft)
    for mask in (one, two):
        assert (mask[pixel & 1 == 1] & int(MaskReason.NODATA) != 0).all()
    assert (one[pixel & 2 != 0] != 0).all()
    if spacecraft < 8:
        assert (two[saturation & 1 << 9 != 0] & int(MaskReason.DROPPED) != 0).all()
