"""The command lines of docs/importing.md on real data, checked against the files read independently."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
import xarray as xr
from typer.testing import CliRunner

from urbandelta.cli.importing import app
from urbandelta.store import open_cube
from urbandelta.types import MaskReason

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
DATA = SHARED / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
ALL = slice(0, None)


def documented(heading):
    """The commands of one section of the documentation, as argument lists without `urbandelta import`."""
    text = (ROOT / "docs/importing.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {re.escape(heading)}$(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, heading
    block = "".join(re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL)).replace("\\\n", " ")
    prefix = ["urbandelta", "import"]
    return [words[2:] for line in block.splitlines() if (words := shlex.split(line))[:2] == prefix]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the commands of a section with `DATA` and the cubes' folder in their places; gives the reports."""

    def run_section(heading):
        reports = []
        for arguments in documented(heading):
            arguments = [re.sub(r"^DATA\b", str(DATA), argument) for argument in arguments]
            arguments = [re.sub(r"^EOPATCHES\b", str(SHARED / "reference/eopatches"), word) for word in arguments]
            result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
            reports.append(json.loads(result.stdout))
        return reports

    monkeypatch.chdir(tmp_path)
    return run_section


def everything(cube, stream):
    return cube.read(stream, ALL, ALL, ALL)


def raw(path):
    return xr.open_dataset(path, engine="h5netcdf", decode_cf=False)


def test_eopatches_are_stored_bit_by_bit(run):
    assert [report["added"] for report in run("EOPatches")] == [4, 4, 4]
    cube = open_cube("eopatches")
    assert cube.grid.bounds == (5.5, 50.6, 5.51, 50.61)
    for stream, folder, feature in (
        ("s1_asc", "asc", "L1_GND"), ("s1_dsc", "dsc", "L1_GND"), ("optical", "opt", "L1C_data"),
    ):  # fmt: skip
        values, mask = everything(cube, stream)
        patches = sorted((SHARED / "reference/eopatches" / folder).iterdir())
        for index, patch in enumerate(patches):
            assert values[index].tobytes() == np.load(patch / f"data/{feature}.npy")[0].tobytes()
            valid = np.load(patch / "mask/dataMask.npy")[0, ..., 0]
            npt.assert_array_equal(mask[index] == 0, valid)
        assert [str(time)[:19].replace("-", "").replace(":", "") for time in cube.times(stream)] == [
            patch.name for patch in patches
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "heading", "counts"),
    [("00002806639B424A", "WorldCereal", [118, 159]), ("0000280849BAC91C", "WorldCereal, second place", [72, 80])],
)
def test_worldcereal(run, place, heading, counts):
    assert [report["added"] for report in run(heading)] == counts
    cube = open_cube(f"worldcereal-{place[-4:]}")
    folder = DATA / "worldcereal" / place
    ten, twenty = (raw(next(folder.glob(f"S2_L2A_{size}m*"))) for size in (10, 20))
    radar = raw(next(folder.glob("S1_*")))
    assert cube.grid.shape == (64, 64)
    info = cube.attributes("optical")
    assert (info.dtype, info.scale, info.processing_levels) == ("uint16", 1e-4, ("L2A",))
    assert "B10" not in info.bands
    values, mask = everything(cube, "optical")
    npt.assert_allclose(values[..., info.bands.index("B08")], ten["B08"].values * 1e-4, rtol=1e-6)
    repeated = twenty["B11"].values.repeat(2, 1).repeat(2, 2)
    npt.assert_allclose(values[..., info.bands.index("B11")], repeated * 1e-4, rtol=1e-6)
    scl = twenty["SCL"].values.repeat(2, 1).repeat(2, 2)
    npt.assert_array_equal(mask == 0, ~np.isin(scl, (0, 1, 3, 8, 9, 10, 11)))
    npt.assert_array_equal(mask == MaskReason.CLOUD, np.isin(scl, (8, 9, 10)))
    values, mask = everything(cube, "s1_asc")
    decibels = radar["VH"].values.repeat(2, 1).repeat(2, 2) * 1e-4
    npt.assert_allclose(10 * np.log10(values[..., 1]), decibels, atol=1e-4)
    assert not mask.any()


@pytest.mark.slow
def test_opera_bursts_are_merged_by_pass(run):
    assert [report["added"] for report in run("OPERA RTC-S1")] == [22]
    cube = open_cube("opera")
    assert (cube.grid.shape, cube.grid.crs) == ((715, 195), "EPSG:32611")
    assert cube.attributes("s1_asc").platforms == ("S1A", "S1B")
    values, mask = everything(cube, "s1_asc")
    for burst, rows, columns in ((292319, slice(615, 715), slice(95, 195)), (292320, slice(0, 100), slice(0, 100))):
        paths = sorted((DATA / f"opera_rtc_s1/T137-{burst}-IW2").glob("*_VH.tif"))
        for index in (0, 21):
            with rasterio.open(paths[index]) as source:
                assert values[index, rows, columns, 1].tobytes() == source.read(1).tobytes()
    assert (mask == 0).sum() == 22 * 2 * 100 * 100


