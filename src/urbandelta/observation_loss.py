"""What is lost when observations are: the same cube predicted with fewer of them, against the same truth.

All runs are judged on the pixels that the full series could be judged on. A pixel that a poorer series cannot score
counts as not flagged, so a run is not rewarded for seeing less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.bootstrap import block_numbers, draws, interval
from urbandelta.cube_view import CubeView
from urbandelta.date_accuracy import DateErrors, date_errors
from urbandelta.degrade import Rule, Series, degrade, standard_rules
from urbandelta.errors import ConfigError, TooFewObservations
from urbandelta.evaluation import Options, SiteMaps, evaluate
from urbandelta.infer import predict
from urbandelta.metrics import Counts, average_precision, tally, tally_roc_auc
from urbandelta.products import check_threshold, score_maps
from urbandelta.store import Cube, open_cube
from urbandelta.truth import TruthOptions
from urbandelta.types import Progress
from urbandelta.weights import Weights, find_weights

__all__ = ["LossRun", "LossStudy", "cube_series", "study_loss"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossRun:
    """One degraded series. Without a prediction (`error` says why) the measures are NaN or None."""

    rule: Rule
    seed: int
    acquisitions: int
    substitutions: tuple[str, ...]
    windows: int
    unscored: int
    """Judged pixels that this run could not score."""
    counts: Counts | None
    roc_auc: float
    pr_auc: float
    dates: DateErrors | None
    f1_change: tuple[float, float]
    """95 % interval of F1 minus the full series' F1, of blocks drawn alike for both."""
    error: str = ""

    @property
    def f1(self) -> float:
        """F1 at the study's threshold."""
        return self.counts.f1 if self.counts else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class LossStudy:
    """All runs of a study, the full series first."""

    runs: tuple[LossRun, ...]
    cube: str
    weights: str
    truth: str
    threshold: float
    compared: int
    changed: int
    notes: tuple[str, ...]

    @property
    def full(self) -> LossRun:
        """The run that lost nothing."""
        return self.runs[0]


def cube_series(cube: Cube) -> list[Series]:
    """Times and satellites of the streams that a cube holds."""
    return [
        Series(
            cube.era.stream(name),
            cube.times(name),
            tuple(str(platform) for platform in cube.acquisitions(name)["platform"].values),
        )
        for name in cube.streams
    ]


