"""Urban change from two dates of OSCD: train on some cities, measure on others. See README.md beside this file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from baselines import baselines
from data import OscdError, city_names, load_city
from members import Member, Work, anchored, ensemble_scores, ensure_all, load_member, say
from prepare import prepare
from train import Recipe, scores

from urbandelta.metrics import Counts, Tally, average_precision, best_f1, counts_at, merge, tally, tally_roc_auc

HERE = Path(__file__).parent
DEFAULT_FOLDS = ("bercy,paris", "beihai,bordeaux", "mumbai,nantes", "pisa,rennes")
"""Bercy and Paris are one city a few kilometres apart, hence never on both sides."""
PRIOR_THRESHOLD = 0.5
"""Of anchored scores (see `members.anchored`): fixed before any test city is looked at."""

Baselines: TypeAlias = Mapping[str, Mapping[str, Tally]]
"""Pixels of every baseline by city."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Cities to train on, in groups that are left out together for calibration, and cities to measure on."""

    groups: tuple[tuple[str, ...], ...]
    test: tuple[str, ...]

    @property
    def train(self) -> tuple[str, ...]:
        """All training cities."""
        return tuple(sorted(city for group in self.groups for city in group))

    def without(self, group: Sequence[str]) -> tuple[str, ...]:
        """Training cities but those of one group."""
        return tuple(city for city in self.train if city not in group)


def folds_of(groups: Sequence[Sequence[str]]) -> list[Fold]:
    """Each group is the test of one fold, the others its training groups."""
    return [
        Fold(groups=tuple(tuple(group) for group in groups if group is not test), test=tuple(test)) for test in groups
    ]


def given_fold(train: Sequence[str], test: Sequence[str], groups: int) -> Fold:
    """Fold of two lists; the training list is cut into consecutive groups, so neighbours in it stay together."""
    parts = np.array_split(np.array(train), min(groups, len(train)))
    return Fold(groups=tuple(tuple(map(str, part)) for part in parts), test=tuple(test))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained for a fold."""

    recipe: Recipe
    seeds: int
    """Members trained on all training cities."""
    calibrate: bool
    """Whether to train a member without each group, for the threshold; these join the ensemble."""

    def full(self, fold: Fold) -> list[Member]:
        """Members that saw all training cities."""
        return [Member(cities=fold.train, seed=seed, recipe=self.recipe) for seed in range(self.seeds)]

    def inner(self, fold: Fold) -> list[tuple[tuple[str, ...], Member]]:
        """Groups, each with the member that did not see it."""
        if not self.calibrate or len(fold.groups) < 2:
            return []
        return [(group, Member(cities=fold.without(group), seed=0, recipe=self.recipe)) for group in fold.groups]


def wanted(folds: Sequence[Fold], settings: Settings) -> dict[Member, list[str]]:
    """Members of all folds with the cities that each has to score; folds share members, so none is trained twice."""
    work: dict[Member, list[str]] = {}
    for fold in folds:
        for member in settings.full(fold):
            work.setdefault(member, []).extend(fold.test)
    for fold in folds:
        for group, member in settings.inner(fold):
            work.setdefault(member, []).extend([*group, *fold.test])
    return {member: sorted(set(cities)) for member, cities in work.items()}


def measures(pixels: Tally, threshold: float, nested: float | None = None) -> dict[str, float]:
    """Figures of one map or of several pooled; NaN for those at a threshold that is NaN or None."""
    nothing = Counts(0, 0, 0, 0)
    at = nothing if np.isnan(threshold) else counts_at(pixels, threshold)
    prior = counts_at(pixels, PRIOR_THRESHOLD)
    where, best = best_f1(pixels)
    return {
        "changed": pixels.changed_pixels / (pixels.changed_pixels + pixels.unchanged_pixels),
        "threshold": threshold,
        "f1": at.f1,
        "precision": at.precision,
        "recall": at.recall,
        "f1_at_0.5": prior.f1,
        "f1_nested": counts_at(pixels, nested).f1 if nested is not None else float("nan"),
        "f1_best": best,
        "threshold_best": where,
        "pr_auc": average_precision(pixels),
        "roc_auc": tally_roc_auc(pixels),
    }


def baseline_tallies(work: Work, cities: Sequence[str]) -> dict[str, dict[str, Tally]]:
    """Pixels of every baseline by city."""
    found: dict[str, dict[str, Tally]] = {}
    for name in cities:
        city = load_city(work.data, name, cache=work.cache)
        for baseline, map_ in baselines(city).items():
            found.setdefault(baseline, {})[name] = tally(map_.ravel(), city.truth.ravel())
    return found


def measure_fold(
    work: Work, fold: Fold, settings: Settings, others: Mapping[str, Mapping[str, Tally]]
) -> dict[str, Any]:
    """Measure on the test cities at 0.5, and at a threshold calibrated on the training cities by inner members."""
    truths = {name: load_city(work.data, name, cache=work.cache).truth.ravel() for name in (*fold.train, *fold.test)}
    inner = settings.inner(fold)
    nested = None
    if inner:
        held_out = [
            tally(ensemble_scores(work, [member], city).ravel(), truths[city])
            for group, member in inner
            for city in group
        ]
        nested = best_f1(merge(held_out))[0]
    members = settings.full(fold) + [member for _, member in inner]
    maps = {city: tally(ensemble_scores(work, members, city).ravel(), truths[city]) for city in fold.test}
    rows = {}
    for name, by_city in others.items():
        here = [by_city[city] for city in fold.test if city in by_city]
        there = [by_city[city] for city in fold.train if city in by_city]
        if here:
            calibrated = best_f1(merge(there))[0] if there else float("nan")
            rows[name] = measures(merge(here), calibrated) | {"cities": len(here)}
    return {
        "test": fold.test,
        "train": fold.train,
        "baselines": rows,
        "members": [member.name for member in members],
        "nested_threshold": nested,
        "_tallies": maps,
        **at_threshold(maps, PRIOR_THRESHOLD, nested),
    }


def at_threshold(maps: Mapping[str, Tally], threshold: float, nested: float | None) -> dict[str, Any]:
    """Figures of a fold's cities, alone and pooled."""
    return {
        "threshold": threshold,
        "cities": {city: measures(pixels, threshold, nested) for city, pixels in maps.items()},
        "pooled": measures(merge(list(maps.values())), threshold, nested),
    }


