"""`init` and `replay` through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command import Run, runner

from urbandelta.monitor import load_monitor
from urbandelta.store import Cube
from urbandelta.weights import Weights, save_weights

BOX = ("--bbox", "5.38", "50.54", "5.40", "50.55")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(capfd)


def test_init_writes_a_file_that_other_commands_take(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "my town.yaml"
    done = run("init", path, *BOX, "--archive", "none", "--start", "2019-01-01")
    assert done.code == 0, done.err
    assert "my-town, 117 x 146 px of 10 m" in done.out
    assert "urbandelta update" in done.err
    assert load_monitor(path).store == "my-town"
    refused = run("update", path)
    assert refused.code == 1
    assert "holds no acquisition yet; import some" in refused.err


def test_init_keeps_what_is_there(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "town.yaml"
    assert run("init", path, *BOX, "--json").document()["name"] == "town"
    text = path.read_text()
    again = run("init", path, *BOX)
    assert again.code == 1
    assert "is there already" in again.err
    assert path.read_text() == text


def test_init_takes_polygons_beside_the_file(tmp_path: Path, run: Run) -> None:
    ring = [[5.38, 50.54], [5.40, 50.54], [5.40, 50.55], [5.38, 50.54]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (tmp_path / "monitors").mkdir()
    path = tmp_path / "monitors" / "old.yaml"
    done = run("init", path, "--aoi", tmp_path / "area.geojson", "--era", "ers12ls5")
    assert done.code == 0, done.err
    assert load_monitor(path).aoi.file == "../area.geojson"
    assert load_monitor(path).source.kind == "none"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "--bbox"),
        ((*BOX, "--aoi", "x.gpkg"), 2, "--bbox"),
        (("--bbox", "5.4", "50.54", "5.38", "50.55"), 1, "empty or inverted"),
        (("--aoi", "nowhere.gpkg"), 1, "no such file"),
        ((*BOX, "--era", "s3"), 1, "unknown era"),
        ((*BOX, "--archive", "attic"), 1, "unknown archive"),
        ((*BOX, "--era", "ers12ls5", "--archive", "earth-search"), 1, "has nothing of era ers12ls5"),
        ((*BOX, "--start", "May"), 2, "YYYY-MM-DD"),
        ((*BOX, "--name", "../up"), 1, "name"),
    ],
)
def test_init_writes_nothing_that_makes_no_sense(
    tmp_path: Path, run: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    done = run("init", tmp_path / "town.yaml", *words)
    assert (done.code, message in done.err) == (code, True), done.err
    assert not (tmp_path / "town.yaml").exists()


def test_replay_of_an_update(
    tmp_path: Path, run: Run, make_cube: Callable[..., Cube], make_weights: Callable[..., Weights]
) -> None:
    source = make_cube(days=160, every=5)
    save_weights(make_weights(), tmp_path / "w.safetensors")
    run("init", tmp_path / "town.yaml", *BOX, "--archive", "none", "--start", "2018-01-01")
    content = yaml.safe_load((tmp_path / "town.yaml").read_text())
    content |= {"weights": "w.safetensors", "products": {"rasters": False, "report": False, "events": ["geojson"]}}
    content["predict"] = {"tile": 12, "halo": 4}
    (tmp_path / "town.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(source.url, tmp_path / "town" / "cube")
    manifest = run("update", tmp_path / "town.yaml", "--json").document()["manifest"]
    done = run("replay", manifest, "--json").document()
    assert (done["equal"], done["scores"]) == (True, "equal")
    values = json.loads(Path(manifest).read_text())
    values["scores"]["sha256"] = "0" * 64
    Path(manifest).write_text(json.dumps(values))
    other = run("replay", manifest, "--into", tmp_path / "kept")
    assert other.code == 1
    assert "DIFFERENT: scores different" in other.out
    assert (tmp_path / "kept" / "scores").is_dir()
