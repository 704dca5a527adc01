import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.errors import ConfigError, SourceError
from urbandelta.sources.calibrate import Encoding, MaskRule, decode, parse_numbers
from urbandelta.types import MaskReason


def test_integers_stay_integers_with_their_declared_scale():
    raw = np.array([[0, 1], [5000, 65535]], np.uint16)
    band = decode(raw, encoding=Encoding(nodata=(65535,)), scale=1e-4)
    assert band.values.dtype == np.uint16
    npt.assert_array_equal(band.values, raw)
    npt.assert_array_equal(band.invalid, [[False, False], [False, True]])
    assert (band.scale, band.offset) == (1e-4, 0.0)


def test_the_users_scale_overrides_the_declared_one():
    band = decode(np.ones((1, 1), np.int16), encoding=Encoding(scale=2.0, offset=-1.0), scale=1e-4, offset=7.0)
    assert (band.scale, band.offset) == (2.0, -1.0)


def test_float32_keeps_its_bits_and_nonfinite_is_invalid():
    raw = np.array([[np.nan, -0.0], [np.inf, 1e-40]], np.float32)
    band = decode(raw, encoding=Encoding())
    assert band.values.tobytes() == raw.tobytes()
    npt.assert_array_equal(band.invalid, [[True, False], [True, False]])


def test_decibels_become_linear_power():
    raw = np.array([[-100_000, 0], [100_000, 31]], np.int32)  # 1e-4 dB
    band = decode(raw, encoding=Encoding(conversion="db", zero="nodata"), scale=1e-4)
    npt.assert_allclose(band.values, [[0.1, np.nan], [10.0, 10 ** (31e-5)]], rtol=1e-6)
    assert band.values.dtype == np.float32
    assert (band.scale, band.offset) == (1.0, 0.0)
    npt.assert_array_equal(band.invalid, [[False, True], [False, False]])


def test_amplitudes_are_squared():
    band = decode(np.array([[3]], np.uint16), encoding=Encoding(conversion="amplitude", scale=0.5))
    npt.assert_allclose(band.values, [[2.25]])


def test_a_power_beyond_float32_is_invalid():
    band = decode(np.array([[400.0]]), encoding=Encoding(conversion="db"))
    assert band.invalid.all()


def test_view_as_reads_the_bits_as_another_type():
    band = decode(np.array([[-1]], np.int16), encoding=Encoding(view_as="uint16"))
    npt.assert_array_equal(band.values, [[65535]])
    with pytest.raises(SourceError, match="sizes must agree"):
        decode(np.array([[-1]], np.int32), encoding=Encoding(view_as="uint16"))
    with pytest.raises(ConfigError, match="not a number type"):
        decode(np.array([[-1]], np.int32), encoding=Encoding(view_as="spam"))


def test_bands_that_are_no_numbers_are_refused():
    with pytest.raises(SourceError, match="complex64"):
        decode(np.zeros((1, 1), np.complex64), encoding=Encoding())


def test_physical_applies_scale_and_offset():
    band = decode(np.array([[10, 20]], np.uint8), encoding=Encoding(scale=0.5, offset=1.0)).physical()
    npt.assert_array_equal(band.values, np.array([[6.0, 11.0]], np.float32))
    assert (band.scale, band.offset) == (1.0, 0.0)


def test_mask_rules_turn_classes_into_reasons():
    rule = MaskRule.parse("SCL", "3=cloud_shadow, 8=cloud")
    npt.assert_array_equal(rule.apply(np.array([[3, 8, 4]])), [[MaskReason.CLOUD_SHADOW, MaskReason.CLOUD, 0]])
    scl = MaskRule.parse("SCL", "scl").apply(np.arange(12, dtype=np.uint8))
    npt.assert_array_equal(scl, [1, 16, 0, 4, 0, 0, 0, 0, 2, 2, 2, 8])


def test_valid_and_cloud_bands():
    npt.assert_array_equal(MaskRule.valid("m").apply(np.array([True, False])), [0, 1])
    npt.assert_array_equal(MaskRule.cloud("c").apply(np.array([0, 1, 255], np.uint8)), [0, 2, 1])
    npt.assert_array_equal(MaskRule.valid("m").apply(np.array([1.0, np.nan])), [0, 1])


@pytest.mark.parametrize("text", ["", "3", "3=fog", "x=cloud", "3=cloud,"])
def test_malformed_mask_values_are_refused(text):
    with pytest.raises(ConfigError, match="NUMBER=REASON"):
        MaskRule.parse("SCL", text)


def test_parse_numbers():
    assert parse_numbers("0, -9999.5", option="--nodata") == (0.0, -9999.5)
    assert parse_numbers("", option="--nodata") == ()
    with pytest.raises(ConfigError, match="--nodata"):
        parse_numbers("none", option="--nodata")
