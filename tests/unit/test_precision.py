from __future__ import annotations

import numpy as np
import pytest

from urbandelta.errors import ConfigError
from urbandelta.precision import round_mantissa, rounded
from urbandelta.types import Acquisition


def test_the_relative_error_is_bounded_and_low_bits_are_zero() -> None:
    values = np.random.default_rng(0).gamma(4, 0.03, (40, 30, 2)).astype(np.float32)
    for keep_bits in (1, 7, 12, 23):
        kept = round_mantissa(values, keep_bits=keep_bits)
        assert np.abs(kept / values - 1).max() <= 2.0 ** -(keep_bits + 1)
        assert (kept.view(np.uint32) & ((1 << (23 - keep_bits)) - 1) == 0).all()
    np.testing.assert_array_equal(round_mantissa(values, keep_bits=23), values)


def test_what_is_no_number_stays_as_it_is() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e38], np.float32)
    kept = round_mantissa(values, keep_bits=3)
    np.testing.assert_array_equal(kept[:5], values[:5])


def test_only_floats_are_rounded_and_it_is_written_down() -> None:
    def acquisition(values: np.ndarray) -> Acquisition:
        mask = np.zeros(values.shape[:2], np.uint8)
        return Acquisition(time=np.datetime64("2020-01-01"), values=values, mask=mask, bands=("VV",))

    floats, whole = acquisition(np.full((2, 2, 1), 0.1, np.float32)), acquisition(np.full((2, 2, 1), 3, np.uint16))
    first, second = rounded([floats, whole], keep_bits=4)
    assert first.provenance["keep_bits"] == 4
    assert first.values[0, 0, 0] != np.float32(0.1)
    assert second is whole
    assert next(rounded([floats], keep_bits=None)) is floats


def test_impossible_precisions_are_refused() -> None:
    for keep_bits in (0, 24, -3):
        with pytest.raises(ConfigError, match="1 to 23"):
            round_mantissa(np.ones(3, np.float32), keep_bits=keep_bits)
