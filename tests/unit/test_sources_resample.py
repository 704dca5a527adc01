import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.sources.resample import covering_window, crop, onto_grid, union

UTM = "EPSG:32631"


def grid(west, north, pixel, height, width, crs=UTM):
    return Grid(crs, (pixel, 0.0, west, 0.0, -pixel, north), height, width)


def valid(values):
    return np.zeros(values.shape, np.bool_)


def test_equal_grids_are_copied_bit_by_bit():
    target = grid(0, 100, 10, 3, 4)
    values = np.array([np.nan, -0.0, 1e-42, 1] * 3, np.float32).reshape(3, 4)
    out, missing = onto_grid(values, valid(values), target, target)
    assert out.tobytes() == values.tobytes()
    assert not missing.any()


def test_twenty_metres_repeat_exactly_on_ten():
    values = np.arange(6, dtype=np.uint16).reshape(2, 3)
    out, missing = onto_grid(values, valid(values), grid(0, 100, 20, 2, 3), grid(0, 100, 10, 4, 6))
    npt.assert_array_equal(out, values.repeat(2, 0).repeat(2, 1))
    assert not missing.any()


def test_outside_the_footprint_is_missing():
    values = np.ones((2, 2), np.uint16)
    out, missing = onto_grid(values, valid(values), grid(0, 100, 10, 2, 2), grid(-10, 110, 10, 4, 4))
    expected = np.ones((4, 4), np.bool_)
    expected[1:3, 1:3] = False
    npt.assert_array_equal(missing, expected)
    npt.assert_array_equal(out, ~expected)


def test_rounding_of_coordinates_does_not_shift_pixels():
    values = np.arange(40_000.0).reshape(200, 200)
    source = grid(5.5, 50.6, 1e-4, 200, 200, "EPSG:4326")
    target = grid(5.5 + 3e-10, 50.6 - 3e-10, 1e-4, 200, 200, "EPSG:4326")
    out, missing = onto_grid(values, valid(values), source, target)
    npt.assert_array_equal(out, values)
    assert not missing.any()


@pytest.mark.parametrize("method", ["nearest", "bilinear", "average", "cubic"])
def test_a_constant_stays_itself_through_a_warp(method):
    target = grid(500_000, 5_600_000, 10, 20, 20)
    source = grid(2.99, 50.56, 2e-4, 120, 120, "EPSG:4326")
    values = np.full((120, 120), 4321, np.uint16)
    out, missing = onto_grid(values, valid(values), source, target, resampling=method)
    assert out.dtype == np.uint16
    assert not missing.any()
    npt.assert_array_equal(out, 4321)


def test_a_warp_finds_the_pixel_under_each_centre():
    pyproj = pytest.importorskip("pyproj")
    target = grid(500_000, 5_540_000, 10, 20, 20)
    source = grid(2.99, 50.02, 1e-3, 60, 60, "EPSG:4326")
    values = np.arange(3600, dtype=np.int32).reshape(60, 60)
    out, missing = onto_grid(values, valid(values), source, target)
    longitude, latitude = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(
        *np.meshgrid(target.x, target.y)
    )
    rows = np.floor((50.02 - latitude) / 1e-3).astype(int)
    columns = np.floor((longitude - 2.99) / 1e-3).astype(int)
    npt.assert_array_equal(out, values[rows, columns])
    assert not missing.any()


@pytest.mark.parametrize("method", ["bilinear", "average", "cubic"])
def test_invalid_pixels_take_no_part_in_interpolation(method):
    values = np.full((8, 8), 10, np.uint16)
    values[3, 3] = 60_000
    invalid = values == 60_000
    out, missing = onto_grid(values, invalid, grid(0, 80, 10, 8, 8), grid(0, 80, 20, 4, 4), resampling=method)
    npt.assert_array_equal(out[~missing], 10)


def test_average_of_valid_pixels():
    values = np.array([[1.0, 3.0], [5.0, 100.0]], np.float32)
    invalid = values == 100
    out, _ = onto_grid(values, invalid, grid(0, 20, 10, 2, 2), grid(0, 20, 20, 1, 1), resampling="average")
    npt.assert_allclose(out, [[3.0]])


def test_the_window_covers_the_target_and_is_clipped():
    source = grid(0, 1000, 10, 100, 100)
    rows, columns = covering_window(source, grid(400, 600, 10, 5, 5))
    assert 30 <= rows.start <= 40 <= 45 <= rows.stop <= 55
    assert 30 <= columns.start <= 40 <= 45 <= columns.stop <= 55
    assert covering_window(source, grid(-50, 1050, 10, 10, 10))[0].start == 0
    assert crop(source, rows, columns).bounds[3] == 1000 - 10 * rows.start


def test_grids_that_only_touch_do_not_overlap():
    source = grid(0, 100, 10, 10, 10)
    assert covering_window(source, grid(100, 100, 10, 5, 5)) is None
    assert covering_window(source, grid(0, 100, 10, 1, 1)) is not None


def test_union_keeps_the_finest_pixels():
    both = union([grid(0, 100, 20, 2, 2), grid(30, 70, 10, 2, 2)])
    assert both == grid(0, 100, 10, 5, 5)


def test_union_of_several_crs_is_refused():
    with pytest.raises(SourceError, match="several CRSs"):
        union([grid(0, 100, 10, 2, 2), grid(0, 100, 10, 2, 2, "EPSG:32632")])


@given(
    source=st.tuples(st.sampled_from([10.0, 20.0]), st.integers(-4, 4), st.integers(-4, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from(["uint16", "float32"]),
)
def test_nearest_takes_the_pixel_under_each_centre(source, size, kind):
    pixel, left, top = source
    values = np.arange(size[0] * size[1], dtype=kind).reshape(size)
    invalid = values % 3 == 0
    before = values.copy(), invalid.copy()
    source_grid, target = grid(10 * left, 10 * top, pixel, *size), grid(0, 0, 10, 5, 6)
    out, missing = onto_grid(values, invalid, source_grid, target)
    for row, column in np.ndindex(target.shape):
        at = int((10 * top - target.y[row]) // pixel), int((target.x[column] - 10 * left) // pixel)
        if 0 <= at[0] < size[0] and 0 <= at[1] < size[1]:
            assert (out[row, column], missing[row, column]) == (values[at], invalid[at])
        else:
            assert missing[row, column]
            assert out[row, column] == 0 or np.isnan(out[row, column])
    assert out.dtype == values.dtype
    assert np.array_equal(values, before[0])
    assert np.array_equal(invalid, before[1])
