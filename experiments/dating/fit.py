"""Fit the constants that turn the flanks of a run into dates with intervals, and report them on held-out scenes.

    python experiments/dating/fit.py --scores FOLDER --era s12 --write src/urbandelta/data/dating.json
    python experiments/dating/fit.py --scores FOLDER --era s12      # report what is shipped, on held-out seeds

FOLDER holds score stores called ERA_SEED.scores of cubes that `urbandelta simulate` wrote. Needs scipy.

Each date is `anchor + window_days * (a + b * (rise - fall) / window_days)`, one pair (a, b) per quantile, per way in
which the series cuts the run, per era. The pairs are linear quantile regressions (0.05, 0.5, 0.95). So that runs cut
by the ends of a series are seen often enough, every scene is also fitted with a third of its windows missing at either
end, and in quarters. The bounds are then moved apart, or together, by what scenes that were left out of the fit ask for
(conformal; one scene out at a time), so that 90 % of their pixels are covered.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linprog

from urbandelta.dating import CUTS, anchors, run_dates
from urbandelta.flanks import Edges
from urbandelta.score_runs import Runs, find_runs

sys.path.insert(0, str(Path(__file__).parents[1] / "simulated"))
from scored_scenes import FIT_SEEDS, TEST_SEEDS, Case, cases

LEVEL = 0.9
QUANTILES = {"low": (1 - LEVEL) / 2, "middle": 0.5, "high": (1 + LEVEL) / 2}
FEWEST = 40
Days = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """The strongest run of each pixel that is rightly flagged, with its truth."""

    runs: Runs
    first: Days
    last: Days
    weight: Days
    """A ground's pixels change together: it counts by the root of their number."""


def sample_of(case: Case, part: slice, threshold: float = 0.5, low: float = 0.3) -> Sample:
    """Strongest runs of a scene, of which only some windows are looked at."""
    runs = find_runs(case.scores.isel(window=part), threshold=threshold, low=low, floor=threshold)
    order = np.lexsort((runs.first, -runs.peak))
    runs = runs.take(order[np.unique(runs.pixel[order], return_index=True)[1]])
    runs = runs.take(case.first.flat[runs.pixel] >= 0)
    ground = case.grounds.flat[runs.pixel]
    size = np.bincount(ground)[ground]
    first, last = (truth.flat[runs.pixel].astype(float) for truth in (case.first, case.last))
    return Sample(runs, first, last, 1 / np.sqrt(size))


def parts_of(count: int) -> list[slice]:
    """All windows, and those that a series would have that began later, ended sooner, or was short."""
    third, quarter = count // 3, count // 4
    short = [slice(begin, begin + quarter) for begin in range(0, count - quarter + 1, quarter)]
    return [slice(0, count), slice(third, count), slice(0, count - third), *short]


def quantile_regression(x: Days, y: Days, weight: Days, quantile: float) -> Days:
    """Coefficients (feature,) of a linear quantile regression, as a linear programme."""
    rows, features = x.shape
    cost = np.concatenate([np.zeros(2 * features), weight * quantile, weight * (1 - quantile)])
    free = sparse.csr_matrix(x)
    equal = sparse.hstack([free, -free, sparse.eye(rows), -sparse.eye(rows)]).tocsc()
    found = linprog(cost, A_eq=equal, b_eq=y, method="highs").x
    return found[:features] - found[features : 2 * features]


def fit(samples: list[Sample], window_days: float) -> dict[str, Any]:
    """Pairs of every date, cut and quantile."""
    edges = [sample.runs.edges for sample in samples]
    joined = Edges(*(np.concatenate([getattr(e, name) for e in edges]) for name in vars(edges[0])))
    weight = np.concatenate([sample.weight for sample in samples])
    table: dict[str, Any] = {}
    for which in ("first", "last"):
        truth = np.concatenate([getattr(sample, which) for sample in samples])
        table[which] = {}
        for number, cut in enumerate(CUTS):
            mine = joined.cut_start + 2 * joined.cut_end == number
            if mine.sum() < FEWEST:
                raise SystemExit(f"only {mine.sum()} runs are cut like {cut!r}; score more scenes")
            anchor = anchors(joined, which, cut)[mine]
            width = (joined.rise - joined.fall)[mine] / window_days
            # A last date hangs on the fall alone: long works must not pull it back.
            x = np.stack([np.ones(anchor.size), width], axis=1) if which == "first" else np.ones((anchor.size, 1))
            y = (truth[mine] - anchor) / window_days
            table[which][cut] = {
                name: [*quantile_regression(x, y, weight[mine], q).round(4).tolist(), 0.0][:2]
                for name, q in QUANTILES.items()
            }
    return table


