"""Intervals of measures by resampling blocks of pixels, and sites, instead of pixels.

Pixels of one building are right or wrong together: an interval from resampled pixels would be far too narrow. Square
blocks that are larger than what is built at once are nearly independent, and sites are more so; both are drawn with
replacement, sites first, then blocks within each drawn site.

References
----------
.. [1] Lahiri, Resampling Methods for Dependent Data (2003), chapter 12
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.metrics import Counts, Tally, average_precision, tally_roc_auc
from urbandelta.types import Array, BoolArray

__all__ = ["BlockTable", "block_numbers", "block_table", "draws", "interval", "score_edges", "score_intervals"]

EDGES = 512
"""Bins in which scores are resampled; at 512 an area under a curve moves by less than 0.001."""
FEW_BLOCKS = 20
"""With fewer blocks than this an interval is a guess."""


@dataclass(frozen=True, eq=False)
class BlockTable:
    """Scores of one site by block: pixels in bins of score, changed and unchanged, (block, bin) each."""

    changed: npt.NDArray[np.float64]
    unchanged: npt.NDArray[np.float64]


def block_numbers(compared: BoolArray, block_px: int) -> npt.NDArray[np.int64]:
    """Number of the square block of each compared pixel, counted from 0 over blocks that hold any; shape (pixel,)."""
    rows, columns = np.nonzero(compared)
    across = -(-compared.shape[1] // block_px)
    _, numbers = np.unique(rows // block_px * across + columns // block_px, return_inverse=True)
    return numbers.astype(np.int64)


def score_edges(pixels: Tally, thresholds: Sequence[float]) -> npt.NDArray[np.float64]:
    """Lower edges of up to `EDGES` bins with about equal numbers of changed and of all pixels; thresholds are edges."""
    edges = [np.asarray([value for value in thresholds if np.isfinite(value)], np.float64)]
    for number in (pixels.changed, pixels.changed + pixels.unchanged):
        reached = np.cumsum(number)
        if reached.size and reached[-1]:
            wanted = np.linspace(0, reached[-1], EDGES // 2, endpoint=False)
            edges.append(pixels.values[np.searchsorted(reached, wanted, side="right").clip(0, reached.size - 1)])
    return np.unique(np.concatenate([[-np.inf], *edges]))


def block_table(
    scores: Array, changed: BoolArray, blocks: npt.NDArray[np.int64], edges: npt.NDArray[np.float64]
) -> BlockTable:
    """Count the pixels (pixel,) of one site by block and bin."""
    at = np.searchsorted(edges, scores.astype(np.float64), side="right") - 1
    number = int(blocks.max(initial=-1)) + 1
    cell = blocks * len(edges) + at

    def counted(which: BoolArray) -> npt.NDArray[np.float64]:
        return np.bincount(cell[which], minlength=number * len(edges)).reshape(number, -1).astype(np.float64)

    return BlockTable(counted(changed), counted(~changed))


def draws(blocks_of_site: Sequence[int], *, rounds: int, seed: int) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Yield, for each round, how often each block of each site is drawn: one array (block,) a site.

    A single site is always drawn; a site that is not drawn has zeros, one that is drawn twice has twice its blocks,
    drawn anew each time.
    """
    rng = np.random.default_rng(seed)
    sites = len(blocks_of_site)
    for _ in range(rounds):
        times = np.bincount(rng.integers(0, sites, sites), minlength=sites) if sites > 1 else np.ones(1, np.int64)
        yield [
            np.bincount(rng.integers(0, n, n * int(k)), minlength=n).astype(np.int64)
            if n and k
            else np.zeros(n, np.int64)
            for n, k in zip(blocks_of_site, times, strict=True)
        ]


def interval(samples: npt.ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the resampled values; those that are undefined (no change was drawn) are left out."""
    values = np.asarray(samples, np.float64)
    values = values[np.isfinite(values)]
    if values.size < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_intervals(
    tables: Sequence[BlockTable],
    edges: npt.NDArray[np.float64],
    threshold: float,
    *,
    rounds: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the measures of sites together.

    Parameters
    ----------
    tables : sequence of BlockTable
        One a site.
    edges : ndarray, shape (bin,)
        Lower edges of the bins; the threshold is one of them, so counts are exact. Areas under curves are of binned
        scores.
    threshold : float
    rounds, seed : int

    Returns
    -------
    dict
        precision, recall, f1, iou, kappa, roc_auc, pr_auc, each (low, high); NaN if there are fewer than two blocks.
    """
    measures: Mapping[str, Callable[[Counts], float]] = {
        "precision": lambda c: c.precision,
        "recall": lambda c: c.recall,
        "f1": lambda c: c.f1,
        "iou": lambda c: c.iou,
        "kappa": lambda c: c.kappa,
    }
    found: dict[str, list[float]] = {name: [] for name in (*measures, "roc_auc", "pr_auc")}
    first = int(np.searchsorted(edges, threshold))
    sizes = [len(table.changed) for table in tables]
    if sum(sizes) < 2:
        return {name: (float("nan"), float("nan")) for name in found}
    for times in draws(sizes, rounds=rounds, seed=seed):
        changed, unchanged = (
            np.sum([t @ getattr(table, name) for t, table in zip(times, tables, strict=True)], axis=0)
            for name in ("changed", "unchanged")
        )
        hits, false_alarms = int(changed[first:].sum()), int(unchanged[first:].sum())
        counts = Counts(hits, int(changed.sum()) - hits, false_alarms, int(unchanged.sum()) - false_alarms)
        for name, measure in measures.items():
            found[name].append(measure(counts))
        drawn = Tally(edges, changed.astype(np.int64), unchanged.astype(np.int64), edges, exact=False)
        found["roc_auc"].append(tally_roc_auc(drawn))
        found["pr_auc"].append(average_precision(drawn))
    return {name: interval(values) for name, values in found.items()}
