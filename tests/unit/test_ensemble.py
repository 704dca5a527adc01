import numpy as np
import numpy.testing as npt
import pytest
import rasterio

import urbandelta as ud
from urbandelta import ensemble as module
from urbandelta.ensemble import RULES, combine, combine_scores
from urbandelta.errors import ConfigError, StoreError
from urbandelta.grid import Grid
from urbandelta.products import export_cogs, score_maps, spread_of_maximum
from urbandelta.scores import create_scores, open_scores
from urbandelta.types import Window

GRID = Grid.from_bounds((500000, 5000000, 500900, 5000700), "EPSG:32631", (70, 90))
START = np.datetime64("2020-01-01T10:00", "ns")
DAY = np.timedelta64(1, "D")


def windows(count=5, first=START, every=5):
    return [Window(first + every * i * DAY, first + (every * i + 180) * DAY, 41, i, i + 40) for i in range(count)]


def values(seed, count=5):
    scores = np.random.default_rng(seed).random((count, *GRID.shape)).astype(np.float32)
    scores[:, 3, seed] = np.nan
    return scores


def store(folder, seed, *, grid=GRID, made=None, complete=True, era="s12"):
    made = windows() if made is None else made
    writer = create_scores(
        str(folder / f"scores{seed}"),
        grid=grid,
        windows=made,
        chunks=(2, 32, 32),
        attributes={
            "era": era,
            "weights_name": f"fold{seed}",
            "weights_sha256": f"{seed:064}",
            "identity": {"n": seed},
        },
    )
    writer.add(0, slice(None), slice(None), values(seed, len(made))[:, : grid.height, : grid.width])
    if complete:
        writer.finish()
    return writer.url


def test_rules_by_hand():
    members = np.array([[0.1, 0.5], [0.2, 0.5], [0.9, 0.5]], np.float32)
    spread = np.float32(np.std([0.1, 0.2, 0.9]))
    logits = np.log([0.1 / 0.9, 0.2 / 0.8, 0.9 / 0.1])
    expected = {"mean": 0.4, "median": 0.2, "max": 0.9, "mean-logit": 1 / (1 + np.exp(-logits.mean()))}
    assert set(expected) == set(RULES)
    for rule, value in expected.items():
        score, deviation = combine(members, rule)
        assert score.dtype == deviation.dtype == np.float32
        npt.assert_allclose(score, [value, 0.5], rtol=1e-6)
        npt.assert_allclose(deviation, [spread, 0], rtol=1e-6, atol=1e-9)


def test_a_sure_member_does_not_make_logits_infinite():
    score, _ = combine(np.array([[0.0], [1.0], [1.0]]), "mean-logit")
    assert np.isfinite(score).all()
    npt.assert_allclose(combine(np.array([[0.0], [1.0]]), "mean-logit")[0], 0.5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_pixel_that_one_member_lacks_has_no_score(rule):
    score, spread = combine(np.array([[0.5, np.nan], [0.5, 0.9]]), rule)
    npt.assert_array_equal(np.isnan(score), [False, True])
    npt.assert_array_equal(np.isnan(spread), [False, True])


def test_stores_are_combined(tmp_path):
    urls = [store(tmp_path, seed) for seed in (1, 2, 3)]
    told = []
    made = ud.combine_scores(urls, out=tmp_path / "out", rule="median", progress=lambda *what: told.append(what))
    score, spread = combine(np.stack([values(seed) for seed in (1, 2, 3)]), "median")
    npt.assert_array_equal(made["score"], score)
    npt.assert_array_equal(made["spread"], spread)
    assert made["spread"].dtype == np.float32
    assert np.isnan(made["score"][:, 3, [1, 2, 3]]).all()
    npt.assert_array_equal(made["window_start"], open_scores(urls[0])["window_start"])
    assert made.attrs["complete"]
    assert made.attrs["rule"] == "median"
    assert made.attrs["count"] == 3
    assert [item["weights_name"] for item in made.attrs["members"]] == ["fold1", "fold2", "fold3"]
    assert [item["weights_sha256"][-1] for item in made.attrs["members"]] == ["1", "2", "3"]
    assert told[-1][:2] == (1, 1)
    again = combine_scores(urls, out=tmp_path / "out", rule="median")
    assert again.attrs["snapshot"] == made.attrs["snapshot"]


def test_a_stopped_combination_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    urls = [store(tmp_path, seed) for seed in (1, 2)]
    expected = combine_scores(urls, out=tmp_path / "calm")["score"].values

    def stop(done, total, _message):
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        combine_scores(urls, out=tmp_path / "out", progress=stop)
    left = []
    made = combine_scores(urls, out=tmp_path / "out", progress=lambda done, *_: left.append(done))
    assert left == [2, 3, 4]
    npt.assert_array_equal(made["score"], expected)


def test_what_differs_is_named(tmp_path):
    one = store(tmp_path, 1)
    smaller = Grid.from_bounds((500000, 5000000, 500800, 5000700), "EPSG:32631", (70, 80))
    for seed, difference, options in (
        (2, "grid", {"grid": smaller}),
        (3, "windows: 5 and 4", {"made": windows(4)}),
        (4, "window start 0", {"made": windows(first=START + DAY)}),
        (5, "era", {"era": "ers12ls5"}),
    ):
        with pytest.raises(StoreError, match=f"differ in their .*{difference}"):
            combine_scores([one, store(tmp_path, seed, **options)], out=tmp_path / "out")
    with pytest.raises(StoreError, match="incomplete"):
        combine_scores([one, store(tmp_path, 6, complete=False)], out=tmp_path / "out")
    with pytest.raises(StoreError, match="same scores"):
        combine_scores([one, one], out=tmp_path / "out")
    with pytest.raises(ConfigError, match="at least two"):
        combine_scores([one], out=tmp_path / "out")
    with pytest.raises(ConfigError, match="choose one of"):
        combine_scores([one, one], out=tmp_path / "out", rule="vote")
    assert not (tmp_path / "out").exists()


def test_another_rule_is_another_run(tmp_path):
    urls = [store(tmp_path, seed) for seed in (1, 2)]
    combine_scores(urls, out=tmp_path / "out")
    with pytest.raises(StoreError, match="rule"):
        combine_scores(urls, out=tmp_path / "out", rule="max")
    combine_scores(urls, out=tmp_path / "out", rule="max", overwrite=True)
    npt.assert_array_equal(open_scores(str(tmp_path / "out"))["score"], np.stack([values(1), values(2)]).max(axis=0))


def test_spread_of_the_maximum_is_exported(tmp_path):
    made = combine_scores([store(tmp_path, seed) for seed in (1, 2)], out=tmp_path / "out")
    maps = score_maps(made)
    at = made["score"].fillna(-1).argmax("window")
    expected = made["spread"].isel(window=at).values
    npt.assert_array_equal(spread_of_maximum(made, maps), expected)
    told = []
    done = export_cogs(made, tmp_path / "maps", which="maps", progress=lambda *what: told.append(what[:2]))
    assert told[-1] == (7, 7)
    assert "spread_max.tif" in {path.name for path in done.written}
    with rasterio.open(tmp_path / "maps" / "spread_max.tif") as file:
        npt.assert_array_equal(file.read(1), expected)
        assert file.tags()["rule"] == "mean"