def widen(table: dict[str, Any], by: dict[str, float]) -> dict[str, Any]:
    """Bounds moved apart by a share of the window's length, the same on both sides."""
    wider = json.loads(json.dumps(table))
    for which, share in by.items():
        for pairs in wider[which].values():
            pairs["low"][0] = round(pairs["low"][0] - share, 4)
            pairs["high"][0] = round(pairs["high"][0] + share, 4)
    return wider


def conformal(scenes: list[list[Sample]], window_days: float) -> dict[str, float]:
    """By how much the bounds of scenes left out of the fit miss: the `LEVEL` quantile, as a share of the window."""
    missed: dict[str, list[Days]] = {"first": [], "last": []}
    for left_out, scene in enumerate(scenes):
        table = fit([s for n, each in enumerate(scenes) if n != left_out for s in each], window_days)
        for which in missed:
            dates = run_dates(scene[0].runs.edges, window_days=window_days, table=table)
            truth = getattr(scene[0], which)
            outside = np.maximum(getattr(dates, f"{which}_low") - truth, truth - getattr(dates, f"{which}_high"))
            missed[which].append(outside / window_days)
    return {which: float(np.quantile(np.concatenate(each), LEVEL)) for which, each in missed.items()}


def report(samples: dict[int, Sample], era: str, window_days: float, table: dict[str, Any] | None) -> None:
    """Print errors and coverage per scene and together, over pixels."""
    errors: dict[str, list[Days]] = {"first": [], "last": []}
    inside: dict[str, list[npt.NDArray[np.bool_]]] = {"first": [], "last": []}
    for seed, sample in samples.items():
        dates = run_dates(sample.runs.edges, window_days=window_days, table=table, era=era)
        line: dict[str, Any] = {"era": era, "seed": seed, "pixels": len(sample.runs)}
        for which in errors:
            truth = getattr(sample, which)
            errors[which].append(getattr(dates, which) - truth)
            inside[which].append((getattr(dates, f"{which}_low") <= truth) & (truth <= getattr(dates, f"{which}_high")))
            width = getattr(dates, f"{which}_high") - getattr(dates, f"{which}_low")
            line |= summary(which, errors[which][-1], inside[which][-1], width)
        print(json.dumps(line))
    together: dict[str, Any] = {"era": era, "scenes": len(samples)}
    for which in errors:
        together |= summary(which, np.concatenate(errors[which]), np.concatenate(inside[which]), None)
    print(json.dumps(together))


def summary(which: str, error: Days, inside: npt.NDArray[np.bool_], width: Days | None) -> dict[str, float]:
    """Figures of one date."""
    figures = {
        f"{which}_median_absolute_days": round(float(np.median(np.abs(error))), 1),
        f"{which}_bias_days": round(float(np.median(error)), 1),
        f"{which}_coverage": round(float(inside.mean()), 3),
    }
    return figures if width is None else {**figures, f"{which}_interval_days": float(np.median(width))}


def main() -> None:
    """Fit and write, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--era", required=True)
    parser.add_argument("--write", type=Path, help="table to put the era's row into")
    options = parser.parse_args()
    if options.write:
        known = list(cases(options.scores, options.era, FIT_SEEDS))
        window_days = known[0].scene.era.window_days
        scenes = [[sample_of(case, part) for part in parts_of(case.scores.sizes["window"])] for case in known]
        plain = fit([sample for scene in scenes for sample in scene], window_days)
        wider_by = conformal(scenes, window_days)
        row = {
            "source": "experiments/dating/fit.py",
            "weights_sha256": known[0].scores.attrs["weights_sha256"],
            "seeds": [case.seed for case in known],
            "level": LEVEL,
            "widened_by": {which: round(share, 4) for which, share in wider_by.items()},
            **widen(plain, wider_by),
        }
        rows = json.loads(options.write.read_text()) if options.write.exists() else {}
        options.write.write_text(json.dumps({**rows, options.era: row}, indent=1, sort_keys=True) + "\n")
    held_out = list(cases(options.scores, options.era, TEST_SEEDS))
    window_days = held_out[0].scene.era.window_days
    table = json.loads(options.write.read_text())[options.era] if options.write else None
    samples = {case.seed: sample_of(case, slice(None)) for case in held_out}
    report(samples, options.era, window_days, table)


if __name__ == "__main__":
    main()
