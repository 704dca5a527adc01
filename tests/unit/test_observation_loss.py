from __future__ import annotations

import json

import numpy as np
import numpy.testing as npt
import pytest
import rasterio

from urbandelta.cli.progress import json_text
from urbandelta.degrade import parse_rule
from urbandelta.errors import ConfigError
from urbandelta.infer import predict
from urbandelta.observation_loss import study_loss
from urbandelta.observation_loss_report import draw_study, grouped, study_json, write_study_csv


@pytest.fixture(scope="module")
def study(make_cube, make_weights, tmp_path_factory):
    cube = make_cube(clear=True, every=5, days=300)
    truth = tmp_path_factory.mktemp("loss") / "truth.tif"
    values = np.zeros(cube.grid.shape, np.uint8)
    values[4:9, 4:12] = 1
    with rasterio.open(
        truth, "w", driver="GTiff", height=20, width=24, count=1, dtype="uint8", crs=cube.grid.crs,
        transform=cube.grid.affine,
    ) as target:  # fmt: skip
        target.write(values, 1)
    rules = [parse_rule(text) for text in ("full", "drop:0.3", "direction:descending", "sar-only", "drop:0.85")]
    seen = []
    found = study_loss(
        cube, make_weights(), truth, rules=rules, seeds=2, workers=1, stride=20, bootstrap=50, block_px=5,
        threshold=0.5, progress=lambda done, total, _: seen.append(done / total),
    )  # fmt: skip
    assert seen[-1] == 1
    return cube, found


def test_the_full_series_comes_first_and_is_that_of_predict(study, make_weights):
    cube, found = study
    assert [(run.rule.text, run.seed) for run in found.runs] == [
        ("full", 0), ("drop:0.3", 0), ("drop:0.3", 1), ("direction:descending", 0), ("sar-only", 0),
        ("drop:0.85", 0), ("drop:0.85", 1),
    ]  # fmt: skip
    scores = predict(cube, make_weights(), workers=1, stride=20)
    highest = scores.values.max(axis=0)
    truth = np.zeros(cube.grid.shape, bool)
    truth[4:9, 4:12] = True
    assert found.full.counts.hits == ((highest >= 0.5) & truth).sum()
    assert found.full.counts.pixels == found.compared == truth.size
    assert found.full.f1_change in ((0, 0), (pytest.approx(np.nan, nan_ok=True),) * 2)


def test_every_run_is_judged_on_the_same_pixels(study):
    _, found = study
    assert {run.counts.pixels for run in found.runs if run.counts} == {found.compared}
    lost = next(run for run in found.runs if run.rule.name == "direction")
    assert lost.substitutions == ("s1_asc=s1_dsc",)


def test_too_few_observations_are_told_and_do_not_end_the_study(study):
    _, found = study
    failed = [run for run in found.runs if run.error]
    assert {run.rule.text for run in failed} == {"drop:0.85"}
    assert np.isnan(failed[0].f1)


def test_the_study_is_written(study, tmp_path):
    _, found = study
    document = json.loads(json_text(study_json(found)), parse_constant=lambda word: pytest.fail(word))
    assert len(document["runs"]) == 7
    assert document["runs"][0]["counts"]["hits"] == found.full.counts.hits
    assert len(write_study_csv(found, tmp_path / "t.csv").read_text().splitlines()) == 8
    assert draw_study(found, tmp_path / "p.png").stat().st_size > 1000
    npt.assert_array_equal([len(runs) for runs in grouped(found).values()], [1, 2, 1, 1, 2])


def test_options_out_of_range_are_refused(study, make_weights):
    with pytest.raises(ConfigError, match="seeds"):
        study_loss(study[0], make_weights(), "truth.tif", seeds=0)


def test_single_path_weights_need_no_stand_in(study, make_weights, tmp_path):
    cube, found = study
    radar = study_loss(
        cube, make_weights(variant="sar"), found.truth, rules=[parse_rule("direction:ascending")], workers=1, stride=30,
        bootstrap=0,
    )  # fmt: skip
    assert radar.full.substitutions == ()
    assert radar.full.acquisitions == sum(len(cube.times(name)) for name in ("s1_asc", "s1_dsc"))
    assert [run.error for run in radar.runs] == ["", ""]
