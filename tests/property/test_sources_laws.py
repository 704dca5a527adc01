import numpy as np
import numpy.testing as npt
from hypothesis import given
from hypothesis import strategies as st

from urbandelta.grid import Grid
from urbandelta.sources.resample import covering_window, crop, onto_grid


@st.composite
def grids(draw):
    pixel = draw(st.sampled_from([10.0, 20.0, 30.0, 60.0]))
    west, north = draw(st.integers(-300, 300)), draw(st.integers(-300, 300))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return Grid("EPSG:32631", (pixel, 0.0, float(west), 0.0, -pixel, float(north)), height, width)


def oracle(values, source, target):
    """Pixel by pixel: which source pixel holds this centre, in exact integers."""
    (size, _), (west, north) = source.pixel_size, (source.transform[2], source.transform[5])
    out = np.zeros(target.shape, values.dtype)
    missing = np.ones(target.shape, np.bool_)
    for i, y in enumerate(target.y):
        for j, x in enumerate(target.x):
            row, column = int((north - y) // size), int((x - west) // size)
            if 0 <= row < source.height and 0 <= column < source.width:
                out[i, j], missing[i, j] = values[row, column], False
    return out, missing


@given(source=grids(), target=grids())
def test_nearest_takes_the_pixel_under_the_centre(source, target):
    values = np.arange(1, source.height * source.width + 1).reshape(source.shape)
    expected, missing = oracle(values, source, target)
    out, found_missing = onto_grid(values, np.zeros(source.shape, np.bool_), source, target)
    npt.assert_array_equal(out, expected)
    npt.assert_array_equal(found_missing, missing)


@given(source=grids(), target=grids())
def test_reading_only_the_window_changes_nothing(source, target):
    values = np.arange(1, source.height * source.width + 1).reshape(source.shape)
    invalid = values % 3 == 0
    whole = onto_grid(values, invalid, source, target)
    window = covering_window(source, target)
    if window is None:
        assert whole[1].all()
        return
    part = onto_grid(values[window], invalid[window], crop(source, *window), target)
    npt.assert_array_equal(part[0], whole[0])
    npt.assert_array_equal(part[1], whole[1])
