"""Wrong input: one line on stderr, code 1, and what was stored before is still there, byte by byte."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from command import Outcome, Run, runner

from urbandelta.infer import predict
from urbandelta.weights import save_weights

TILING = ("--tile", 8, "--halo", 2)
RADAR = (
    *("--stream", "s1_asc", "--level", "GRD", "--coefficient", "gamma0", "--orbit", "ascending"),
    *("--pattern", "S1A_{date:%Y%m%d}_{band}.tif"),
)


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


@pytest.fixture(scope="module")
def world(make_cube, make_weights, tmp_path_factory) -> SimpleNamespace:
    """A cube, its scores, weights of both eras, radar images, and things that are none of these."""
    folder = tmp_path_factory.mktemp("world")
    cube = folder / "cube"
    shutil.copytree(make_cube().url, cube)
    weights = save_weights(make_weights(), folder / "s12.safetensors")
    other = save_weights(make_weights("ers12ls5"), folder / "ers.safetensors")
    predict(str(cube), weights, out=str(folder / "scores"), tile=8, halo=2)
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("not yours")
    images = folder / "images"
    images.mkdir()
    for band in ("VV", "VH"):
        write_image(images / f"S1A_20200101_{band}.tif")
    return SimpleNamespace(
        folder=folder, cube=cube, weights=weights, other=other, scores=folder / "scores", foreign=foreign,
        file=foreign / "letter.txt", images=images, new=folder / "new", none=folder / "none",
    )  # fmt: skip


def write_image(path: Path, *, bands: int = 1, crs: str | None = "EPSG:32631") -> None:
    values = np.random.default_rng(1).uniform(1, 9, (bands, 20, 24)).astype(np.float32)
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=20, width=24, dtype="float32", crs=crs,
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_200),
    ) as target:  # fmt: skip
        target.write(values)


def digest(folder: Path) -> dict[str, str]:
    """Every file that a user would miss or wonder at; locks are none."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def is_one_line(done: Outcome) -> None:
    assert done.code == 1, (done.out, done.err)
    assert done.out == ""
    assert done.err.startswith("urbandelta: error: ")
    assert done.err.count("\n") == 1
    assert done.err.endswith("\n")


