import json
import re

import numpy as np
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner

from urbandelta.cli.importing import app
from urbandelta.errors import ConfigError, SourceError, UrbandeltaError
from urbandelta.store import open_cube


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "radar"
    source.mkdir()
    rng = np.random.default_rng(1)
    for day in ("20180101T173000Z", "20180113T173000Z"):
        for band in ("VV", "VH"):
            with rasterio.open(
                source / f"S1A_{day}_{band}.tif", "w", driver="GTiff", count=1, height=8, width=6, dtype="float32",
                crs="EPSG:32631", transform=Affine(10, 0, 500_000, 0, -10, 5_600_000),
            ) as target:  # fmt: skip
                target.write(rng.uniform(-25, 0, (1, 8, 6)).astype(np.float32))
    return source


def words(folder, *more):
    options = ("--stream", "s1_asc", "--db", "--level", "GRD", "--coefficient", "gamma0", "--orbit", "ascending")
    pattern = "{platform}_{date:%Y%m%dT%H%M%SZ}_{band}.tif"
    return ("geotiff", folder, "--into", folder.parent / "cube", "--pattern", pattern, *options, *more)


def test_import_prints_one_line_and_fills_the_cube(folder):
    result = invoke(*words(folder, "--era", "s12", "--grid", "native"))
    assert result.exit_code == 0
    assert re.fullmatch(r".*cube: 2 acquisitions added to s1_asc, 0 were there already; snapshot \w+\n", result.stdout)
    cube = open_cube(folder.parent / "cube")
    values, mask = cube.read("s1_asc", slice(0, 2), slice(0, 8), slice(0, 6))
    with rasterio.open(folder / "S1A_20180113T173000Z_VH.tif") as source:
        np.testing.assert_allclose(10 * np.log10(values[1, ..., 1]), source.read(1), atol=1e-4)
    assert not mask.any()


def test_json_holds_the_report_and_a_second_run_adds_nothing(folder):
    first = json.loads(invoke(*words(folder, "--era", "s12", "--grid", "native", "--json")).stdout)
    again = json.loads(invoke(*words(folder, "--json")).stdout)
    assert (first["added"], first["skipped"]) == (2, 0)
    assert (again["added"], again["skipped"], again["snapshot"]) == (0, 2, first["snapshot"])


def test_a_dry_run_lists_and_writes_nothing(folder):
    rows = json.loads(invoke(*words(folder, "--era", "s12", "--grid", "native", "--dry-run", "--json")).stdout)
    assert [row["time"] for row in rows] == ["2018-01-01T17:30:00Z", "2018-01-13T17:30:00Z"]
    assert rows[0] | {"time": ""} == {
        "time": "", "bands": "VV,VH", "platform": "S1A", "orbit_state": "ascending", "relative_orbit": None,
        "item_id": "S1A_20180101T173000Z",
    }  # fmt: skip
    text = invoke(*words(folder, "--era", "s12", "--grid", "native", "--dry-run")).stdout
    assert "2 acquisitions would go onto 8 x 6 px of 10 x 10 in EPSG:32631" in text
    assert not (folder.parent / "cube").exists()


def test_an_anchored_grid_in_another_crs(folder):
    box = ("--bbox", "2.99", "50.54", "3.01", "50.56", "--pixel-m", "20", "--crs", "EPSG:3035")
    plain = json.loads(invoke(*words(folder, "--era", "s12", *box, "--resampling", "average", "--json")).stdout)
    assert plain["added"] == 2
    cube = open_cube(folder.parent / "cube")
    assert cube.grid.crs == "EPSG:3035"
    _, mask = cube.read("s1_asc", slice(0, 1), slice(0, None), slice(0, None))
    assert 8 <= (mask == 0).sum() <= 20  # 60 m x 80 m


def test_a_truncated_file_is_one_clear_line_and_leaves_no_cube(folder):
    path = folder / "S1A_20180101T173000Z_VH.tif"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError) as error:
        invoke(*words(folder, "--era", "s12", "--grid", "native"))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (folder.parent / "cube").exists()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (("--amplitude",), ConfigError, "--db and --amplitude"),
        (("--mask-band", "SCL"), ConfigError, "--mask-band and --mask-values"),
        (("--mask-band", "SCL", "--mask-values", "3=fog"), ConfigError, "3=fog"),
        (("--nodata", "x"), ConfigError, "--nodata"),
        (("--rename", "VV"), ConfigError, "OLD=NEW"),
        (("--layout", "VV"), ConfigError, "--first-date"),
        (("--every", "1M"), ConfigError, "--layout"),
        (("--valid-band", "dataMask"), SourceError, "no mask band dataMask"),
        (("--source-crs", "EPSG:32632"), SourceError, "not in the declared"),
        (("--bbox", "10", "50", "11", "51"), SourceError, "none of 2 acquisitions reaches"),
        (("--dates", "absent.txt"), SourceError, "absent.txt"),
        (("--stream", "s1_up"), ConfigError, "no stream 's1_up'"),
        (("--pattern", "{date:%Y}.tif"), SourceError, "none of 4 rasters"),
        (("--pattern", "{when}.tif"), ConfigError, "unknown field"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_cube(folder, more, error, message):
    grid = () if "--bbox" in more else ("--grid", "native")
    with pytest.raises(error, match=re.escape(message)) as caught:
        invoke(*words(folder, "--era", "s12", *grid, *more))
    assert isinstance(caught.value, UrbandeltaError)
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "cube").exists()


@pytest.mark.parametrize("command", ["eopatch", "geotiff", "netcdf"])
def test_help_explains_every_option(command):
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in ("--into", "--stream", "--dry-run", "--json", "--era", "--resampling", "--db", "--mask-values"):
        assert option in result.stdout


def test_a_missing_option_is_a_usage_error(folder):
    assert CliRunner().invoke(app, ["geotiff", str(folder), "--stream", "s1_asc"]).exit_code == 2
