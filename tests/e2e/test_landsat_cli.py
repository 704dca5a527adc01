"""`urbandelta toa`, `import landsat` and `import --match` through the command line."""

import json
from types import SimpleNamespace

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from command import Run, runner
from landsat_scene import ETM, OLI, pack, write_raster, write_scene

from urbandelta.store import open_cube
from urbandelta.weights import save_weights


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


def read(path):
    """Values, and what the file says of them."""
    with rasterio.open(path) as source:
        about = SimpleNamespace(
            descriptions=source.descriptions,
            units=source.units,
            nodata=source.nodata,
            tags=source.tags(),
            scales=source.scales,
            offsets=source.offsets,
            block_shapes=source.block_shapes,
        )
        return source.read(), about


def stack(folder, mtl, bands):
    """The scene's band files in one raster."""
    layers = []
    for band in bands:
        with rasterio.open(folder / mtl.name.replace("MTL.txt", f"B{band}.TIF")) as source:
            layers.append(source.read(1))
    return write_raster(folder / "dn.tif", np.stack(layers))


def test_a_scene_becomes_a_geotiff_with_or_without_dn(run, tmp_path):
    mtl = write_scene(tmp_path / "scene")
    report = run("toa", mtl, "--out", tmp_path / "a.tif", "--json").document()
    assert report["bands"] == ["1", "2", "3", "4", "5", "6", "7"]
    assert report["valid_fraction"] == pytest.approx(29 / 30)
    values, source = read(tmp_path / "a.tif")
    assert (source.descriptions[5], source.units[5], source.units[0]) == ("B6", "K", "1")
    assert np.isnan(source.nodata)
    assert np.isnan(values[:, 0, 0]).all()
    assert json.loads(source.tags["corrections"])[0]["mult"] == 0.002
    dn = stack(tmp_path / "scene", mtl, "1234567")
    done = run("toa", mtl, "--dn", dn, "--out", tmp_path / "b.tif")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "b.tif"))
    assert "its 7 bands are taken as 1, 2, 3, 4, 5, 6, 7" in done.err
    npt.assert_array_equal(read(tmp_path / "b.tif")[0], values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", "scene"]


@pytest.mark.parametrize(
    ("spacecraft", "bands", "order"),
    [(7, ETM, "1 2 3 4 5 6_VCID_1 6_VCID_2 7"), (8, OLI, "1 2 3 4 5 6 7 9 10 11")],
)
def test_bands_keep_the_order_of_the_metadata(run, tmp_path, spacecraft, bands, order):
    mtl = write_scene(tmp_path / "scene", spacecraft=spacecraft, bands=bands)
    names = order.split()
    report = run("toa", mtl, "--out", tmp_path / "a.tif", "--json").document()
    assert report["bands"] == names
    dn = stack(tmp_path / "scene", mtl, names)
    assert run("toa", mtl, "--dn", dn, "--out", tmp_path / "b.tif", "--json").document()["bands"] == names
    npt.assert_array_equal(read(tmp_path / "a.tif")[0], read(tmp_path / "b.tif")[0])
    chosen = run("toa", mtl, "--bands", "8,B3", "--out", tmp_path / "c.tif", "--json").document()
    assert chosen["bands"] == ["8", "3"]


def test_units_types_and_kinds(run, tmp_path):
    mtl = write_scene(tmp_path / "scene")
    assert run("toa", mtl, "--out", tmp_path / "f.tif").code == 0
    plain, _ = read(tmp_path / "f.tif")
    words = ("--dtype", "uint16", "--scale", "2e-5", "--offset", "-0.1", "--thermal-scale", "0.01")
    assert run("toa", mtl, "--out", tmp_path / "i.tif", *words).err == ""
    stored, source = read(tmp_path / "i.tif")
    assert (source.nodata, source.scales[0], source.offsets[0], source.scales[5], source.offsets[5]) == (
        0, 2e-5, -0.1, 0.01, 0,
    )  # fmt: skip
    npt.assert_allclose(stored[0, 1:] * 2e-5 - 0.1, plain[0, 1:], atol=1.1e-5)
    npt.assert_allclose(stored[5, 1:] * 0.01, plain[5, 1:], atol=0.0051)
    assert (stored[:, 0, 0] == 0).all()
    for kind, count in (("radiance", 7), ("reflectance", 6), ("temperature", 1)):
        out = tmp_path / f"{kind}.tif"
        assert run("toa", mtl, "--kind", kind, "--out", out).code == 0
        assert read(out)[0].shape[0] == count
    assert run("toa", mtl, "--kind", "temperature", "--temperature", "C", "--out", tmp_path / "c.tif").code == 0
    npt.assert_allclose(read(tmp_path / "c.tif")[0][0], plain[5] - 273.15, atol=1e-4)
    words = ("--co", "COMPRESS=LZW", "--co", "PREDICTOR=1", "--out", tmp_path / "lzw.tif")
    assert run("toa", mtl, *words).code == 0
    with rasterio.open(tmp_path / "lzw.tif") as source:
        assert source.compression.name == "lzw"
    clipped = run("toa", mtl, "--out", tmp_path / "u8.tif", "--dtype", "uint8", "--scale", "1e-4", "--bands", "1,2")
    assert "did not fit uint8" in clipped.err


def test_running_it_again_changes_nothing_and_another_result_is_not_overwritten(run, tmp_path):
    mtl = write_scene(tmp_path / "scene")
    out = tmp_path / "a.tif"
    assert run("toa", mtl, "--out", out).code == 0
    before = out.stat().st_mtime_ns
    assert "holds the same already" in run("toa", mtl, "--out", out).err
    assert out.stat().st_mtime_ns == before
    refused = run("toa", mtl, "--out", out, "--kind", "radiance")
    assert (refused.code, "add --overwrite" in refused.err) == (1, True)
    assert run("toa", mtl, "--out", out, "--kind", "radiance", "--overwrite").code == 0
    assert mtl.exists()
    assert len(list((tmp_path / "scene").glob("*.TIF"))) == 8


def test_quality_bands_hide_pixels_on_request(run, tmp_path):
    mtl = write_scene(tmp_path / "scene", collection=2)
    quality = np.full((6, 5), 5440, np.uint16)
    quality[3] = 1 << 3
    write_raster(tmp_path / "scene" / mtl.name.replace("MTL.txt", "QA_PIXEL.TIF"), quality)
    for out, words in (("a.tif", ()), ("b.tif", ("--qa",))):
        assert run("toa", tmp_path / "scene", "--out", tmp_path / out, *words).code == 0
    assert np.isfinite(read(tmp_path / "a.tif")[0][:, 3]).all()
    assert np.isnan(read(tmp_path / "b.tif")[0][:, 3]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bands", "9"), "states no band 9"),
        (("--co", "COMPRESS"), "expected NAME=VALUE"),
        (("--co", "dtype=uint8"), "is decided by other options"),
        (("--bands", "1,1"), "expected different band names"),
        (("--dtype", "uint16"), "needs --scale"),
        (("--scale", "-1"), "is not a positive number"),
        (("--kind", "temperature", "--bands", "1"), "band 1 has no temperature"),
        (("--dn", "missing.tif"), "no such file"),
        (("--qa", "--bands", "1"), "is missing"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(run, tmp_path, words, message):
    mtl = write_scene(tmp_path / "scene")
    (tmp_path / "scene" / mtl.name.replace("MTL.txt", "BQA.TIF")).unlink()
    done = run("toa", mtl, "--out", tmp_path / "a.tif", *words)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]


def test_rasters_whose_bands_cannot_be_told_are_refused(run, tmp_path):
    mtl = write_scene(tmp_path / "scene", spacecraft=8, bands=OLI)
    dn = stack(tmp_path / "scene", mtl, OLI[:8])
    assert "Name them in order with --bands" in run("toa", mtl, "--dn", dn, "--out", tmp_path / "a.tif").err
    done = run("toa", mtl, "--dn", dn, "--bands", ",".join(OLI[:8]), "--out", tmp_path / "a.tif", "--json")
    assert done.document()["bands"] == list(OLI[:8])
    one = tmp_path / "scene" / mtl.name.replace("MTL.txt", "B10.TIF")
    assert run("toa", mtl, "--dn", one, "--out", tmp_path / "b.tif", "--json").document()["bands"] == ["10"]


def test_many_blocks_give_what_one_would(run, tmp_path):
    mtl = write_scene(tmp_path / "scene", shape=(600, 1100), bands=("3", "6"))
    assert run("toa", mtl, "--out", tmp_path / "a.tif", "--sun", "pixel").code == 0
    values, source = read(tmp_path / "a.tif")
    assert source.block_shapes[0] == (512, 512)
    assert np.isnan(values[:, 0, 0]).all()
    assert np.isfinite(values[:, 1:, 1:]).all()
    with rasterio.open(tmp_path / "scene" / mtl.name.replace("MTL.txt", "B3.TIF")) as band:
        ratio = values[0] / (0.002 * band.read(1).astype(float) - 0.01)
    assert np.nanmax(np.abs(np.diff(ratio, axis=1))) < 1e-4  # no step where blocks meet


def test_scenes_go_into_a_cube_from_folders_and_archives(run, tmp_path):
    write_scene(tmp_path / "in" / "a")
    write_scene(tmp_path / "in" / "b", scene="LT05_L1TP_198025_19950628_20180101_01_T1")
    content = tmp_path / "in" / "b"
    mtl = next(content.glob("*_MTL.txt"))
    mtl.write_text(mtl.read_text().replace("1995-06-12", "1995-06-28"))
    pack(content, tmp_path / "in" / "b.tar.gz")
    for path in content.iterdir():
        path.unlink()
    words = ("import", "landsat", tmp_path / "in", "--into", tmp_path / "cube", "--stream", "optical")
    rows = run(*words, "--era", "ers12ls5", "--grid", "native", "--dry-run", "--json").document()
    assert [row["time"][:10] for row in rows] == ["1995-06-12", "1995-06-28"]
    assert run(*words, "--era", "ers12ls5", "--grid", "native", "--json").document()["added"] == 2
    assert run(*words, "--json").document()["skipped"] == 2
    cube = open_cube(str(tmp_path / "cube"))
    values, mask = cube.read("optical", slice(0, 2), slice(0, 6), slice(0, 5))
    assert mask[0, 0, 0] == 1
    assert (mask.reshape(2, -1)[:, 1:] == 0).all()
    assert 0 <= values[0, 1:].min() <= values[0, 1:].max() < 0.6
    table = cube.acquisitions("optical")
    assert set(table["platform"].values) == {"landsat-5"}
    assert json.loads(str(table["provenance"].values[0]))["correction"][0]["quantity"] == "reflectance"


def test_radar_is_matched_to_weights_and_says_so(run, tmp_path, make_weights):
    weights = make_weights("ers12ls5")
    taps = weights.parameters["sar.block1.conv.weight"].astype(np.float64).sum(axis=(2, 3))
    seen = taps @ [186_000.0, 154_000.0] + weights.parameters["sar.block1.conv.bias"]
    weights.parameters["sar.block1.bn.running_mean"] = seen.astype(np.float32)
    save_weights(weights, tmp_path / "w.safetensors")
    rng = np.random.default_rng(0)
    for day in ("19950101", "19950205"):
        write_raster(tmp_path / f"E_{day}_VV.tif", rng.gamma(3, 0.02, (8, 8)).astype(np.float32))
    words = ("import", "geotiff", tmp_path, "--pattern", "E_{date:%Y%m%d}_{band}.tif", "--into", tmp_path / "cube")
    words += ("--stream", "ers_dsc", "--level", "PRI", "--coefficient", "intensity", "--orbit", "descending")
    words += ("--match", tmp_path / "w.safetensors")
    assert run(*words, "--era", "ers12ls5", "--grid", "native", "--json").document()["added"] == 2
    cube = open_cube(str(tmp_path / "cube"))
    values, _ = cube.read("ers_dsc", slice(0, 2), slice(0, 8), slice(0, 8))
    assert values.mean() == pytest.approx(154_000, rel=1e-3)
    said = json.loads(str(cube.acquisitions("ers_dsc")["provenance"].values[1]))["matching"]
    assert (said["weights_sha256"], said["acquisitions"]) == (weights.sha256, 2)
    write_raster(tmp_path / "E_19950311_VV.tif", np.full((8, 8), 5.0, np.float32))
    assert run(*words, "--json").document()["added"] == 1  # a later image gets the same gain, however bright it is
    later = json.loads(str(open_cube(str(tmp_path / "cube")).acquisitions("ers_dsc")["provenance"].values[2]))
    assert later["matching"] == said
    other = make_weights("ers12ls5", seed=3)
    save_weights(other, tmp_path / "o.safetensors")
    assert "a stream has one gain" in run(*words[:-1], tmp_path / "o.safetensors").err