def check(run: Run, world: SimpleNamespace, words: str, *more: object) -> str:
    """Run a command in which NAMES of the world stand for paths; it must fail well and change nothing."""
    before = digest(world.folder)
    done = run(*(getattr(world, word.lower(), word) if word.isupper() else word for word in words.split()), *more)
    is_one_line(done)
    assert digest(world.folder) == before
    return done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("info NONE", "no such cube"),
        ("windows NONE", "no such cube"),
        ("plan NONE --weights WEIGHTS", "no such cube"),
        ("predict NONE --weights WEIGHTS --out NEW", "no such cube"),
        ("info FOREIGN", "not a readable Icechunk repository"),
        ("info FILE", "is a file"),
        ("info SCORES", "holds scores, not cube"),
        ("predict SCORES --weights WEIGHTS --out NEW", "holds scores, not cube"),
        ("info ftp://host/cube", "unknown kind of URL"),
        ("info s3://", "bucket"),
        ("predict CUBE --weights NONE --out NEW", "no such weights file"),
        ("plan CUBE --weights FOLDER", "no such weights file"),
        ("plan CUBE --weights FILE", "unknown kind of weights file"),
        ("predict CUBE --weights OTHER --out NEW", "weights random are for era ers12ls5"),
        ("plan CUBE --weights OTHER", "weights random are for era ers12ls5"),
        ("windows CUBE --start 2018-06-01 --end 2018-02-01", "empty date range"),
        ("predict CUBE --weights WEIGHTS --out NEW --start 2018-02-01 --end 2018-02-01", "empty date range"),
        ("predict CUBE --weights WEIGHTS --out NEW --start 2030-01-01", "empty date range"),
        ("plan CUBE --weights WEIGHTS --start 2018-05-01 --end 2018-05-20", "no window of 182 days"),
        ("windows CUBE --stride 0", "stride 0"),
        ("predict CUBE --weights WEIGHTS --out NEW --stride -5", "stride -5"),
        ("predict CUBE --weights WEIGHTS --out NEW --tile 0", "tile 0"),
        ("predict CUBE --weights WEIGHTS --out NEW --tile -32", "tile -32"),
        ("predict CUBE --weights WEIGHTS --out NEW --halo -1", "halo -1"),
        ("predict CUBE --weights WEIGHTS --out NEW --workers 0", "workers 0"),
        ("plan CUBE --weights WEIGHTS --workers -2", "workers -2"),
        ("predict CUBE --weights WEIGHTS --out NEW --engine abacus", "unknown engine 'abacus'"),
        ("plan CUBE --weights WEIGHTS --precision fp64", "unknown precision 'fp64'"),
        ("predict CUBE --weights WEIGHTS --out NEW --mask-rule none", "unknown mask rule"),
        ("plan CUBE --weights WEIGHTS --substitute B01", "TARGET=SOURCE"),
        ("plan CUBE --weights WEIGHTS --substitute B99=B01", "no band or stream 'B99'"),
        ("plan CUBE --weights WEIGHTS --accept everything", "cannot accept"),
        ("predict CUBE --weights WEIGHTS --out FOREIGN", "not a readable Icechunk repository"),
        ("predict CUBE --weights WEIGHTS --out FOREIGN --overwrite", "not a readable Icechunk repository"),
        ("predict CUBE --weights WEIGHTS --out FILE", "is a file"),
        ("predict CUBE --weights WEIGHTS --out FILE --overwrite", "is a file"),
        ("predict CUBE --weights WEIGHTS --out CUBE", "holds cube, not scores"),
        ("predict CUBE --weights WEIGHTS --out CUBE --overwrite", "will not be overwritten"),
        ("predict CUBE --weights WEIGHTS --out /proc/nowhere/scores", "/proc/nowhere"),
        ("predict CUBE --weights WEIGHTS --out /proc/scores", "cannot be written"),
        ("predict CUBE --weights WEIGHTS --out SCORES --tile 10", "holds scores of another run"),
        ("export CUBE --to NEW", "holds cube, not scores"),
        ("export NONE --to NEW", "no such scores"),
        ("export SCORES --to NEW --threshold 0", "threshold"),
        ("export SCORES --to NEW --threshold nan", "threshold"),
        ("export SCORES --to FILE", "letter.txt"),
        ("export SCORES --to /proc/maps-of-mine", "/proc/maps-of-mine"),
        ("report CUBE --out NEW", "holds cube, not scores"),
        ("report SCORES --out FOREIGN", "cannot write"),
        ("report SCORES --out NONE/report.html", "cannot write"),
        ("report SCORES --out NEW --cube NONE", "no such cube"),
        ("report SCORES --out NEW --cube SCORES", "holds scores, not cube"),
        ("report SCORES --out NEW --truth FILE", "not a readable"),
        ("report SCORES --out NEW --threshold nan", "threshold"),
        ("simulate CUBE --size 32 --months 1", "exists already"),
        ("simulate SCORES --size 32 --months 1 --overwrite", "will not be overwritten"),
        ("simulate FOREIGN --size 32 --months 1 --overwrite", "not a readable Icechunk repository"),
        ("simulate NEW --era sentinel9", "sentinel9"),
        ("simulate NEW --size -8", "at least 32 pixels"),
        ("simulate NEW --size 32 --months 0", "at least one month"),
        ("simulate NEW --size 32 --months 1 --cloudiness nan", "cloudiness"),
        ("simulate NEW --size 32 --months 1 --looks -1", "look"),
        ("simulate NEW --size 32 --months 1 --start 99999-01-01", "start"),
        ("demo --out NEW --era sentinel9", "sentinel9"),
        ("demo --out NEW --size 0", "at least 32 pixels"),
        ("weights import WEIGHTS --out OTHER", "exists"),
        ("weights import WEIGHTS --out NONE", "safetensors"),
        ("weights verify NONE", "no such weights file"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line_and_changes_nothing(run, world, words, message):
    if words.startswith("report SCORES --out NONE"):
        words = words.replace("NONE/report.html", str(world.none / "report.html"))
    assert message in check(run, world, words)


def test_empty_names_of_stores_are_refused(run, world):
    assert "empty" in check(run, world, "info", "")
    assert "empty" in check(run, world, "predict CUBE --weights WEIGHTS --out", "")
    assert "engine ''" in check(run, world, "plan CUBE --weights WEIGHTS --engine", "")
    assert "TARGET=SOURCE" in check(run, world, "plan CUBE --weights WEIGHTS --substitute", "")
    assert "no name of a file" in check(run, world, "report SCORES --out", "")


# ---------------------------------------------------------------- weights


def damaged_weights(whole: bytes) -> dict[str, bytes]:
    return {
        "cut": whole[: len(whole) // 2],
        "cut in the header": whole[:5],
        "empty": b"",
        "zeros": bytes(200),
        "one bit": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
        "pickle": pickle.dumps({"weights": [1.0]}),
    }


@pytest.mark.parametrize("kind", list(damaged_weights(b"x" * 300)))
@pytest.mark.parametrize("suffix", [".safetensors", ".hdf5"])
def test_damaged_weights(run, world, tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(damaged_weights(world.weights.read_bytes())[kind])
    assert str(path) in check(run, world, "predict CUBE --out NEW --weights", path)
    assert str(path) in check(run, world, "weights verify", path)
    assert str(path) in check(run, world, "weights import", path, "--out", tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".pth", ".npy"])
def test_pickles_are_never_opened(run, world, tmp_path, suffix):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps(Trap()))
    for words in ("weights show", "plan CUBE --weights"):
        assert "unknown kind of weights file" in check(run, world, words, path)
    path = path.rename(path.with_suffix(".safetensors"))
    assert "cannot be read as safetensors" in check(run, world, "weights show", path)
    assert not (tmp_path / "sprung").exists()


def test_hdf5_that_holds_no_network(run, world, tmp_path):
    path = tmp_path / "other.h5"
    for content in ({}, {"model_weights": 3}, {"model_weights/a/kernel": np.zeros((3, 3, 4))}):
        with h5py.File(path, "w") as file:
            for name, value in content.items():
                file[name] = value
        assert str(path) in check(run, world, "weights verify", path)


# ---------------------------------------------------------------- damaged stores


@pytest.mark.parametrize("part", ["manifests", "snapshots", "chunks", "refs"])
@pytest.mark.parametrize("how", ["cut", "gone", pytest.param("noise", marks=pytest.mark.slow)])
def test_damaged_stores(run, world, tmp_path, part, how):
    for store, commands in (
        ("cube", ("info STORE", "plan STORE --weights WEIGHTS", "predict STORE --weights WEIGHTS --out NEW")),
        ("scores", ("export STORE --to NEW", "report STORE --out NEW --cube CUBE")),
    ):
        world.store = tmp_path / store
        shutil.copytree(getattr(world, store), world.store)
        for path in (world.store / part).rglob("*"):
            if path.is_file():
                damage(path, how)
        for words in commands:
            assert str(world.store) in check(run, world, words)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(np.random.default_rng(0).bytes(len(content)))


# ---------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--into CUBE --source-crs EPSG:32633", "EPSG:32633"),
        ("--into CUBE --source-crs EPSG:999999", "EPSG:999999"),
        ("--into CUBE --era ers12ls5", "is a cube of era s12"),
        ("--into NEW", "no such cube yet"),
        ("--into NEW --era s12", "give its grid"),
        ("--into NEW --era sentinel9 --grid native", "unknown era"),
        ("--into SCORES", "holds scores, not cube"),
        ("--into FOREIGN", "not a readable Icechunk repository"),
        ("--into FILE", "is a file"),
        ("--into CUBE --scale nan", "scale"),
        ("--into CUBE --scale 0", "scale"),
        ("--into CUBE --offset inf", "offset"),
        ("--into CUBE --merge-within -1", "merge"),
        ("--into CUBE --merge-within nan", "merge"),
        ("--into CUBE --only B99", "B99"),
        ("--into CUBE --view-as float99", "float99"),
        ("--into NEW --era s12 --bbox 10 50 9 51", "bo"),
        ("--into NEW --era s12 --bbox nan 50 9 51", "bo"),
        ("--into NEW --era s12 --bbox 3 45.1 3.01 45.2 --pixel-m 0", "pixel size"),
        ("--into NEW --era s12 --bbox 3 45.1 3.01 45.2 --pixel-m nan", "pixel size"),
        ("--into NEW --era s12 --bbox 3 45.1 3.01 45.2 --pixel-m 1e-6", "larger than"),
        ("--into NEW --era s12 --bbox 3 45.1 3.01 45.2 --crs EPSG:4326", "EPSG:4326"),
        ("--into NEW --era s12 --bbox 60 45.1 60.01 45.2", "none of 1 acquisitions reaches"),
        ("--into NEW --era s12 --aoi FILE", "letter.txt"),
        ("--into NEW --era s12 --grid-from NONE", "none"),
    ],
    ids=str,
)
def test_wrong_options_of_an_import(run, world, words, message):
    assert message in check(run, world, f"import geotiff IMAGES {words}", *RADAR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), "S1A_20200101_VH.tif"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "S1A_20200101_VH.tif"),
        (lambda path: path.write_bytes(b""), "S1A_20200101_VH.tif"),
        (lambda path: path.write_bytes(b"no raster"), "S1A_20200101_VH.tif"),
        (lambda path: path.unlink(), "VH"),
        (lambda path: write_image(path, bands=2), "2"),
        (lambda path: write_image(path, crs=None), "CRS"),
    ],
    ids=["truncated", "truncated in the header", "empty", "no raster", "band missing", "two bands", "no CRS"],
)
def test_wrong_files_of_an_import(run, world, tmp_path, change, message):
    images = tmp_path / "images"
    shutil.copytree(world.images, images)
    change(images / "S1A_20200101_VH.tif")
    assert message in check(run, world, "import geotiff", images, "--into", world.cube, *RADAR)
    if message != "VH":  # a new cube may well hold one band
        check(run, world, "import geotiff", images, "--into", world.new, *RADAR, "--era", "s12", "--grid", "native")


