import io
import tarfile

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from landsat_scene import ETM, OLI, as_json, groups, pack, write_raster, write_scene

from urbandelta.eras import ERAS
from urbandelta.errors import MetadataError, SourceError
from urbandelta.sources.base import Recipe, read_scene
from urbandelta.sources.calibrate import Encoding
from urbandelta.sources.landsat import QUALITY, LandsatOptions, find
from urbandelta.sources.landsat_files import find_scene_files
from urbandelta.types import MaskReason as R

LS5 = ERAS["ers12ls5"].stream("optical")
S2 = ERAS["s12"].stream("optical")


def read(source, stream=LS5, **options):
    found = find(source, stream, LandsatOptions(**options))
    recipe = Recipe(stream=stream, encoding=Encoding(masks=found.masks))
    scene = found.scenes[0]
    band = next(name for name in scene.parts[0].layers if name != QUALITY)
    return read_scene(scene, recipe, scene.parts[0].layers[band].grid)


def raster(path):
    with rasterio.open(path) as source:
        return source.read(1).astype(np.float64)


def test_a_scene_folder_becomes_reflectance_with_fill_masked(tmp_path):
    mtl = write_scene(tmp_path)
    scene = read(tmp_path)
    assert scene.bands == LS5.bands
    expected = (0.002 * raster(tmp_path / mtl.name.replace("MTL.txt", "B3.TIF")) - 0.01) / 0.5
    expected[0, 0] = np.nan
    npt.assert_allclose(scene.values[..., 2], expected.astype(np.float32), rtol=1e-6)
    assert scene.mask[0, 0] & R.NODATA
    assert (scene.mask.ravel()[1:] == 0).all()
    assert (scene.platform, scene.relative_orbit, scene.processing_baseline) == ("landsat-5", 198, "C1")
    assert scene.provenance["correction"][0]["mult"] == 0.002
    assert scene.provenance["sun"].startswith("SUN_ELEVATION")


def test_the_thermal_band_is_radiance_over_landsat_5_s_range_or_kelvin(tmp_path):
    mtl = write_scene(tmp_path)
    dn = raster(tmp_path / mtl.name.replace("MTL.txt", "B6.TIF"))
    scaled = (0.05 * dn + 1 - 1.2378) / (15.3032 - 1.2378)
    npt.assert_allclose(read(tmp_path).values[1:, :, 5], scaled[1:], rtol=1e-5)
    kelvin = 1260.56 / np.log(607.76 / (0.05 * dn + 1) + 1)
    npt.assert_allclose(read(tmp_path, thermal="kelvin").values[1:, :, 5], kelvin[1:], rtol=1e-6)


def test_quality_bands_of_both_collections(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    name = write_scene(one).name.replace("MTL.txt", "")
    write_scene(two, collection=2)
    bqa, pixel, radsat = (np.full((6, 5), value, np.uint16) for value in (672, 5440, 0))
    bqa[1] = [1, 1 << 1, 1 << 2, 1 << 4, 0b11 << 7]
    pixel[1] = [1, 5440, 5440, 1 << 3, 1 << 4]
    radsat[1] = [0, 1 << 9, 1 << 2, 0, 0]
    write_raster(one / f"{name}BQA.TIF", bqa)
    write_raster(two / f"{name}QA_PIXEL.TIF", pixel)
    write_raster(two / f"{name}QA_RADSAT.TIF", radsat)
    reasons = [R.NODATA, R.DROPPED, R.SATURATED, R.CLOUD, R.CLOUD_SHADOW]
    npt.assert_array_equal(read(one).mask[1], reasons)
    npt.assert_array_equal(read(two).mask[1], reasons)
    assert (read(two, quality="none").mask[1] == 0).all()


def test_without_a_quality_band_numbers_at_the_end_of_their_range_are_saturated(tmp_path):
    mtl = write_scene(tmp_path)
    mtl.write_text(mtl.read_text().replace("FILE_NAME_BAND_QUALITY", "X").replace("NUMBER = 01", "NUMBER = 00"))
    dn = np.full((6, 5), 40, np.uint8)
    dn[2, 2], dn[3, 3] = 255, 0
    write_raster(tmp_path / mtl.name.replace("MTL.txt", "B4.TIF"), dn)
    mask = read(tmp_path).mask
    assert (mask[2, 2], mask[3, 3], mask[4, 4]) == (R.SATURATED, R.NODATA, R.VALID)


def test_angles_for_each_pixel_are_computed_or_taken_from_the_zenith_band(tmp_path):
    mtl = write_scene(tmp_path, collection=2)
    computed = read(tmp_path, sun="pixel")
    assert computed.provenance["sun"].startswith("computed")
    ratio = computed.values[1:, :, 0] / read(tmp_path).values[1:, :, 0]
    npt.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)  # the same sun over 180 m, another one than the metadata's
    assert 0.4 < ratio[0, 0] < 0.7
    zenith = np.full((6, 5), 6000, np.int16)
    zenith[5] = 4500
    write_raster(tmp_path / mtl.name.replace("MTL.txt", "SZA.TIF"), zenith)
    banded = read(tmp_path, sun="pixel").values / read(tmp_path).values
    npt.assert_allclose(banded[1:5, :, 0], 1.0, rtol=1e-6)
    npt.assert_allclose(banded[5, :, 0], 0.5 / np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize(("spacecraft", "bands"), [(7, ETM), (8, OLI)])
def test_other_spacecraft_fill_the_same_bands_by_role(tmp_path, spacecraft, bands):
    write_scene(tmp_path, spacecraft=spacecraft, bands=bands)
    scene = read(tmp_path)
    assert scene.bands == LS5.bands
    files = [name.rpartition("_B")[2] for name in scene.provenance["files"] if "_BQA" not in name]
    low = "6_VCID_1"
    expected = (
        {"1", "2", "3", "4", "5", low.rpartition("_B")[2], "7"}
        if spacecraft == 7
        else {"2", "3", "4", "5", "6", "7", "10"}
    )
    assert {name.removesuffix(".TIF") for name in files} == expected


def test_landsat_8_in_a_sentinel_2_stream(tmp_path):
    write_scene(tmp_path, spacecraft=8, bands=OLI)
    assert read(tmp_path, S2).bands == ("B01", "B02", "B03", "B04", "B8A", "B10", "B11", "B12")


def test_archives_are_read_where_they_lie(tmp_path):
    write_scene(tmp_path / "scene")
    plain = read(tmp_path / "scene")
    for name in ("s.tar", "s.tar.gz", "s.tgz"):
        archive = pack(tmp_path / "scene", tmp_path / name)
        npt.assert_array_equal(read(archive).values, plain.values)
        npt.assert_array_equal(read(archive).mask, plain.mask)
        archive.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"]


def test_names_and_links_in_an_archive_lead_nowhere(tmp_path):
    mtl = write_scene(tmp_path / "scene")
    archive = tmp_path / "evil.tar.gz"
    band = mtl.name.replace("MTL.txt", "B1.TIF")
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted((tmp_path / "scene").iterdir()):
            if path.name != band:
                tar.add(path, arcname=f"../../{path.name}")
        link = tarfile.TarInfo(band)
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "scene" / band)
        tar.addfile(link)
    assert "B1" not in read(archive).bands  # a link is not the file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar.gz", "scene"]
    content = mtl.read_text().replace(band, f"../scene/{band}")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / mtl.name).write_text(content)
    with pytest.raises(MetadataError, match="not the plain name"):
        find_scene_files(tmp_path / "x")


