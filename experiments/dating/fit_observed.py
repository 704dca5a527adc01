"""Calibrate the dates from observations (`urbandelta.observed_dates`), and report them on held-out scenes.

    python experiments/dating/fit_observed.py --scores FOLDER --era s12 --write src/urbandelta/data/observed_dates.json
    python experiments/dating/fit_observed.py --scores FOLDER --era s12   # report what is shipped, on held-out seeds

FOLDER holds cubes called ERA_SEED and their score stores ERA_SEED.scores. Run `fit.py` first: its dates are the prior.

Four things are fitted per era. `spread`: medians over runs of the standard deviation of each feature in each stretch,
from the truth. `evidence`: of a few shares for optical, radar and scores those with the lowest mean interval score of
both dates (width of the interval plus 20 days for each day that the truth lies outside), which rewards narrow intervals
that hold; on whole scenes. `shift`: medians of the errors. `widen`: what the bounds of scenes left out of the fit of
the shift miss. For these two, scenes count whole, and with a third of their windows missing at either end.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fit import LEVEL, Sample, cases, parts_of, sample_of, summary
from scored_scenes import FIT_SEEDS, SEEDS

from urbandelta.dating import RunDates, run_dates
from urbandelta.eras import ERAS
from urbandelta.observed_dates import (
    BOUNDS,
    STRETCHES,
    Series,
    calibrated,
    observed_table,
    posterior_quantiles,
    run_series,
    seen_enough,
    streams_of,
)
from urbandelta.score_runs import WindowTable
from urbandelta.store import Cube, open_cube

Days = npt.NDArray[np.float64]
EVIDENCE = {"optical": (0.15, 0.2, 0.3, 0.45), "sar": (0.2, 0.4), "scores": (0.4, 0.6, 0.8, 1.0)}
CLEARED_DAYS, RISING_DAYS = 10, 40
"""After the first date a site is being cleared, before the last one its building rises: no stretch is pure then."""
_PARTS = 3
"""Of `parts_of`: whole, begun later, ended sooner."""


@dataclass(frozen=True, eq=False)
class Observed:
    """Rightly flagged runs of a scene, or of a part of its windows, with their series and what the scores say."""

    seed: int
    sample: Sample
    dates: RunDates
    blocks: list[tuple[npt.NDArray[np.intp], list[Series]]]

    def quantiles(self, row: dict[str, Any], window_days: float) -> dict[str, Days]:
        """As `observed_dates.posterior_quantiles`, of all blocks."""
        found: dict[str, Days] = {}
        for mine, series in self.blocks:
            part = replace(self.dates, **{name: getattr(self.dates, name)[mine] for name in BOUNDS})
            for name, values in posterior_quantiles(series, part, window_days=window_days, row=row).items():
                found.setdefault(name, np.zeros(len(self.sample.runs)))[mine] = values
        return found

    def enough(self) -> npt.NDArray[np.bool_]:
        """As `observed_dates.seen_enough`, of all blocks."""
        found = np.zeros(len(self.sample.runs), np.bool_)
        for mine, series in self.blocks:
            found[mine] = seen_enough(series)
        return found


def observed(case: Any, cube: Cube, part: slice, window_days: float) -> Observed:
    """Read what a scene's runs showed."""
    sample = sample_of(case, part)
    windows = WindowTable.of(case.scores.isel(window=part))
    blocks = list(run_series(sample.runs, windows, cube, streams_of(cube), window_days=window_days))
    dates = run_dates(sample.runs.edges, window_days=window_days, era=case.era)
    return Observed(case.seed, sample, dates, blocks)


def spreads(known: list[Observed]) -> dict[str, dict[str, dict[str, float]]]:
    """Median standard deviation by kind, stretch and feature, over runs that show a stretch three times."""
    found: dict[tuple[str, str, tuple[str, ...]], list[Days]] = {}
    for each in known:
        for mine, streams in each.blocks:
            first, last = each.sample.first[mine], each.sample.last[mine]
            for series in streams:
                day = series.days[:, None]
                inside = {
                    "before": day < first,
                    "site": (day >= first + CLEARED_DAYS) & (day < last - RISING_DAYS),
                    "open": day < last - RISING_DAYS,
                    "built": day >= last,
                }
                for stretch in STRETCHES[series.kind]:
                    mask = inside[stretch] & series.valid
                    for run in np.flatnonzero(mask.sum(axis=0) >= 3):
                        deviation = series.values[mask[:, run], run].std(axis=0, ddof=1)
                        found.setdefault((series.kind, stretch, series.features), []).append(deviation)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (kind, stretch, features), values in found.items():
        medians = np.median(values, axis=0).round(4).tolist()
        table.setdefault(kind, {})[stretch] = dict(zip(features, medians, strict=True))
    return table


def interval_score(low: Days, high: Days, truth: Days) -> float:
    """Mean width of the intervals plus what the truth lies outside, times 2 over the share allowed there."""
    outside = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return float(np.mean(high - low + 2 / (1 - LEVEL) * outside))