@pytest.mark.parametrize("kind", ["eopatch", "geotiff", "netcdf"])
def test_sources_that_hold_nothing(run, world, tmp_path, kind):
    options = (*("--into", world.cube), *RADAR[:8])
    for source in (world.none, tmp_path, world.file):
        assert str(source) in check(run, world, f"import {kind}", source, *options)


def test_netcdf_that_is_none(run, world, tmp_path):
    for number, content in enumerate((b"CDF\x01rest", b"\x89HDF\r\n\x1a\nrest", b"")):
        path = tmp_path / f"{number}.nc"
        path.write_bytes(content)
        assert str(path) in check(run, world, "import netcdf", path, "--into", world.cube, *RADAR[:8])


def test_an_eopatch_with_pickled_objects_is_refused(run, world, tmp_path):
    folder = tmp_path / "20200101T100000" / "data"
    folder.mkdir(parents=True)
    np.save(folder / "L1_GND.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder.parent / "dataMask.npy", np.ones((1, 20, 24, 1), bool))
    box = ("--source-bounds", 500_000, 5_000_000, 500_240, 5_000_200, "--source-crs", "EPSG:32631", "--valid-band", "")
    assert "L1_GND" in check(run, world, "import eopatch", folder.parent, "--into", world.cube, *RADAR[:8], *box)


def test_another_image_of_the_same_time_is_refused(run, world, tmp_path):
    images, cube = tmp_path / "images", tmp_path / "cube"
    shutil.copytree(world.images, images)
    shutil.copytree(world.cube, cube)
    assert run("import", "geotiff", images, "--into", cube, *RADAR).code == 0
    with rasterio.open(images / "S1A_20200101_VV.tif", "r+") as target:
        target.write(target.read() * 2)
    before = digest(cube)
    done = run("import", "geotiff", images, "--into", cube, *RADAR)
    is_one_line(done)
    assert "already holds" in done.err
    assert digest(cube) == before
