"""`evaluate` and `observation-loss` on a small simulated cube with the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from command import runner


@pytest.fixture
def run(capfd):
    return runner(capfd)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Cube, scores and truth; made in the test's process, without the command line."""
    from urbandelta.infer import predict
    from urbandelta.simulate import simulate, write_truth
    from urbandelta.store import create_cube

    folder = tmp_path_factory.mktemp("evaluate")
    scene = simulate("s12", size=48, months=10, seed=301)
    cube = create_cube(str(folder / "cube"), era="s12", grid=scene.grid)
    for name in scene.era.stream_names:
        cube.append(name, scene.acquisitions(name))
    predict(cube, "s12_simulated", stride=20, out=str(folder / "scores"), workers=2)
    return folder / "cube", folder / "scores", write_truth(scene, folder / "cube.truth.tif")


def polygons(truth: Path, path: Path) -> Path:
    """The same truth as polygons with dates, in degrees."""
    with rasterio.open(truth) as source:
        days, transform, crs = source.read(1), source.transform, source.crs
    shapes = [
        (shapely.geometry.shape(shape), str(np.datetime64(int(day), "D")))
        for shape, day in rasterio.features.shapes(days, mask=days >= 0, transform=transform)
    ]
    frame = geopandas.GeoDataFrame({"when": [day for _, day in shapes]}, geometry=[s for s, _ in shapes], crs=crs)
    frame.to_crs("EPSG:4326").to_file(path)
    return path


@pytest.mark.slow
def test_scores_are_judged_beside_baselines(run, chain, tmp_path):
    cube, scores, truth = chain
    document = run(
        "evaluate", scores, truth, "--bootstrap", 50, "--block-px", 12, "--out", tmp_path, "--json"
    ).document()
    methods = document["pooled"]["methods"]
    assert set(methods) == {"scores", "change_vector", "omnibus", "index_difference"}
    assert methods["scores"]["roc_auc"] > 0.9
    assert methods["scores"]["pr_auc"] > max(methods[name]["pr_auc"] for name in methods if name != "scores")
    assert document["pooled"]["dates"]["hits"] == methods["scores"]["counts"]["hits"]
    assert any("simulated" in limit for limit in document["limits"])
    assert json.loads((tmp_path / "evaluation.json").read_text()) == document
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "pr.png", "roc.png", "calibration.png", "dates.png", "map_scores.png"
    }  # fmt: skip
    as_polygons = run(
        "evaluate", scores, polygons(truth, tmp_path / "t.geojson"), "--date-field", "when", "--no-baselines",
        "--bootstrap", 0, "--json",
    ).document()  # fmt: skip
    assert as_polygons["pooled"]["methods"]["scores"]["counts"] == methods["scores"]["counts"]
    assert as_polygons["pooled"]["dates"]["median"] == document["pooled"]["dates"]["median"]
    table = run("evaluate", "--site", f"a={scores},{truth}", "--site", f"b={scores},{truth}", "--no-baselines")
    assert table.code == 0
    assert "pooled:" in table.out
    assert "Olofsson" in table.out
    again = run("evaluate", scores, truth, "--cube", cube, "--sample", 40, "--bootstrap", 0)
    assert "±" in again.out


@pytest.mark.slow
def test_wrong_truth_is_told_in_one_line(run, chain, tmp_path):
    _, scores, truth = chain
    with rasterio.open(truth) as source:
        profile, days = source.profile, source.read(1)
    away = tmp_path / "away.tif"
    with rasterio.open(away, "w", **{**profile, "transform": Affine.translation(1e5, 0) @ profile["transform"]}) as out:
        out.write(days, 1)
    blank = tmp_path / "blank.tif"
    with rasterio.open(blank, "w", **{**profile, "dtype": "uint8", "nodata": 255}) as out:
        out.write(np.full(days.shape, 255, np.uint8), 1)
    shapes = polygons(truth, tmp_path / "t.geojson")
    swapped = tmp_path / "crs.gpkg"
    geopandas.read_file(shapes).set_crs("EPSG:3035", allow_override=True).to_file(swapped)
    for words, message in (
        ((scores, away), "does not touch"),
        ((scores, blank), "says nothing"),
        ((scores, shapes, "--date-field", "year"), "no field 'year'"),
        ((scores, swapped), "does not touch"),
        ((scores, truth, "--threshold", 2), "threshold 2"),
        ((scores, tmp_path / "none.tif"), "no such file"),
    ):
        outcome = run("evaluate", *words)
        assert outcome.code == 1, words
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    assert run("evaluate", scores).code == 2
    assert run("evaluate", "--site", "nonsense").code == 2


@pytest.mark.slow
def test_a_study_predicts_views_and_writes_no_cube(run, chain, tmp_path):
    cube, _, truth = chain
    before = sorted(path.name for path in cube.parent.iterdir())
    document = run(
        "observation-loss", cube, "--weights", "s12_simulated", "--truth", truth, "--rule", "direction:ascending",
        "--stride", 30, "--bootstrap", 20, "--out", tmp_path, "--json",
    ).document()  # fmt: skip
    full, one = document["runs"]
    assert (full["rule"], one["rule"]) == ("full", "direction:ascending")
    assert one["acquisitions"] < full["acquisitions"]
    assert one["substitutions"] == ["s1_dsc=s1_asc"]
    assert {path.name for path in tmp_path.iterdir()} == {"study.json", "table.csv", "observation_loss.png"}
    assert sorted(path.name for path in cube.parent.iterdir()) == before