def fit(known: list[Observed], window_days: float) -> dict[str, Any]:
    """Row of an era."""
    row: dict[str, Any] = {"spread": spreads(known)}
    whole, best = known[::_PARTS], np.inf
    for shares in itertools.product(*EVIDENCE.values()):
        tried = {**row, "evidence": dict(zip(EVIDENCE, shares, strict=True))}
        quantiles = [each.quantiles(tried, window_days) for each in whole]
        score, error = 0.0, {}
        for which in ("first", "last"):
            shift = _median(whole, quantiles, which)
            low, middle, high = (
                np.concatenate([q[f"{which}{suffix}"] for q in quantiles]) + shift for suffix in ("_low", "", "_high")
            )
            truth = np.concatenate([getattr(each.sample, which) for each in whole])
            score += interval_score(low, high, truth)
            error[which] = round(float(np.median(np.abs(middle - truth))), 1)
        print(json.dumps({**tried["evidence"], "interval_score": round(score, 1), "error_days": error}), flush=True)
        if score < best:
            best, chosen = score, tried
    quantiles = [each.quantiles(chosen, window_days) for each in known]
    shift_of = {which: round(_median(known, quantiles, which), 1) for which in ("first", "last")}
    widen_of = {which: round(_conformal(known, quantiles, which), 1) for which in ("first", "last")}
    return {**chosen, "shift": shift_of, "widen": widen_of}


def _errors(known: list[Observed], quantiles: list[dict[str, Days]], which: str) -> list[Days]:
    return [q[which] - getattr(each.sample, which) for each, q in zip(known, quantiles, strict=True)]


def _median(known: list[Observed], quantiles: list[dict[str, Days]], which: str) -> float:
    """By how many days dates are to be moved."""
    # A date is rounded down to its day.
    return 0.5 - float(np.median(np.concatenate(_errors(known, quantiles, which))))


def _conformal(known: list[Observed], quantiles: list[dict[str, Days]], which: str) -> float:
    """What the bounds of scenes that had no part in the shift miss: the `LEVEL` quantile, days."""
    missed = []
    for seed in sorted({each.seed for each in known}):
        rest = [n for n, each in enumerate(known) if each.seed != seed]
        shift = _median([known[n] for n in rest], [quantiles[n] for n in rest], which)
        for each, q in zip(known, quantiles, strict=True):
            if each.seed == seed:
                truth = getattr(each.sample, which)
                missed.append(np.maximum(q[f"{which}_low"] + shift - truth, truth - q[f"{which}_high"] - shift))
    return float(np.quantile(np.concatenate(missed), LEVEL))


def report(held_out: list[Observed], era: str, row: dict[str, Any], window_days: float) -> None:
    """Print errors and coverage per scene and together, over pixels."""
    errors: dict[str, list[Days]] = {"first": [], "last": [], "duration": []}
    inside: dict[str, list[npt.NDArray[np.bool_]]] = {"first": [], "last": []}
    for each in held_out:
        dates = calibrated(each.quantiles(row, window_days), each.dates, each.enough(), row)
        line: dict[str, Any] = {"era": era, "seed": each.seed, "pixels": len(each.sample.runs)}
        for which in inside:
            truth = getattr(each.sample, which)
            low, middle, high = (getattr(dates, f"{which}{suffix}") for suffix in ("_low", "", "_high"))
            errors[which].append(middle - truth)
            inside[which].append((low <= truth) & (truth <= high))
            line |= summary(which, errors[which][-1], inside[which][-1], high - low)
        errors["duration"].append(errors["last"][-1] - errors["first"][-1])
        print(json.dumps(line))
    together: dict[str, Any] = {"era": era, "scenes": len(held_out)}
    for which in inside:
        together |= summary(which, np.concatenate(errors[which]), np.concatenate(inside[which]), None)
    together["duration_median_absolute_days"] = float(np.median(np.abs(np.concatenate(errors["duration"]))))
    print(json.dumps(together))


def main() -> None:
    """Fit and write, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--era", required=True)
    parser.add_argument("--write", type=Path, help="table to put the era's row into")
    parser.add_argument("--seeds", choices=(*SEEDS, "none"), default="test", help="scenes to report")
    options = parser.parse_args()

    def scenes(seeds: tuple[int, ...], parts: int) -> list[Observed]:
        return [
            observed(case, open_cube(str(options.scores / f"{case.era}_{case.seed}")), part, case.scene.era.window_days)
            for case in cases(options.scores, options.era, seeds)
            for part in parts_of(case.scores.sizes["window"])[:parts]
        ]

    if options.write:
        known = scenes(FIT_SEEDS, _PARTS)
        first = next(iter(cases(options.scores, options.era, FIT_SEEDS)))
        row = {
            "source": "experiments/dating/fit_observed.py",
            "weights_sha256": first.scores.attrs["weights_sha256"],
            "seeds": sorted({each.seed for each in known}),
            "level": LEVEL,
            **fit(known, first.scene.era.window_days),
        }
        rows = json.loads(options.write.read_text()) if options.write.exists() else {}
        options.write.write_text(json.dumps({**rows, options.era: row}, indent=1, sort_keys=True) + "\n")
    if options.seeds != "none":
        shown = scenes(SEEDS[options.seeds], 1)
        path = options.write
        table = json.loads(path.read_text()) if path else observed_table()
        report(shown, options.era, table[options.era], ERAS[options.era].window_days)


if __name__ == "__main__":
    main()