@pytest.mark.slow
def test_oscd_city(run):
    assert [report["added"] for report in run("OSCD")] == [2, 2]
    cube = open_cube("oscd-beihai")
    assert len(cube.attributes("optical").bands) == 13
    values, mask = everything(cube, "optical")
    with rasterio.open(next((DATA / "oscd/images/beihai/imgs_2").glob("*_B03.tif"))) as source:
        npt.assert_allclose(values[1, ..., 2], source.read(1) * 1e-4, rtol=1e-6)
    with rasterio.open(next((DATA / "oscd/images/beihai/imgs_1").glob("*_B09.tif"))) as source:
        coarse = source.read(1) * 1e-4
    assert np.isin(np.round(values[0, ..., 9], 4), np.round(coarse.astype(np.float32), 4)).all()
    assert (mask == 0).mean() > 0.99
    values, mask = everything(cube, "s1_asc")
    with rasterio.open(DATA / "oscd/sentinel1/sentinel1_beihai_157_t1.tif") as source:
        expected = 10 ** ((source.read(1).astype(np.float64) * 30 - 25) / 10)
    assert np.median(values[0][mask[0] == 0]) == pytest.approx(np.median(expected), rel=0.01)


def test_gfmap(run):
    assert [report["added"] for report in run("gfmap")] == [12, 10]
    cube = open_cube("gfmap")
    assert cube.grid.shape == (66, 64)
    values, _ = everything(cube, "s1_asc")
    stored = raw(DATA / "gfmap/cdse_sentinel1_grd.nc")["S1-SIGMA0-VV"].values.view(np.uint16)
    npt.assert_allclose(10 * np.log10(values[..., 0]), 20 * np.log10(stored.astype(np.float64)) - 83, atol=1e-3)
    assert cube.attributes("s1_asc").orbit_states == ("",)


@pytest.mark.slow
def test_cropmask(run):
    assert [report["added"] for report in run("cropmask")] == [24, 24]
    cube = open_cube("cropmask")
    assert [str(time)[:10] for time in cube.times("optical")[[0, 23]]] == ["2017-01-16", "2018-12-16"]
    with rasterio.open(DATA / "cropmask/cropmask_all.tif") as source:
        last = source.read([23 * 17 + band for band in range(1, 16)])
    optical, _ = everything(cube, "optical")
    radar, _ = everything(cube, "s1_asc")
    npt.assert_allclose(optical[23], np.moveaxis(last[2:], 0, -1) * 1e-4, rtol=1e-6)
    npt.assert_allclose(10 * np.log10(radar[23]), np.moveaxis(last[:2], 0, -1), atol=1e-4)


def test_a_patch_with_other_bands_is_refused_with_what_it_holds(tmp_path, monkeypatch):
    from urbandelta.errors import SourceError

    monkeypatch.chdir(tmp_path)
    words = ["eopatch", str(DATA / "eolearn/TestEOPatch"), "--into", "cube", "--stream", "optical", "--era", "s12"]
    with pytest.raises(SourceError, match="it holds data/NDVI"):
        CliRunner().invoke(app, [*words, "--grid", "native"], catch_exceptions=False)
    assert not Path("cube").exists()


def test_reference_scenes_with_the_box_and_masks_of_their_patch(run, tmp_path):
    original = DATA / "eolearn/TestEOPatch"
    times = json.loads((original / "timestamps.json").read_text())
    dates = ("2015-08-20", "2015-07-31", "2015-09-09", "2015-08-30", "2015-07-11")
    chosen = [next(index for index, time in enumerate(times) if time.startswith(date)) for date in dates]
    patch = tmp_path / "scenes"
    (patch / "data").mkdir(parents=True)
    (patch / "mask").mkdir()
    scenes = np.load(DATA / "eolearn/REFERENCE_SCENES.npy", allow_pickle=False)
    np.save(patch / "data/L1C_data.npy", scenes)
    for mask in ("IS_DATA", "CLM"):
        np.save(patch / f"mask/{mask}.npy", np.load(original / f"mask/{mask}.npy")[chosen])
    (patch / "bbox.geojson").write_text((original / "bbox.geojson").read_text())
    (patch / "timestamps.json").write_text(json.dumps([times[index] for index in chosen]))
    assert [report["added"] for report in run("An EOPatch of one's own")] == [5]
    cube = open_cube("scenes-cube")
    values, mask = everything(cube, "optical")
    in_time_order = np.argsort([times[index] for index in chosen])
    assert values.tobytes() == scenes[in_time_order].tobytes()
    cloudy = (mask & MaskReason.CLOUD != 0).mean(axis=(1, 2))
    clm = np.load(original / "mask/CLM.npy")[sorted(chosen), ..., 0]
    npt.assert_allclose(cloudy, (clm == 1).mean(axis=(1, 2)))