def study_loss(
    cube: Cube | str,
    weights: Weights | str,
    truth: str | Path,
    *,
    rules: Sequence[Rule] | None = None,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    seeds: int = 1,
    threshold: float = 0.5,
    tolerance_days: int = 30,
    truth_options: TruthOptions | None = None,
    block_px: int = 32,
    bootstrap: int = 500,
    progress: Progress | None = None,
    **prediction: Any,
) -> LossStudy:
    """Predict views of a cube that lack observations, and judge each by the same truth. No cube is written.

    Parameters
    ----------
    cube, weights, truth
        As for `predict` and `evaluate`.
    rules : sequence of Rule, optional
        By default those of `standard_rules` with `shares`; the full series always comes first.
    seeds : int
        Runs of each random rule.
    threshold, tolerance_days, truth_options, block_px, bootstrap
        As in `evaluate`.
    **prediction
        Options of `predict` (stride, workers, accepted, ...).

    Raises
    ------
    ConfigError
        If a rule makes no sense for the cube, or an option is out of range.
    """
    check_threshold(threshold)
    if seeds < 1:
        raise ConfigError(f"seeds {seeds}: need at least 1")
    cube = cube if isinstance(cube, Cube) else open_cube(cube)
    weights = weights if isinstance(weights, Weights) else find_weights(weights)
    series = [item for item in cube_series(cube) if item.stream.kind in weights.config.paths]
    if rules is None:
        rules = standard_rules(series, shares)
    planned = [(Rule("full"), 0)]
    planned += [(rule, seed) for rule in rules if rule.name != "full" for seed in range(seeds if rule.random else 1)]
    # Every rule is tried on the times before hours of prediction begin.
    degraded = [degrade(series, rule, seed=seed) for rule, seed in planned]
    judge: _Judge | None = None
    runs: list[LossRun] = []
    for number, ((rule, seed), left) in enumerate(zip(planned, degraded, strict=True)):

        def report(done: int, total: int, _: str, number: int = number, text: str = rule.text) -> None:
            if progress is not None:
                progress(number * 1000 + 1000 * done // max(total, 1), 1000 * len(planned), text)

        options = dict(prediction)
        options["substitutions"] = (*options.get("substitutions", ()), *left.substitutions)
        common = {
            "rule": rule, "seed": seed, "acquisitions": left.acquisitions, "substitutions": left.substitutions,
        }  # fmt: skip
        try:
            scores = predict(CubeView(cube, left.kept), weights, progress=report, **options)
        except TooFewObservations as error:
            if judge is None:
                raise
            runs.append(judge.failure(common, str(error)))
            report(1, 1, "")
            continue
        dataset = _dataset(scores, cube)
        if judge is None:
            evaluated = evaluate(
                dataset,
                truth,
                cube=cube.url,
                options=Options(
                    threshold=threshold,
                    tolerance_days=tolerance_days,
                    truth=truth_options or TruthOptions(),
                    baselines=False,
                    bootstrap=0,
                ),
            )
            judge = _Judge(evaluated.maps[0], tolerance_days, block_px, bootstrap)
        runs.append(judge.run(common, dataset))
    assert judge is not None
    return LossStudy(
        runs=tuple(runs),
        cube=cube.url,
        weights=weights.name,
        truth=str(truth),
        threshold=threshold,
        compared=int(np.count_nonzero(judge.site.compared)),
        changed=int(np.count_nonzero(judge.site.changed)),
        notes=judge.site.notes,
    )


def _dataset(scores: xr.DataArray, cube: Cube) -> xr.Dataset:
    """Scores in memory as a score store would give them."""
    data = scores.to_dataset(name="score")
    data.attrs = {**scores.attrs, "grid": cube.grid.to_json()}
    return data


class _Judge:
    """Judges runs on the pixels of the full series."""

    def __init__(self, site: SiteMaps, tolerance_days: int, block_px: int, rounds: int) -> None:
        self.site = site
        self._tolerance, self._block_px, self._rounds = tolerance_days, block_px, rounds
        self._blocks = block_numbers(site.compared, block_px)
        self._truth = site.changed[site.compared]
        self._full: npt.NDArray[np.int64] | None = None

    def failure(self, common: dict[str, Any], error: str) -> LossRun:
        nan = math.nan
        return LossRun(
            **common, windows=0, unscored=int(self._truth.size), counts=None, roc_auc=nan, pr_auc=nan, dates=None,
            f1_change=(nan, nan), error=error,
        )  # fmt: skip

    def run(self, common: dict[str, Any], scores: xr.Dataset) -> LossRun:
        site = self.site
        maps = score_maps(scores, threshold=site.maps.threshold)
        score = maps.maximum[site.compared]
        unscored = int(np.count_nonzero(np.isnan(score)))
        score = np.nan_to_num(score, nan=0.0)
        flagged = score >= site.maps.threshold
        by_block = self._by_block(flagged)
        if self._full is None:
            self._full = by_block
        pixels = tally(score, self._truth)
        hits = site.changed & (maps.maximum >= site.maps.threshold)
        return LossRun(
            **common,
            windows=scores.sizes["window"],
            unscored=unscored,
            counts=Counts(*(int(number) for number in by_block.sum(axis=0))),
            roc_auc=tally_roc_auc(pixels),
            pr_auc=average_precision(pixels),
            dates=date_errors(
                [(site.truth, maps.change_date, hits)],
                tolerance_days=self._tolerance,
                block_px=self._block_px,
                rounds=0,
                seed=0,
            ),
            f1_change=self._change(by_block, self._full),
        )

    def _by_block(self, flagged: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Hits, misses, false alarms and correct rejections (block, 4)."""
        truth, number = self._truth, int(self._blocks.max()) + 1
        cells = (truth & flagged, truth & ~flagged, ~truth & flagged, ~truth & ~flagged)
        return np.stack([np.bincount(self._blocks[cell], minlength=number) for cell in cells], axis=1).astype(np.int64)

    def _change(self, here: npt.NDArray[np.int64], full: npt.NDArray[np.int64]) -> tuple[float, float]:
        if not self._rounds or len(here) < 2:
            return math.nan, math.nan
        changes = []
        for (times,) in draws([len(here)], rounds=self._rounds, seed=0):
            now, then = (Counts(*(int(n) for n in times @ counts)) for counts in (here, full))
            changes.append(now.f1 - then.f1)
        return interval(changes)
