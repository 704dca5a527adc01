from __future__ import annotations

import numpy as np
import pytest

from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.sources.harmonise import ShiftedLayer, check_offset, counts_to_move
from urbandelta.types import Acquisition

GRID = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 12, 12)
BANDS = ("B02", "B03", "B04", "B08")


class Pixels:
    grid, origin, nodata, scale, offset = GRID, "here", None, 1e-4, 0.0

    def __init__(self, raw):
        self.raw = raw

    def read(self, rows, columns):
        return self.raw[rows, columns], None


def test_moves_whole_counts_and_leaves_missing_values():
    raw = np.array([[0, 1, 500], [64_900, 65_000, 7]], np.uint16)
    values, masked = ShiftedLayer(Pixels(raw), 1000, (0.0,)).read(slice(0, 2), slice(0, 3))
    np.testing.assert_array_equal(values, [[0, 1001, 1500], [65_535, 65_535, 1007]])
    assert values.dtype == np.uint16
    assert masked is None


def test_down_to_the_least_count_that_is_no_missing_value():
    raw = np.array([[0, 900, 1000, 1001]], np.uint16)
    values, _ = ShiftedLayer(Pixels(raw), -1000, (0.0,)).read(slice(0, 1), slice(0, 4))
    np.testing.assert_array_equal(values, [[0, 1, 1, 1]])


def test_counts_between_encodings():
    assert counts_to_move(1e-4, 0.0, target_scale=1e-4, target_offset=-0.1, origin="x") == 1000
    with pytest.raises(SourceError, match="fraction"):
        counts_to_move(1e-4, 0.00003, target_scale=1e-4, target_offset=-0.1, origin="x")
    with pytest.raises(SourceError, match="scale"):
        counts_to_move(1 / 255, 0.0, target_scale=1e-4, target_offset=0.0, origin="x")


def acquisition(reflectance, *, bands=BANDS, mask=0) -> Acquisition:
    rng = np.random.default_rng(3)
    spread = reflectance + 0.002 * rng.standard_normal((12, 12, len(bands)))
    return Acquisition(
        time=np.datetime64("2024-01-01", "ns"),
        values=np.rint((spread + 0.1) * 1e4).astype(np.uint16),
        mask=np.full((12, 12), mask, np.uint8),
        bands=bands,
        scale=1e-4,
        offset=-0.1,
    )


VEGETATION = np.array([0.03, 0.06, 0.05, 0.35])


def test_right_reflectance_is_consistent_either_way():
    for present in (True, False):
        assert check_offset(acquisition(VEGETATION), offset_present=present).verdict == "consistent"


def test_subtracted_twice_contradicts():
    finding = check_offset(acquisition(VEGETATION - 0.1), offset_present=True)
    assert finding.verdict == "contradiction"
    assert "below 0" in finding.reason


def test_left_in_is_suspicious_and_with_cirrus_contradicts():
    assert check_offset(acquisition(VEGETATION + 0.1), offset_present=False).verdict == "suspicious"
    cirrus = acquisition(np.append(VEGETATION, 0.002) + 0.1, bands=(*BANDS, "B10"))
    assert check_offset(cirrus, offset_present=False).verdict == "contradiction"
    clouds = acquisition(np.full(5, 0.4), bands=(*BANDS, "B10"))
    assert check_offset(clouds, offset_present=False).verdict == "suspicious"


def test_bright_ground_is_no_contradiction():
    assert check_offset(acquisition(VEGETATION + 0.3), offset_present=True).verdict == "consistent"


def test_clouds_decide_nothing():
    assert check_offset(acquisition(VEGETATION - 0.1, mask=2), offset_present=True).verdict == "undecided"