def test_damaged_archives_are_refused(tmp_path):
    write_scene(tmp_path / "scene")
    for name, error in (("s.tar", "ends inside|cannot be read as"), ("s.tar.gz", "cannot be read as")):
        archive = pack(tmp_path / "scene", tmp_path / name)
        content = archive.read_bytes()
        archive.write_bytes(content[: len(content) // 2])
        with pytest.raises(SourceError, match=f"{error}|holds no metadata file"):
            read(archive)
    (tmp_path / "no.tar").write_bytes(b"hello")
    with pytest.raises(SourceError, match="cannot be read as an archive"):
        read(tmp_path / "no.tar")
    for name, mode in (("twice.tar", "w"), ("twice.tar.gz", "w:gz")):
        twice = tmp_path / name
        with tarfile.open(twice, mode) as tar:
            for folder in ("", "again/"):
                for path in sorted((tmp_path / "scene").iterdir()):
                    tar.add(path, arcname=folder + path.name)
        with pytest.raises(SourceError, match="twice, so it is not one scene"):
            read(twice)
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        tar.addfile(tarfile.TarInfo("README"), io.BytesIO())
    with pytest.raises(SourceError, match="holds no metadata file"):
        read(empty)


def test_a_folder_of_many_scenes_of_both_kinds(tmp_path):
    first = write_scene(tmp_path / "a")
    (tmp_path / "a" / first.name.replace(".txt", ".json")).write_text(as_json(groups()))
    write_scene(tmp_path / "b", scene="LT05_L1TP_198025_19950714_20180101_01_T1")
    pack(tmp_path / "b", tmp_path / "b.tar")
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    assert [files.mtl.scene_id[17:25] for files in find_scene_files(tmp_path)] == ["19950612", "19950714"]
    with pytest.raises(SourceError, match="neither a Landsat metadata file"):
        find_scene_files(tmp_path / "b")
    with pytest.raises(SourceError, match="no such file"):
        find_scene_files(tmp_path / "c")


def test_missing_files_are_told(tmp_path):
    mtl = write_scene(tmp_path)
    base = tmp_path / mtl.name.replace("MTL.txt", "")
    base.with_name(base.name + "B5.TIF").unlink()
    assert "B5" not in read(tmp_path).bands
    base.with_name(base.name + "BQA.TIF").unlink()
    with pytest.raises(SourceError, match=r"its quality band .*BQA\.TIF is missing"):
        read(tmp_path)
    assert read(tmp_path, quality="none").mask[0, 0] == R.NODATA
    for band in "123467":
        base.with_name(f"{base.name}B{band}.TIF").unlink()
    with pytest.raises(SourceError, match="none of the band files"):
        read(tmp_path)


def test_what_is_no_level_1_scene_is_refused(tmp_path):
    mtl = write_scene(tmp_path, SUN_ELEVATION="-5.0")
    with pytest.raises(SourceError, match="a night scene has no TOA"):
        read(tmp_path)
    write_scene(tmp_path)
    write_raster(tmp_path / mtl.name.replace("MTL.txt", "B1.TIF"), np.ones((6, 5), np.float32))
    with pytest.raises(SourceError, match="not digital numbers"):
        read(tmp_path)
    (tmp_path / mtl.name.replace("MTL.txt", "B1.TIF")).write_bytes(b"damaged")
    with pytest.raises(SourceError, match="not a readable raster"):
        read(tmp_path)
