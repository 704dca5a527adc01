import math

import numpy as np
import numpy.testing as npt
import pytest
from landsat_scene import BEFORE_2012, ETM, as_text, groups

from urbandelta.errors import ConfigError, MetadataError, ShapeError
from urbandelta.grid import Grid
from urbandelta.landsat_mtl import parse_mtl
from urbandelta.sun_angles import ComputedSun, SceneSun
from urbandelta.toa import correct, earth_sun_distance, find_correction, rounding, sun_position

DN = np.array([[0, 1], [100, 255]], np.uint8)
MTL = parse_mtl(as_text(groups()), where="x_MTL.txt")
OLD = parse_mtl(BEFORE_2012, where="x_MTL.txt")


def test_reflectance_is_the_declared_line_over_the_sine_of_the_sun():
    values = correct(DN, find_correction(MTL, "1"), sun_elevation=30.0)
    assert values.dtype == np.float32
    npt.assert_allclose(values, [[np.nan, -0.016], [0.38, 1.0]], rtol=1e-6)


def test_radiance_and_temperature():
    npt.assert_allclose(
        correct(DN, find_correction(MTL, "6", kind="radiance"), sun_elevation=30.0), [[np.nan, 1.05], [6.0, 13.75]]
    )
    values = correct(DN, find_correction(MTL, "6"), sun_elevation=30.0)
    npt.assert_allclose(values[1, 0], 1260.56 / math.log(607.76 / 6.0 + 1), rtol=1e-6)
    assert np.isnan(values[0, 0])


def test_the_older_formula_takes_irradiance_and_distance_from_tables():
    correction = find_correction(OLD, "1")
    radiance = (191.6 + 6.2) / 254 * (100 - 1) - 6.2
    expected = math.pi * radiance * earth_sun_distance(OLD.time) ** 2 / (1997 * math.sin(math.radians(47.9)))
    npt.assert_allclose(correct(DN, correction, sun_elevation=47.9)[1, 0], expected, rtol=1e-6)
    assert "ESUN 1997" in correction.origin
    assert (find_correction(OLD, "6_VCID_1").k1, find_correction(OLD, "6_VCID_2").k2) == (666.09, 1282.71)


def test_both_gains_of_the_thermal_band_see_the_same_ground():
    mtl = parse_mtl(as_text(groups(spacecraft=7, bands=ETM)), where="x")
    assert find_correction(mtl, "6_VCID_1").quantity == find_correction(mtl, "6_VCID_2").quantity == "temperature"
    low, high = (find_correction(OLD, band, kind="radiance").line for band in ("6_VCID_1", "6_VCID_2"))
    dn_low, dn_high = (round((9.0 - line.add) / line.mult) for line in (low, high))
    assert low.mult * dn_low + low.add == pytest.approx(high.mult * dn_high + high.add, abs=0.06)


def test_a_rounded_factor_is_noticed_and_the_range_can_be_used():
    text = as_text(groups(bands=("7",))).replace("5.0E-02", "0.066").replace("1.00000", "-0.21555")
    text = text.replace(
        "    RADIANCE_ADD_BAND_7",
        "    RADIANCE_MAXIMUM_BAND_7 = 16.5\n    RADIANCE_MINIMUM_BAND_7 = -0.15\n    QUANTIZE_CAL_MAX_BAND_7 = 255\n"
        "    QUANTIZE_CAL_MIN_BAND_7 = 1\n    RADIANCE_ADD_BAND_7",
    )
    mtl = parse_mtl(text, where="x")
    assert rounding(mtl, "7") == pytest.approx(0.066 / (16.65 / 254) - 1)
    declared = find_correction(mtl, "7", kind="radiance")
    exact = find_correction(mtl, "7", kind="radiance", rescaling="range")
    assert (declared.line.mult, exact.line.mult) == (0.066, pytest.approx(16.65 / 254))
    assert rounding(MTL, "1") == 0


