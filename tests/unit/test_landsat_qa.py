import numpy as np
import pytest

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.landsat_qa import before_collections_reasons, collection1_reasons, collection2_reasons
from urbandelta.types import MaskReason as R


def bits(*numbers):
    return np.array([[sum(1 << number for number in numbers)]], np.uint16)


CLEAR1, CLEAR2 = 0b10_1010_0000, 0b1_0101_0100_0000  # all confidences low, as USGS writes clear land


@pytest.mark.parametrize(
    ("value", "spacecraft", "reason"),
    [
        (CLEAR1, 5, R.VALID),
        (1, 5, R.NODATA),
        (1 << 1, 5, R.DROPPED),
        (1 << 1, 8, R.OTHER),
        (1 << 2, 5, R.SATURATED),
        (1 << 3, 5, R.SATURATED),
        (1 << 4, 5, R.CLOUD),
        (0b01 << 5, 5, R.VALID),
        (0b10 << 5, 5, R.CLOUD),
        (0b11 << 5, 5, R.CLOUD),
        (0b01 << 7, 5, R.VALID),
        (0b11 << 7, 5, R.CLOUD_SHADOW),
        (0b01 << 9, 5, R.VALID),
        (0b11 << 9, 5, R.SNOW),
        (0b11 << 11, 8, R.CLOUD),
        (0b11 << 11, 5, R.VALID),
    ],
)
def test_collection_1(value, spacecraft, reason):
    assert collection1_reasons(np.array([[value]], np.uint16), spacecraft=spacecraft)[0, 0] == reason


@pytest.mark.parametrize(
    ("value", "spacecraft", "reason"),
    [
        (CLEAR2, 5, R.VALID),
        (1, 5, R.NODATA),
        (1 << 1, 5, R.CLOUD),
        (1 << 2, 8, R.CLOUD),
        (1 << 3, 5, R.CLOUD),
        (1 << 4, 5, R.CLOUD_SHADOW),
        (1 << 5, 5, R.SNOW),
        (1 << 6, 5, R.VALID),  # clear
        (1 << 7, 5, R.VALID),  # water
        (0b01 << 8, 5, R.VALID),
        (0b10 << 8, 5, R.CLOUD),
        (0b11 << 10, 5, R.CLOUD_SHADOW),
        (0b11 << 12, 5, R.SNOW),
        (0b11 << 14, 8, R.CLOUD),
        (0b11 << 14, 5, R.VALID),
    ],
)
def test_collection_2_pixels(value, spacecraft, reason):
    assert collection2_reasons(np.array([[value]], np.uint16), spacecraft=spacecraft)[0, 0] == reason


@pytest.mark.parametrize(
    ("bit", "spacecraft", "reason"),
    [
        (0, 5, R.SATURATED),
        (6, 5, R.SATURATED),
        (8, 7, R.SATURATED),
        (9, 5, R.DROPPED),
        (9, 8, R.VALID),
        (11, 8, R.OTHER),
    ],
)
def test_collection_2_saturation_and_dropped(bit, spacecraft, reason):
    clear = np.array([[CLEAR2]], np.uint16)
    assert collection2_reasons(clear, bits(bit), spacecraft=spacecraft)[0, 0] == reason


def test_the_margin_around_clouds_can_be_kept():
    assert collection2_reasons(bits(1), spacecraft=5, dilated_cloud=False)[0, 0] == R.VALID


def test_landsat_8_before_collections():
    assert before_collections_reasons(bits(14, 15))[0, 0] == R.CLOUD
    assert before_collections_reasons(bits(14))[0, 0] == R.VALID
    assert before_collections_reasons(bits(0, 1))[0, 0] == R.NODATA | R.DROPPED


def test_reasons_add_and_wrong_input_is_refused():
    assert collection1_reasons(bits(0, 1, 4), spacecraft=5)[0, 0] == R.NODATA | R.DROPPED | R.CLOUD
    with pytest.raises(ConfigError, match="not integers"):
        collection1_reasons(np.zeros((1, 1)), spacecraft=5)
    with pytest.raises(ShapeError):
        collection2_reasons(bits(0), np.zeros((2, 2), np.uint16), spacecraft=5)
