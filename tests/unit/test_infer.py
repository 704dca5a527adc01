"""Prediction over cubes: tiles, halos, missing pixels, resumption, contracts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from urbandelta import execute, plan
from urbandelta.assemble import stack
from urbandelta.errors import ConfigError, ContractError, StoreError, TooFewObservations
from urbandelta.infer import predict
from urbandelta.recurrence import frame_mask, score_windows
from urbandelta.runs import prepare_run
from urbandelta.scores import open_scores, resume_scores
from urbandelta.store import Cube
from urbandelta.weights import Weights

Cubes = Callable[..., Cube]
Nets = Callable[..., Weights]
WHOLE = (slice(None), slice(None), slice(None))


def stacked(cube: Cube, steps: np.ndarray) -> np.ndarray:
    streams = []
    for name in cube.streams:
        values, mask = cube.read(name, *WHOLE)
        streams.append((cube.times(name), values, mask == 0))
    return stack(streams, steps)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_predict_equals_windows_scored_one_by_one(make_cube: Cubes, make_weights: Nets, engine: str) -> None:
    cube, weights = make_cube(clear=True), make_weights()
    run = prepare_run(cube, weights, halo=0, tile=64, engine=engine)
    scores = predict(cube, weights, halo=0, tile=64, engine=engine)
    x = stacked(cube, run.plan.steps)
    assert len(run.plan.windows) > 3
    for window, score in zip(run.plan.windows, scores.values, strict=True):
        part = x[window.first : window.last + 1][None]
        # A stream that comes later shows its first value until then, where `stack` has zeros.
        part = np.where(
            part == 0, x[(x != 0).argmax(axis=0), *np.ogrid[: x.shape[1], : x.shape[2], : x.shape[3]]], part
        )
        single = score_windows(part, np.ones(part.shape[:2], bool), weights, engine=engine)[0]
        unseen = np.isnan(score)
        np.testing.assert_allclose(score[~unseen], single[~unseen], rtol=0, atol=2e-6)
        assert not unseen.any()


def test_published_rule_equals_the_published_tiles(make_cube: Cubes, make_weights: Nets) -> None:
    cube, weights = make_cube(), make_weights()
    run = prepare_run(cube, weights, halo=0, tile=8, mask_rule="published")
    scores = predict(cube, weights, halo=0, tile=8, mask_rule="published", workers=3)
    x = stacked(cube, run.plan.steps)
    for window, score in zip(run.plan.windows, scores.values, strict=True):
        for top, left in ((0, 0), (8, 16)):
            part = x[None, window.first : window.last + 1, top : top + 8, left : left + 8]
            single = score_windows(part, frame_mask(part), weights)[0]
            np.testing.assert_allclose(score[top : top + 8, left : left + 8], single, rtol=0, atol=2e-6)


def test_every_worker_count_and_store_gives_the_same_bits(make_cube: Cubes, make_weights: Nets, tmp_path: Path) -> None:
    cube, weights = make_cube(), make_weights()
    options = {"tile": 8, "halo": 4}
    one = predict(cube, weights, workers=1, **options).values
    np.testing.assert_array_equal(predict(cube, weights, workers=3, **options).values, one)
    np.testing.assert_array_equal(predict(cube, weights, out=tmp_path / "s", **options).values, one)


def test_a_wide_halo_leaves_no_seam(make_cube: Cubes, make_weights: Nets) -> None:
    cube, weights = make_cube(shape=(40, 40)), make_weights()
    whole = predict(cube, weights, tile=64, halo=12, stride=20).values
    cut = predict(cube, weights, tile=20, halo=0, stride=20).values
    haloed = predict(cube, weights, tile=20, halo=12, stride=20).values
    assert np.abs(haloed - whole).max() < np.abs(cut - whole).max() / 20


def test_a_pixel_that_a_stream_never_saw_is_nan(make_cube: Cubes, make_weights: Nets) -> None:
    cube, weights = make_cube(blind=(3, 5, 7, 9)), make_weights()
    scores = predict(cube, weights, tile=16, halo=4).values
    assert np.isnan(scores[:, 3:5, 7:9]).all()
    assert np.isnan(scores).sum() == np.isnan(scores[:, 3:5, 7:9]).sum()
    assert not np.isnan(predict(cube, weights, tile=16, halo=4, mask_rule="published").values).any()


def test_resuming_computes_only_what_is_missing(
    make_cube: Cubes, make_weights: Nets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK_PX", 8)
    cube, weights, out = make_cube(), make_weights(), tmp_path / "scores"
    options = {"tile": 8, "halo": 2, "workers": 1}
    expected = predict(cube, weights, **options).values
    blocks = len(prepare_run(cube, weights, tile=8, halo=2).plan.blocks)
    assert blocks >= 4
    score_block = execute._Workspace.score_block
    calls: list[object] = []
    stop_after = 2
    lock = threading.Lock()

    def limited(self: object, block: object, counter: object) -> object:
        with lock:
            calls.append(block)
            if len(calls) > stop_after:
                raise KeyboardInterrupt
        return score_block(self, block, counter)

    monkeypatch.setattr(execute._Workspace, "score_block", limited)
    with pytest.raises(KeyboardInterrupt):
        predict(cube, weights, out=out, **options)
    assert not open_scores(str(out)).attrs["complete"]
    calls.clear()
    stop_after = 1000
    np.testing.assert_array_equal(predict(cube, weights, out=out, **options).values, expected)
    assert len(calls) == blocks - 2
    calls.clear()
    predict(cube, weights, out=out, **options)
    assert not calls
    assert open_scores(str(out)).attrs["complete"]


def test_another_run_is_not_mixed_in(make_cube: Cubes, make_weights: Nets, tmp_path: Path) -> None:
    cube, out = make_cube(), tmp_path / "scores"
    predict(cube, make_weights(seed=1), out=out, tile=16)
    before = open_scores(str(out))["score"].values
    with pytest.raises(StoreError, match="weights_sha256"):
        predict(cube, make_weights(seed=2), out=out, tile=16)
    with pytest.raises(StoreError, match="blend_px"):
        predict(cube, make_weights(seed=1), out=out, tile=16, halo=2)
    np.testing.assert_array_equal(open_scores(str(out))["score"].values, before)
    predict(cube, make_weights(seed=2), out=out, tile=16, overwrite=True)
    assert np.abs(open_scores(str(out))["score"].values - before).max() > 0


def test_a_foreign_folder_is_left_alone(make_cube: Cubes, make_weights: Nets, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StoreError):
            predict(make_cube(), make_weights(), out=tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_provenance_names_everything(make_cube: Cubes, make_weights: Nets, tmp_path: Path) -> None:
    cube, weights = make_cube(), make_weights()
    predict(cube, weights, out=tmp_path / "s", tile=16)
    stored = open_scores(str(tmp_path / "s"))
    assert stored.attrs["weights_sha256"] == weights.sha256
    assert stored.attrs["cube_snapshot"] == cube.snapshot
    assert stored.attrs["parameters"]["tile"] == 16
    assert resume_scores(str(tmp_path / "s"), stored.attrs).done
    assert (stored.time_bounds[:, 0] <= stored.time).all()
    assert stored.n_obs.values.tolist() == [w.count for w in prepare_run(cube, weights, tile=16).plan.windows]


def test_progress_counts_to_the_end(make_cube: Cubes, make_weights: Nets) -> None:
    cube, weights = make_cube(), make_weights()
    seen: list[tuple[int, int]] = []
    predict(cube, weights, tile=16, progress=lambda done, total, _: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == prepare_run(cube, weights, tile=16).plan.window_tiles


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": "2030-01-01"}, ConfigError, "empty date range"),
        ({"start": "2016-01-01", "end": "2017-01-01"}, TooFewObservations, "it holds 2018-01-01 to 2018-0"),
        ({"end": "2018-02-01"}, TooFewObservations, "no window of 182 days holds 35 of the"),
        ({"tile": 0}, ConfigError, "tile 0"),
        ({"halo": -1}, ConfigError, "halo -1"),
        ({"stride": 0}, ConfigError, "stride 0"),
        ({"workers": 0}, ConfigError, "workers 0"),
        ({"mask_rule": "none"}, ConfigError, "expected one of explicit, published"),
        ({"substitutions": ["B01=B02"]}, ConfigError, "replaces nothing"),
        ({"substitutions": ["B01"]}, ConfigError, "write TARGET=SOURCE"),
        ({"substitutions": ["Bxx=B02"]}, ConfigError, "no band or stream 'Bxx'"),
        ({"accepted": ["season"]}, ConfigError, "cannot accept 'season'"),
    ],
)
def test_wrong_options_are_named(
    make_cube: Cubes, make_weights: Nets, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predict(make_cube(), make_weights(), **options)


def test_a_missing_stream_must_be_declared(make_cube: Cubes, make_weights: Nets) -> None:
    cube, weights = make_cube(streams=("s1_asc", "optical"), every=4), make_weights()
    with pytest.raises(ContractError, match="--substitute s1_dsc=s1_asc"):
        predict(cube, weights)
    with pytest.raises(ConfigError, match="neither a number nor a sar stream"):
        predict(cube, weights, substitutions=["s1_dsc=optical"])
    from_other = predict(cube, weights, substitutions=["s1_dsc=s1_asc"], tile=16)
    assert from_other.attrs["substitutions"] == ["s1_dsc=s1_asc"]
    constant = predict(cube, weights, substitutions=["s1_dsc=0"], tile=16)
    assert np.abs(from_other.values - constant.values).max() > 1e-5


def test_weights_of_the_other_era_are_refused(make_cube: Cubes, make_weights: Nets) -> None:
    with pytest.raises(ContractError, match="a cube of era s12, but weights random are for era ers12ls5"):
        predict(make_cube(), make_weights("ers12ls5"))


def test_single_path_networks_need_only_their_streams(make_cube: Cubes, make_weights: Nets) -> None:
    cube = make_cube(streams=("optical",), every=3)
    assert predict(cube, make_weights("s12", "optical"), tile=16).notnull().all()
    with pytest.raises(ContractError, match="needs stream s1_asc"):
        predict(cube, make_weights("s12", "sar"))