def test_what_cannot_be_had_is_refused():
    with pytest.raises(MetadataError, match="states no band 9"):
        find_correction(MTL, "9")
    with pytest.raises(ConfigError, match="band 6 has no reflectance"):
        find_correction(MTL, "6", kind="reflectance")
    with pytest.raises(ConfigError, match="band 1 has no temperature"):
        find_correction(MTL, "1", kind="temperature")
    with pytest.raises(ConfigError, match="unknown kind"):
        find_correction(MTL, "1", kind="albedo")
    with pytest.raises(ConfigError, match="unknown rescaling"):
        find_correction(MTL, "1", rescaling="guess")
    with pytest.raises(ShapeError):
        correct(DN, find_correction(MTL, "1"), sun_elevation=np.full((3, 3), 30.0))
    oli = groups(spacecraft=8, bands=("1", "10"))
    oli["RADIOMETRIC_RESCALING"].pop("REFLECTANCE_MULT_BAND_1")
    oli["TIRS_THERMAL_CONSTANTS"].clear()
    mtl = parse_mtl(as_text(oli), where="x")
    for band in ("1", "10"):
        with pytest.raises(MetadataError, match="fetch the scene's MTL file again"):
            find_correction(mtl, band)
    with pytest.raises(MetadataError, match="neither RADIANCE_MULT"):
        find_correction(parse_mtl(as_text(groups(bands=("1",))).replace("RADIANCE_MULT_BAND_1", "X"), where="x"), "1",
                        kind="radiance")  # fmt: skip


def test_no_light_gives_no_reflectance_and_no_radiance_no_temperature():
    values = correct(DN, find_correction(MTL, "1"), sun_elevation=np.array([[30.0, 0.0], [-5.0, np.nan]]))
    assert np.isnan(values).all()
    text = as_text(groups()).replace("1.00000", "-9.00000")
    assert np.isnan(correct(DN, find_correction(parse_mtl(text, where="x"), "6"), sun_elevation=30.0)[1, 0])


@pytest.mark.parametrize(
    ("time", "stated"), [("2005-05-16T09:50:14", 1.0111492), ("2010-04-20T09:55:09", 1.0046464)]
)  # as USGS states for scenes of path 193, row 24
def test_the_sun_s_distance_is_that_of_the_metadata(time, stated):
    assert earth_sun_distance(np.datetime64(time, "ns")) == pytest.approx(stated, abs=2e-5)


@pytest.mark.parametrize(
    ("time", "place", "stated"),
    [
        ("2010-04-20T09:55:09.8", (12.7576, 51.6992), (47.23638449, 153.23573361)),
        ("1988-08-14T13:00:47.4", (-50.0732, -4.3317), (49.75588889, 61.96724978)),
    ],
)  # elevation and azimuth at the centre of the scene, as USGS states them
def test_the_sun_stands_where_the_metadata_say(time, place, stated):
    elevation, azimuth = sun_position(np.datetime64(time, "ns"), *(np.array([value]) for value in place))
    assert elevation[0] == pytest.approx(stated[0], abs=0.02)
    assert azimuth[0] == pytest.approx(stated[1], abs=0.03)


def test_angles_between_nodes_are_those_of_the_formula_in_any_block():
    grid = Grid("EPSG:32631", (30.0, 0.0, 500_000.0, 0.0, -30.0, 5_600_000.0), 300, 400)
    sun = ComputedSun(np.datetime64("1995-06-12T09:53:14", "ns"))
    whole = sun.elevation(grid, slice(0, 300), slice(0, 400))
    npt.assert_array_equal(sun.elevation(grid, slice(70, 201), slice(63, 64)), whole[70:201, 63:64])
    import pyproj

    x, y = np.meshgrid(grid.x, grid.y)
    longitude, latitude = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)
    npt.assert_allclose(whole, sun_position(sun.time, longitude, latitude)[0], atol=1e-5)
    assert 0.01 < np.ptp(whole) < 0.5
    assert SceneSun(30.0).elevation(grid, slice(0, 1), slice(0, 1)) == 30.0
