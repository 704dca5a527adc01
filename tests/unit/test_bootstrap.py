from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.area_accuracy import area_accuracy, stratified_sample
from urbandelta.bootstrap import block_numbers, block_table, draws, interval, score_edges, score_intervals
from urbandelta.metrics import average_precision, counts_at, tally, tally_roc_auc


def scene(seed: int, side: int = 96, spot: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth that are constant over squares of `spot` pixels: as dependent as buildings are."""
    rng = np.random.default_rng(seed)
    coarse_truth = rng.random((side // spot, side // spot)) < 0.2
    coarse_score = np.clip(np.where(coarse_truth, 0.6, 0.3) + rng.normal(0, 0.2, coarse_truth.shape), 0, 1)
    return np.kron(coarse_score, np.ones((spot, spot))), np.kron(coarse_truth, np.ones((spot, spot))) > 0


def found(scores, truth, block_px, **options):
    pixels = tally(scores, truth)
    edges = score_edges(pixels, [0.5])
    blocks = block_numbers(np.ones(truth.shape, bool), block_px)
    table = block_table(scores.ravel(), truth.ravel(), blocks, edges)
    return score_intervals([table], edges, 0.5, **{"rounds": 200, "seed": 1} | options)


def test_blocks_partition_the_compared_pixels():
    compared = np.ones((5, 7), bool)
    compared[:4, :4] = False
    numbers = block_numbers(compared, 4)
    npt.assert_array_equal(numbers, [0] * 12 + [1] * 4 + [2] * 3)


def test_binned_measures_are_close_to_exact_ones_and_counts_are_exact():
    rng = np.random.default_rng(0)
    truth = rng.random(30_000) < 0.05
    scores = np.clip(rng.normal(np.where(truth, 0.6, 0.3), 0.2), 0, 1)
    pixels = tally(scores, truth)
    edges = score_edges(pixels, [0.5])
    table = block_table(scores, truth, np.zeros(truth.size, np.int64), edges)
    binned = tally(np.repeat(edges, (table.changed + table.unchanged)[0].astype(int)).clip(-1), np.concatenate(
        [np.arange(int(c + u)) < c for c, u in zip(table.changed[0], table.unchanged[0], strict=True)]))  # fmt: skip
    assert counts_at(binned, 0.5) == counts_at(pixels, 0.5)
    assert tally_roc_auc(binned) == pytest.approx(tally_roc_auc(pixels), abs=1e-3)
    assert average_precision(binned) == pytest.approx(average_precision(pixels), abs=3e-3)


def test_blocks_give_wider_intervals_than_pixels_where_neighbours_agree():
    scores, truth = scene(3)
    single, blocks = found(scores, truth, 1), found(scores, truth, 16)
    assert np.diff(blocks["f1"]) > 3 * np.diff(single["f1"])
    low, high = blocks["f1"]
    assert low < counts_at(tally(scores, truth), 0.5).f1 < high


def test_most_intervals_hold_the_truth_of_the_whole_population():
    expected = np.mean([counts_at(tally(*scene(seed, side=96)), 0.5).f1 for seed in range(200)])
    held = 0
    for seed in range(40):
        low, high = found(*scene(seed + 1000), 16, rounds=100)["f1"]
        held += low <= expected <= high
    assert held >= 33


def test_the_same_seed_gives_the_same_interval():
    scores, truth = scene(3)
    assert found(scores, truth, 16) == found(scores, truth, 16)
    assert found(scores, truth, 16) != found(scores, truth, 16, seed=2)


def test_one_block_has_no_interval():
    scores, truth = scene(3)
    assert np.isnan(found(scores, truth, 1000)["f1"]).all()
    assert np.isnan(interval([np.nan, 1.0])).all()


def test_sites_are_drawn_whole_then_their_blocks():
    rounds = list(draws([3, 5], rounds=300, seed=0))
    totals = {(int(a.sum()), int(b.sum())) for a, b in rounds}
    assert totals == {(6, 0), (3, 5), (0, 10)}
    assert all(int(a.sum()) == 4 for (a,) in draws([4], rounds=5, seed=0))


def test_a_stratified_sample_estimates_the_area_without_bias():
    rng = np.random.default_rng(5)
    flagged = rng.random(20_000) < 0.1
    truth = np.where(flagged, rng.random(20_000) < 0.7, rng.random(20_000) < 0.02)
    inside, areas = 0, [int(flagged.sum()), int((~flagged).sum())]
    for seed in range(60):
        at = stratified_sample((~flagged).astype(np.int64), 150, seed=seed)
        assert len(at) == 300
        matrix = [[int((truth[at] == t)[flagged[at] == f].sum()) for t in (True, False)] for f in (True, False)]
        low, high = area_accuracy(matrix, areas).areas[0].interval
        inside += low <= truth.sum() <= high
    assert inside >= 51
