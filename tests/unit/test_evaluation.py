from __future__ import annotations

import json

import geopandas
import numpy as np
import numpy.testing as npt
import pytest
import shapely
import xarray as xr
from report_scene import dataset, small_grid

from urbandelta.cli.progress import json_text
from urbandelta.date_accuracy import date_errors, days_off
from urbandelta.errors import ConfigError, ProductError, TruthError
from urbandelta.evaluation import Options, Site, evaluate, evaluate_sites
from urbandelta.evaluation_plots import draw_plots
from urbandelta.evaluation_report import COLUMNS, area_lines, date_line, notes, rows, to_json, write_csv
from urbandelta.truth import Truth, TruthOptions

MIDDLES = ["2021-04-01", "2021-07-01", "2021-10-01"]
QUIET = Options(baselines=False, bootstrap=50, block_px=4)


def day(text: str) -> int:
    return int(np.datetime64(text, "D").astype(int))


def truth_of(changed: np.ndarray, *, known=None, earliest=None, latest=None, kind="classes") -> Truth:
    none = np.full(changed.shape, -1, np.int32)
    earliest = none if earliest is None else earliest.astype(np.int32)
    return Truth(
        grid=small_grid(*changed.shape),
        changed=changed,
        known=np.ones(changed.shape, bool) if known is None else known,
        earliest=earliest,
        latest=earliest if latest is None else latest.astype(np.int32),
        kind=kind,
        source="truth",
    )


