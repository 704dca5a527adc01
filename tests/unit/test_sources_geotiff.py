import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from affine import Affine

from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, SourceError
from urbandelta.grid import Grid
from urbandelta.sources.base import Recipe, read_scene
from urbandelta.sources.calibrate import Encoding, MaskRule
from urbandelta.sources.geotiff import Naming, find_scenes, read_dates, read_info
from urbandelta.sources.pattern import compile_pattern
from urbandelta.sources.stack import find_scenes as find_stacked
from urbandelta.sources.stack import parse_layout

OPTICAL = ERAS["s12"].stream("optical")
NAMES = compile_pattern("{*}_{date:%Y%m%d}_{band}.tif")


def write(path, array, *, pixel=10.0, crs="EPSG:32631", west=0.0, north=100.0, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array if array.ndim == 3 else array[None]
    transform = Affine(pixel, 0, west, 0, -pixel, north)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2],
        dtype=array.dtype, crs=crs, transform=transform, **profile,
    ) as target:  # fmt: skip
        target.write(array)
    return path


def read(scene, grid, stream=OPTICAL, **encoding):
    return read_scene(scene, Recipe(stream=stream, encoding=Encoding(**encoding)), grid)


@pytest.fixture
def scene_folder(tmp_path):
    b02 = np.arange(1, 17, dtype=np.uint16).reshape(4, 4)
    write(tmp_path / "T_20180309_B02.tif", b02)
    write(tmp_path / "T_20180309_B11.tif", np.array([[100, 200], [300, 400]], np.uint16), pixel=20.0)
    write(tmp_path / "T_20180309_SCL.tif", np.array([[8, 4], [3, 4]], np.uint8), pixel=20.0)
    return tmp_path


def test_bands_of_several_resolutions_are_one_acquisition(scene_folder):
    (scene,) = find_scenes(scene_folder, Naming(pattern=NAMES))
    grid = scene.parts[0].layers["B02"].grid
    acquisition = read(scene, grid, scale=1e-4, masks=(MaskRule.parse("SCL", "scl"),))
    assert acquisition.bands == ("B02", "B11")
    assert acquisition.values.dtype == np.uint16
    npt.assert_array_equal(acquisition.values[..., 0], np.arange(1, 17).reshape(4, 4))
    npt.assert_array_equal(acquisition.values[..., 1], np.array([[100, 200], [300, 400]]).repeat(2, 0).repeat(2, 1))
    npt.assert_array_equal(acquisition.mask[::2, ::2], [[2, 0], [4, 0]])
    assert (acquisition.scale, acquisition.item_id) == (1e-4, "T_20180309")


def test_only_the_part_that_the_cube_needs_is_read_onto_its_grid(scene_folder):
    (scene,) = find_scenes(scene_folder, Naming(pattern=NAMES))
    acquisition = read(scene, Grid("EPSG:32631", (10.0, 0.0, 30.0, 0.0, -10.0, 80.0), 2, 3))
    npt.assert_array_equal(acquisition.values[..., 0], [[12, 0, 0], [16, 0, 0]])
    npt.assert_array_equal(acquisition.mask, [[0, 1, 1], [0, 1, 1]])


def test_nodata_and_internal_masks_hide_pixels(tmp_path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "a_20180309_B02.tif", np.ones((2, 2), np.uint16))
        with rasterio.open(path, "r+") as target:
            target.write_mask(np.array([[255, 0], [255, 255]], np.uint8))
    write(tmp_path / "a_20180309_B03.tif", np.array([[7, 1], [9, 1]], np.uint16), nodata=9)
    (scene,) = find_scenes(tmp_path, Naming(pattern=NAMES))
    acquisition = read(scene, scene.parts[0].layers["B02"].grid)
    npt.assert_array_equal(acquisition.mask, [[0, 1], [1, 0]])


def test_bands_in_other_encodings_meet_in_physical_units(tmp_path):
    write(tmp_path / "a_20180309_B02.tif", np.full((1, 1), 3, np.uint16))
    write(tmp_path / "a_20180309_B03.tif", np.full((1, 1), 0.5, np.float32))
    (scene,) = find_scenes(tmp_path, Naming(pattern=NAMES))
    acquisition = read(scene, scene.parts[0].layers["B02"].grid, scale=2.0)
    npt.assert_array_equal(acquisition.values, np.array([[[6.0, 1.0]]], np.float32))
    assert acquisition.scale == 1.0


def test_multiband_files_by_name_order_or_description(tmp_path):
    path = write(tmp_path / "s_20180309.tif", np.arange(3, dtype=np.uint16).reshape(3, 1, 1))
    dated = compile_pattern("{*}_{date:%Y%m%d}.tif")
    (scene,) = find_scenes(tmp_path, Naming(pattern=dated, bands=("B04", "-", "B02")))
    assert read(scene, scene.parts[0].layers["B02"].grid).values.tolist() == [[[2, 0]]]
    with pytest.raises(SourceError, match="has 3 bands, --bands names 2"):
        find_scenes(tmp_path, Naming(pattern=dated, bands=("B02", "B03")))
    with pytest.raises(SourceError, match="3 bands have no names"):
        find_scenes(tmp_path, Naming(pattern=dated))
    with rasterio.open(path, "r+") as target:
        target.descriptions = ("B2", "B3", "B4")
    (scene,) = find_scenes(path, Naming(pattern=dated, rename={"B2": "B02"}))
    assert set(scene.parts[0].layers) == {"B02", "B3", "B4"}


