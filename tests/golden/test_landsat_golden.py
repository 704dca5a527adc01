"""Landsat scenes whose top-of-atmosphere values another program computed (DLR's ukis-pysat, Apache-2.0)."""

import numpy as np
import numpy.testing as npt
import pytest
import rasterio

from urbandelta.landsat_mtl import read_mtl
from urbandelta.toa import correct, find_correction
from urbandelta.toa_raster import ToaOptions, write_toa

SCENES = ("LT05_L1TP_193024_20050516_20161127_01_T1", "LE07_L1TP_193024_20100420_20161215_01_T1")
OLD = "LT52240631988227CUB02"


def read(path):
    with rasterio.open(path) as source:
        return source.read(), source.crs, source.transform


@pytest.mark.parametrize("name", SCENES)
def test_a_corrected_raster_equals_the_expected_one(real_data, tmp_path, name):
    folder = real_data / "landsat_toa"
    report = write_toa(folder / f"{name}_MTL.txt", tmp_path / "toa.tif", ToaOptions(), dn=folder / f"{name}.tif")
    values, crs, transform = read(tmp_path / "toa.tif")
    expected, expected_crs, expected_transform = read(folder / f"{name}_toa.tif")
    assert (crs, transform, values.dtype, values.shape) == (
        expected_crs, expected_transform, expected.dtype, expected.shape,
    )  # fmt: skip
    for band, got, wanted in zip(report.bands, values, expected, strict=True):
        npt.assert_allclose(got, wanted, rtol=0, atol=1e-3 if band.startswith("6") else 1e-6, err_msg=band)


def test_the_old_scene_works_by_the_older_formula(real_data):
    folder = real_data / "landsat_toa" / OLD
    mtl = read_mtl(folder / f"{OLD}_MTL.txt")
    assert mtl.earth_sun_distance is None
    assert mtl.bands["3"].reflectance is None
    dn = read(folder / f"{OLD}_B3.TIF")[0][0]
    values = correct(dn, find_correction(mtl, "3"), sun_elevation=mtl.sun_elevation)
    # By hand, with Chander's table and the simpler formula of the distance (day 227), which is off by 5e-4.
    distance = 1 - 0.01672 * np.cos(np.deg2rad(0.9856 * (227 - 4)))
    radiance = 1.044 * dn.astype(np.float64) - 2.21398
    expected = np.pi * radiance * distance**2 / (1536 * np.sin(np.deg2rad(49.75588889)))
    npt.assert_allclose(values, expected, rtol=1e-3)
    kelvin = correct(read(folder / f"{OLD}_B6.TIF")[0][0], find_correction(mtl, "6"), sun_elevation=mtl.sun_elevation)
    assert 290 < kelvin.mean() < 305  # the Amazon in August


def test_angles_for_each_pixel_agree_with_the_scene_s_at_its_centre(real_data, tmp_path):
    source = real_data / "landsat_toa" / OLD
    for sun in ("scene", "pixel"):
        write_toa(source, tmp_path / f"{sun}.tif", ToaOptions(sun=sun, bands=("4",)))
    ratio = read(tmp_path / "pixel.tif")[0] / read(tmp_path / "scene.tif")[0]
    npt.assert_allclose(ratio, 1.0, atol=0.03)  # the crop lies 40 km from the centre