def cross_fitted(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each fold at the threshold that is best for the test cities of the other folds, scored by their own networks."""
    fitted = []
    for result in results:
        others = [pixels for other in results if other is not result for pixels in other["_tallies"].values()]
        threshold = best_f1(merge(others))[0]
        fitted.append({**result, **at_threshold(result["_tallies"], threshold, result["nested_threshold"])})
    return fitted


def pooled_over(results: Sequence[Mapping[str, Any]], others: Baselines) -> dict[str, Any]:
    """All folds' pixels together: each fold at its own thresholds, and all at 0.5."""

    def counted(which: str) -> Counts:
        counts = Counts(0, 0, 0, 0)
        for result in results:
            for pixels in result["_tallies"].values():
                counts = counts + counts_at(pixels, result[which])
        return counts

    counts = counted("threshold")
    tallies = [pixels for result in results for pixels in result["_tallies"].values()]
    row = measures(merge(tallies), float(np.median([result["threshold"] for result in results])))
    row |= {"f1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    if all(result["nested_threshold"] is not None for result in results):
        row["f1_nested"] = counted("nested_threshold").f1
    cities = [city for result in results for city in result["test"]]
    rows = {
        name: measures(merge(here), float("nan"))
        for name, by_city in others.items()
        if (here := [by_city[city] for city in cities if city in by_city])
    }
    return {"pooled": row, "baselines": rows}


HEADER = f"{'':54s} {'F1':>6s} {'F1@0.5':>6s} {'nested':>6s} {'F1best':>6s} {'PR-AUC':>6s} {'thresh':>6s}"


def line(name: str, row: Mapping[str, float], *, own: bool) -> str:
    """One row of the table; baselines have no meaning at 0.5."""
    prior = f"{row['f1_at_0.5']:6.3f} {row['f1_nested']:6.3f}" if own else f"{'':13s}"
    return f"{name:54s} {row['f1']:6.3f} {prior} {row['f1_best']:6.3f} {row['pr_auc']:6.3f} {row['threshold']:6.3f}"


def table(results: Sequence[Mapping[str, Any]], overall: Mapping[str, Any] | None) -> str:
    """Text of the results."""
    lines = [HEADER]
    for result in results:
        lines += [line(f"  {city}", row, own=True) for city, row in result["cities"].items()]
        lines.append(line(f"{' + '.join(result['test'])}, pooled", result["pooled"], own=True))
        lines += [line(f"    {name}", row, own=False) for name, row in result["baselines"].items()]
    if overall is not None:
        lines.append(line("all folds, pooled", overall["pooled"], own=True))
        lines += [line(f"    {name}", row, own=False) for name, row in overall["baselines"].items()]
    return "\n".join(lines)


def parsed_value(text: str) -> Any:
    """Value of `--set`: JSON, or else text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value


def recipe_with(changes: Sequence[str]) -> Recipe:
    """The default recipe with `NAME=VALUE` changes; `network.NAME` reaches the sizes."""
    recipe = Recipe()
    for change in changes:
        name, _, text = change.partition("=")
        if name.startswith("network."):
            network = dataclasses.replace(recipe.network, **{name.removeprefix("network."): parsed_value(text)})
            recipe = dataclasses.replace(recipe, network=network)
        else:
            recipe = dataclasses.replace(recipe, **{name: parsed_value(text)})
    return recipe


def score_only(work: Work, files: Sequence[Path], threshold: float, test: Sequence[str]) -> dict[str, Any]:
    """Measure stored members on cities that none of them was trained on."""
    loaded = [load_member(path) for path in files]
    for member, _ in loaded:
        if seen := sorted(set(member.cities) & set(test)):
            raise OscdError(f"{member.name} was trained on {', '.join(seen)}; leave these out of --test")
    others = baseline_tallies(work, test)
    maps = {}
    for name in test:
        city = load_city(work.data, name, cache=work.cache)
        parts = [
            scores(network, prepare(city, register=member.recipe.register), views=member.recipe.views)
            for member, network in loaded
        ]
        maps[name] = tally(anchored(np.asarray(np.mean(parts, axis=0))).ravel(), city.truth.ravel())
    return {
        **at_threshold(maps, threshold, None),
        "test": tuple(test),
        "train": loaded[0][0].cities,
        "nested_threshold": None,
        "baselines": {
            name: measures(merge(list(by_city.values())), float("nan")) | {"cities": len(by_city)}
            for name, by_city in others.items()
        },
        "members": [member.name for member, _ in loaded],
        "_tallies": maps,
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, labels/ and sentinel1/")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="cache, members, scores, results.json")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--folds", nargs="*", metavar="A,B", help="groups of cities, each left out once")
    what.add_argument("--train", nargs="+", metavar="CITY", help="train on these and measure on --test")
    what.add_argument("--weights", nargs="+", type=Path, help="stored members: measure on --test, train nothing")
    parser.add_argument("--test", nargs="+", metavar="CITY")
    parser.add_argument("--groups", type=int, default=3, help="with --train: parts left out in turn for calibration")
    parser.add_argument("--threshold", type=float, default=PRIOR_THRESHOLD, help="of anchored scores, with --weights")
    parser.add_argument("--seeds", type=int, default=1, help="members on all training cities")
    parser.add_argument("--no-calibration", action="store_true", help="no inner members, hence no nested threshold")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="change the recipe")
    parser.add_argument("--jobs", type=int, default=2, help="networks trained side by side, one thread each")
    parser.add_argument("--name", default="results", help="name of the results file")
    chosen = parser.parse_args(argv)
    if (chosen.train or chosen.weights) and not chosen.test:
        parser.error("--train and --weights need --test")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; table to stdout, progress to stderr."""
    chosen = arguments(argv)
    started = time.monotonic()
    work = Work(data=chosen.data.resolve(), out=chosen.out.resolve())
    settings = Settings(recipe=recipe_with(chosen.set), seeds=chosen.seeds, calibrate=not chosen.no_calibration)
    overall = None
    if chosen.weights:
        results = [score_only(work, chosen.weights, chosen.threshold, chosen.test)]
    else:
        if chosen.train:
            folds = [given_fold(chosen.train, chosen.test, chosen.groups)]
        else:
            folds = folds_of([tuple(text.split(",")) for text in chosen.folds or DEFAULT_FOLDS])
        needed = sorted({city for fold in folds for city in (*fold.train, *fold.test)})
        if unknown := sorted(set(needed) - set(city_names(work.data))):
            raise OscdError(f"{work.data}: no {', '.join(unknown)}; it has {', '.join(city_names(work.data))}")
        for name in needed:
            load_city(work.data, name, cache=work.cache)  # once, before several processes want it
        todo = wanted(folds, settings)
        say(f"{len(todo)} networks for {len(folds)} folds")
        ensure_all(work, todo, jobs=chosen.jobs)
        others = baseline_tallies(work, needed)
        results = [measure_fold(work, fold, settings, others) for fold in folds]
        overall = None
        if len(folds) > 1:
            results = cross_fitted(results)
            overall = pooled_over(results, others)
    print(table(results, overall))
    document = {
        "recipe": dataclasses.asdict(settings.recipe),
        "seconds": round(time.monotonic() - started),
        "folds": [{key: value for key, value in result.items() if key != "_tallies"} for result in results],
        "overall": overall,
    }
    work.out.mkdir(parents=True, exist_ok=True)
    path = work.out / f"{chosen.name}.json"
    path.write_text(json.dumps(document, indent=1))
    say(f"{path} written after {document['seconds']} s")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OscdError as error:
        sys.exit(f"error: {error}")