def scene(seed: int = 0, shape: tuple[int, int] = (16, 20)) -> tuple[xr.Dataset, np.ndarray]:
    """Scores of three windows, and a truth that they mostly find."""
    rng = np.random.default_rng(seed)
    changed = np.kron(rng.random((shape[0] // 4, shape[1] // 4)) < 0.3, np.ones((4, 4))) > 0
    values = rng.random((3, *shape)) * 0.3
    values[1] += np.where(changed, 0.6, 0) * (rng.random(shape) < 0.8)
    return dataset(values, MIDDLES), changed


def test_counts_are_of_pixels_that_both_describe():
    scores, changed = scene()
    score = scores["score"].values
    score[:, 0] = np.nan
    known = np.ones(changed.shape, bool)
    known[:, 0] = False
    result = evaluate(scores, truth_of(changed & known, known=known), options=QUIET).pooled
    inside = known & np.isfinite(score).all(axis=0)
    highest = score[:, inside].max(axis=0)
    counts = result.methods["scores"].counts
    assert counts.hits == ((highest >= 0.5) & changed[inside]).sum()
    assert counts.pixels == result.compared == inside.sum()
    assert (result.unknown, result.unscored) == (16, 19)


def test_a_change_that_no_window_spans_is_left_out_and_counted():
    scores, changed = scene()
    dates = np.where(changed, day("2021-06-01"), -1)
    dates[changed & (np.arange(20) < 8)] = day("2015-01-01")
    result = evaluate(scores, truth_of(changed, earliest=dates), options=QUIET).pooled
    assert result.outside == (changed & (np.arange(20) < 8)).sum()
    assert result.changed == changed.sum() - result.outside
    assert result.compared == changed.size - result.outside
    straddling = truth_of(changed, earliest=dates, latest=np.where(changed, day("2030-01-01"), -1))
    with pytest.raises(TruthError, match="both known and scored"):
        evaluate(scores, truth_of(np.ones_like(changed), earliest=np.full(changed.shape, 1)), options=QUIET)
    assert evaluate(scores, straddling, options=QUIET).pooled.changed == 0


def test_dates_are_judged_by_the_span_that_truth_gives():
    npt.assert_array_equal(days_off(np.array([5, 10, 17, 30]), np.array([10] * 4), np.array([20] * 4)), [-5, 0, 0, 10])
    changed = np.ones((2, 4), bool)
    truth = truth_of(changed, earliest=np.full((2, 4), 100), latest=np.full((2, 4), 110))
    estimate = np.array([[90, 105, 111, 140], [-1, 100, 110, 130]], np.int32)
    hits = np.ones((2, 4), bool)
    hits[1, 3] = False
    found = date_errors([(truth, estimate, hits)], tolerance_days=5, block_px=1, rounds=20, seed=0)
    npt.assert_array_equal(np.sort(found.errors), [-10, 0, 0, 0, 1, 30])
    assert (found.count, found.median, found.within) == (6, 0, 4 / 6)
    assert found.mean_absolute == pytest.approx(41 / 6)
    low, high = found.mean_absolute_interval
    assert low <= found.mean_absolute <= high
    assert date_errors([(truth, estimate, ~changed)], tolerance_days=5, block_px=1, rounds=0, seed=0) is None


def test_pooled_counts_are_the_sums_of_the_sites():
    parts = [scene(seed) for seed in (1, 2, 3)]
    sites = [Site(name=f"city {k}", scores=s, truth=truth_of(t)) for k, (s, t) in enumerate(parts)]
    found = evaluate_sites(sites, options=QUIET)
    each = [result.methods["scores"].counts for result in found.sites]
    assert found.pooled.methods["scores"].counts == each[0] + each[1] + each[2]
    assert found.pooled.blocks == sum(result.blocks for result in found.sites)
    assert [row["site"] for row in rows(found)] == ["city 0", "city 1", "city 2", "pooled"]
    with pytest.raises(ConfigError, match="same name"):
        evaluate_sites([sites[0], sites[0]], options=QUIET)


def test_a_census_has_no_sampling_error_and_a_sample_has():
    scores, changed = scene(4, (64, 64))
    truth = truth_of(changed)
    census = evaluate(scores, truth, options=QUIET).pooled
    assert census.area.areas[0].value == pytest.approx(changed.sum() * 0.01, rel=2e-3)
    assert census.area.areas[0].standard_error == 0
    assert "±" not in "".join(area_lines(census))
    drawn = evaluate(scores, truth, options=Options(baselines=False, bootstrap=0, sample=80)).pooled
    assert drawn.area.sample_sizes == (80, 80)
    assert drawn.area.areas[0].standard_error > 0
    assert "±" in area_lines(drawn)[0]


def test_points_stand_for_the_whole_map(tmp_path):
    scores, changed = scene(4, (64, 64))
    grid = small_grid(64, 64)
    flagged = scores["score"].values.max(axis=0) >= 0.5
    rng = np.random.default_rng(0)
    rows_, columns = np.array(
        [pair for mask in (flagged, ~flagged) for pair in rng.permutation(np.argwhere(mask))[:60]]
    ).T  # fmt: skip
    points = geopandas.GeoDataFrame(
        {"built": changed[rows_, columns].astype(int)},
        geometry=shapely.points(grid.x[columns], grid.y[rows_]),
        crs=grid.crs,
    )
    points.to_file(tmp_path / "points.gpkg")
    options = Options(baselines=False, bootstrap=0, truth=TruthOptions(class_field="built"))
    found = evaluate(scores, tmp_path / "points.gpkg", options=options).pooled
    assert found.area_design == "sample of points"
    low, high = found.area.areas[0].interval
    assert low < changed.sum() * 0.01 < high
    assert found.area.mapped_areas[0] == pytest.approx(flagged.sum() * 0.01, rel=2e-3)


def test_json_is_complete_and_has_no_nan():
    scores, changed = scene()
    dates = np.where(changed, day("2021-07-02"), -1)
    found = evaluate(scores, truth_of(changed, earliest=dates), options=QUIET)
    document = json.loads(json_text(to_json(found)), parse_constant=lambda word: pytest.fail(word))
    method = document["pooled"]["methods"]["scores"]
    assert set(method) >= {
        "precision", "recall", "f1", "iou", "kappa", "overall", "roc_auc", "pr_auc", "best_f1", "calibration",
        "intervals", "counts", "roc_curve", "pr_curve", "threshold",
    }  # fmt: skip
    low, high = method["intervals"]["f1"]
    assert low <= method["f1"] <= high
    assert set(document["pooled"]["area"]["classes"]) == {"change", "no_change"}
    assert document["pooled"]["dates"]["hits"] == method["counts"]["hits"]
    assert document["sites"][0]["truth"]["dated"]
    assert "probability" in document["limits"][0]


def test_a_site_without_change_is_still_reported(tmp_path):
    scores, changed = scene()
    found = evaluate(scores, truth_of(np.zeros_like(changed)), options=QUIET)
    assert np.isnan(found.pooled.methods["scores"].counts.f1) or found.pooled.methods["scores"].counts.f1 == 0
    assert any("nothing changed" in note for note in notes(found))
    assert date_line(found.pooled.dates) == "dates: no hit has a true date"
    json.loads(json_text(to_json(found)))
    assert len(draw_plots(found, tmp_path)) == 4


def test_files_are_written(tmp_path):
    scores, changed = scene()
    dates = np.where(changed, day("2021-07-02"), -1)
    found = evaluate(scores, truth_of(changed, earliest=dates), options=QUIET)
    names = {path.name for path in draw_plots(found, tmp_path)}
    assert names == {"pr.png", "roc.png", "calibration.png", "dates.png", "map_site.png"}
    lines = write_csv(found, tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 2


def test_baselines_that_cannot_be_made_are_told_with_the_cause():
    scores, changed = scene()
    scores.attrs["cube_url"] = "/nowhere/cube"
    found = evaluate(scores, truth_of(changed), options=Options(bootstrap=0))
    assert set(found.pooled.methods) == {"scores"}
    assert "/nowhere/cube" in found.maps[0].skipped["change_vector"]
    assert any("no change-vector magnitude" in note for note in notes(found))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 0.0}, ProductError, "threshold 0 is not"),
        ({"threshold": 1.5}, ProductError, "threshold 1.5 is not"),
        ({"tolerance_days": -1}, ConfigError, "tolerance_days"),
        ({"block_px": 0}, ConfigError, "block_px"),
        ({"sample": 1}, ConfigError, "sample"),
    ],
)
def test_options_out_of_range_are_refused(options, error, message):
    scores, changed = scene()
    with pytest.raises(error, match=message):
        evaluate(scores, truth_of(changed), options=Options(baselines=False, **options))


def test_truth_on_another_grid_is_refused():
    scores, _ = scene()
    with pytest.raises(TruthError, match="onto their grid"):
        evaluate(scores, truth_of(np.zeros((4, 4), bool)), options=QUIET)