def test_dates_by_scene_from_a_file(tmp_path):
    write(tmp_path / "imgs_1/x_B02.tif", np.ones((1, 1), np.uint8))
    write(tmp_path / "imgs_2/x_B02.tif", np.ones((1, 1), np.uint8))
    (tmp_path / "dates.txt").write_text("# when\ndate_1: 20161209\n\ndate_2: 2018-03-09T03:05:39Z\n")
    dates = read_dates(tmp_path / "dates.txt")
    naming = Naming(pattern=compile_pattern("imgs_{scene}/*_{band}.tif"), dates=dates)
    assert [str(scene.time)[:19] for scene in find_scenes(tmp_path, naming)] == [
        "2016-12-09T00:00:00",
        "2018-03-09T03:05:39",
    ]
    del dates["date_2"]
    with pytest.raises(SourceError, match="0 dates fit scene '2'"):
        find_scenes(tmp_path, naming)


@pytest.mark.parametrize(("line", "message"), [("20161209", "KEY: DATE"), ("a: 2018-03-09T03:05", "no time zone")])
def test_unclear_lines_of_dates_are_named(tmp_path, line, message):
    (tmp_path / "dates.txt").write_text(f"\n{line}\n")
    with pytest.raises(SourceError, match=rf"dates\.txt:2.*{message}"):
        read_dates(tmp_path / "dates.txt")


def test_platform_orbit_and_track_come_from_the_name(tmp_path):
    write(tmp_path / "S1A_DESC_T037_20180309_VV.tif", np.ones((1, 1), np.float32))
    pattern = compile_pattern("{platform}_{orbit:ASC|DESC}_T{track}_{date:%Y%m%d}_{band}.tif")
    (scene,) = find_scenes(tmp_path, Naming(pattern=pattern))
    assert (scene.platform, scene.orbit_state, scene.relative_orbit) == ("S1A", "descending", 37)


def test_two_files_for_one_band_are_refused(tmp_path):
    write(tmp_path / "a_20180309_B02.tif", np.ones((1, 1), np.uint8))
    write(tmp_path / "b_20180309_B02.tif", np.ones((1, 1), np.uint8))
    with pytest.raises(SourceError, match="holds band B02 of the same acquisition"):
        find_scenes(tmp_path, Naming(pattern=NAMES))


def test_a_truncated_file_is_named(tmp_path):
    values = np.random.default_rng(0).integers(0, 9999, (200, 200)).astype(np.uint16)
    path = write(tmp_path / "a_20180309_B02.tif", values, compress="deflate")
    path.write_bytes(path.read_bytes()[:40_000])
    (scene,) = find_scenes(tmp_path, Naming(pattern=NAMES))
    with pytest.raises(SourceError, match=r"a_20180309_B02\.tif: pixels cannot be read.*cut short"):
        read(scene, scene.parts[0].layers["B02"].grid)


@pytest.mark.parametrize(
    ("crs", "declared", "message"),
    [(None, None, "has no CRS"), ("EPSG:32631", "EPSG:32632", "not in the declared"), (None, "EPSG:1", "unknown CRS")],
)
def test_the_crs_is_never_guessed(tmp_path, crs, declared, message):
    path = write(tmp_path / "a.tif", np.ones((1, 1), np.uint8), crs=crs)
    with pytest.raises(SourceError, match=message):
        read_info(path, crs=declared)


def test_a_declared_crs_is_taken_for_a_file_without_one(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((1, 1), np.uint8), crs=None)
    assert read_info(path, crs="EPSG:32632").grid.crs == "EPSG:32632"


def test_missing_files_and_other_files(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        find_scenes(tmp_path / "absent", Naming())
    with pytest.raises(SourceError, match="none of 0 rasters"):
        find_scenes(tmp_path, Naming())
    (tmp_path / "x_20180309_B02.tif").write_text("no raster")
    with pytest.raises(SourceError, match="not a readable raster"):
        find_scenes(tmp_path, Naming(pattern=NAMES))


def test_a_name_without_date_needs_one(tmp_path):
    write(tmp_path / "B02.tif", np.ones((1, 1), np.uint8))
    with pytest.raises(SourceError, match="no date"):
        find_scenes(tmp_path, Naming(pattern=compile_pattern("{band}.tif")))


def test_a_series_stacked_in_one_file(tmp_path):
    path = write(tmp_path / "stack.tif", np.arange(7, dtype=np.uint16).reshape(7, 1, 1))
    layout = parse_layout("B02,-,B03", start=np.datetime64("2017-12-31", "ns"), every="1D", steps=2)
    scenes = find_stacked(path, layout)
    grid = scenes[0].parts[0].layers["B02"].grid
    assert [read(scene, grid).values.tolist() for scene in scenes] == [[[[0, 2]]], [[[3, 5]]]]
    assert [str(scene.time)[:10] for scene in scenes] == ["2017-12-31", "2018-01-01"]
    with pytest.raises(SourceError, match="has 7 bands, 3 dates of 3 need 9"):
        find_stacked(path, parse_layout("B02,-,B03", start=layout.times[0], every="1D", steps=3))


def test_months_keep_the_day():
    layout = parse_layout("B02", start=np.datetime64("2017-01-16T12:00", "ns"), every="1M", steps=14)
    assert [str(time)[:16] for time in layout.times[::13]] == ["2017-01-16T12:00", "2018-02-16T12:00"]


@pytest.mark.parametrize(("every", "steps"), [("M", 1), ("0M", 1), ("1y", 1), ("1M", 0)])
def test_malformed_layouts_are_refused(every, steps):
    with pytest.raises(ConfigError):
        parse_layout("B02", start=np.datetime64("2017-01-16", "ns"), every=every, steps=steps)
