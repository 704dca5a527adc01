"""Data sets of the published scripts through the command line: stacked tiles, results, window lists."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import rasterio
from command import runner
from tfrecord_files import example, write, write_metadata

from urbandelta.crc32c import crc32c
from urbandelta.store import open_scores

BOX = ("--source-bounds", 3988110, 3058440, 3988350, 3058680, "--source-crs", "EPSG:3035")


@pytest.fixture
def run(capfd):
    return runner(capfd)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """One tile of 8 px, a step every 10 days for two years."""
    folder = tmp_path_factory.mktemp("stack")
    rng = np.random.default_rng(5)
    write_metadata(folder, tile=8)
    records, images = [], {"SAR_ascending": 1, "SAR_descending": 1, "OPT": 7}
    shown = {name: np.zeros((8, 8, bands), np.float32) for name, bands in images.items()}
    for step in range(72):
        name = list(images)[step % 3]
        shown = shown | {name: rng.random(shown[name].shape, np.float32)}
        records.append(example(shown | {"Timestamp": np.float64(800_000_000 + 864_000 * step)}))
    write(folder / "0_0.tfrecords", records, checksum=crc32c)
    return folder


def test_stacked_tiles_to_scores_and_back(run, stack, tmp_path):
    cube, scores = tmp_path / "cube", tmp_path / "scores"
    words = ("import", "tfrecord", stack, "--into", cube, "--era", "ers12ls5", *BOX)
    listed = run(*words, "--dry-run", "--json").document()
    assert {name: len(times) for name, times in listed.items()} == {"ers_asc": 24, "ers_dsc": 24, "optical": 24}
    assert "would go onto 8 x 8 px" in run(*words, "--dry-run").out
    assert not cube.exists()

    report = run(*words, "--json").document()
    assert {name: part["added"] for name, part in report["streams"].items()} == dict.fromkeys(listed, 24)
    assert (report["steps"], report["still_steps"]) == (72, 0)
    again = run(*words)
    assert "0 acquisitions added to optical, 24 were there already" in again.out
    assert f"--start {report['start']}" in again.out

    published = run("windows", cube, "--csv")
    assert published.out.count("\n") == 10
    windows = tmp_path / "windows.csv"
    windows.write_text("".join(published.out.splitlines(keepends=True)[1:2]).replace("1,", "0,", 1))
    assert len(run("windows", cube, "--like", windows, "--json").document()) == 1
    assert run("windows", cube, "--like", windows, "--stride", 2).code == 2
    lost = run("windows", cube, "--like", windows, "--start", "1995-06-01", "--end", "1995-08-01")
    assert lost.code == 1
    assert "1 of 1 listed windows are not runs of these" in lost.err

    results = np.random.default_rng(6).random((1, 8, 8), np.float32)
    np.save(tmp_path / "results.npy", results)
    importing = (
        "import",
        "scores",
        tmp_path / "results.npy",
        "--windows",
        windows,
        "--out",
        scores,
        "--era",
        "ers12ls5",
    )
    assert "does not say where it lies" in run(*importing).err
    summary = run(*importing, "--grid-from", cube, "--json").document()
    assert (summary["windows"], summary["tiles"], summary["covered"]) == (1, 1, 1)
    assert "all was there already" in run(*importing, "--grid-from", cube).out
    assert open_scores(str(scores)).attrs["cube_url"] == str(cube)
    assert run("export", scores, "--to", tmp_path / "maps").code == 0
    with rasterio.open(tmp_path / "maps" / "score_max.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), results[0])
        assert raster.crs.to_epsg() == 3035
    assert run("report", scores, "--out", tmp_path / "report.html").code == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "length", "bomb"])
def test_damage_ends_in_one_line_and_leaves_no_cube(run, stack, tmp_path, damage):
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "metadata.json").write_text((stack / "metadata.json").read_text())
    content = bytearray(gzip.decompress((stack / "0_0.tfrecords").read_bytes()))
    if damage == "flip":
        content[200] ^= 4
    if damage == "length":
        content[:8] = (2**40).to_bytes(8, "little")
    if damage == "bomb":
        content = bytearray(2**26)
    packed = gzip.compress(content, 1)
    (folder / "0_0.tfrecords").write_bytes(packed[:300] if damage == "cut" else packed)
    outcome = run("import", "tfrecord", folder, "--into", tmp_path / "cube", "--era", "ers12ls5", *BOX)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "0_0.tfrecords" in outcome.err
    assert not (tmp_path / "cube").exists()
