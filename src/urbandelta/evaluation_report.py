"""An evaluation as JSON values, as rows of a table, and as text."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbandelta.area_accuracy import AreaAccuracy, Estimated
from urbandelta.baselines import BASELINES
from urbandelta.bootstrap import FEW_BLOCKS
from urbandelta.date_accuracy import DateErrors
from urbandelta.evaluation import SCORES, Evaluation, MethodResult, Result, SiteMaps
from urbandelta.metrics import Curve, pr_curve, roc_curve

__all__ = ["COLUMNS", "area_lines", "date_line", "method_title", "notes", "rows", "to_json", "write_csv"]

CURVE_POINTS = 200
MEASURES = ("precision", "recall", "f1", "iou", "kappa", "overall")
COLUMNS = (
    "site", "method", "threshold", "threshold_rule", "compared", "changed", "hits", "misses", "false_alarms",
    "correct_rejections", *MEASURES, "roc_auc", "pr_auc", "best_f1", "best_threshold", "f1_low", "f1_high",
    "roc_auc_low", "roc_auc_high", "pr_auc_low", "pr_auc_high",
)  # fmt: skip


def to_json(found: Evaluation) -> dict[str, Any]:
    """All of an evaluation as JSON values; the keys are described in docs/accuracy.md."""
    options = dataclasses.asdict(found.options)
    return {
        "format": 1,
        "settings": {**options, "truth": {key: _plain(value) for key, value in options["truth"].items()}},
        "pooled": _result(found.pooled),
        "sites": [{**_result(result), **_site(maps)} for result, maps in zip(found.sites, found.maps, strict=True)],
        "limits": list(found.limits),
    }


def _site(maps: SiteMaps) -> dict[str, Any]:
    return {
        "truth": {"source": maps.truth.source, "kind": maps.truth.kind, "dated": maps.truth.dated},
        "period": [str(maps.start)[:10], str(maps.end)[:10]],
        "provenance": dict(maps.provenance),
        "baselines_skipped": dict(maps.skipped),
        "notes": list(maps.notes),
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "pixels": {
            "compared": result.compared,
            "changed": result.changed,
            "unknown": result.unknown,
            "unscored": result.unscored,
            "changed_outside_windows": result.outside,
        },
        "blocks": result.blocks,
        "methods": {name: _method(name, method) for name, method in result.methods.items()},
        "area": _area(result),
        "dates": _dates(result.dates),
    }


def _method(name: str, method: MethodResult) -> dict[str, Any]:
    return {
        "threshold": method.threshold,
        "threshold_rule": _rule(name),
        "counts": dataclasses.asdict(method.counts),
        **{measure: getattr(method.counts, measure) for measure in MEASURES},
        "roc_auc": method.roc_auc,
        "pr_auc": method.pr_auc,
        "best_f1": {"f1": method.best_f1, "threshold": method.best_threshold},
        "intervals": {measure: list(ends) for measure, ends in method.intervals.items()},
        "undefined": method.undefined,
        "exact": method.tally.exact,
        "calibration": None
        if method.calibration is None
        else {
            "mean_score": _numbers(method.calibration.mean_score),
            "changed_share": _numbers(method.calibration.changed_share),
            "pixels": method.calibration.pixels.tolist(),
            "expected_error": method.calibration.expected_error,
            "largest_error": method.calibration.largest_error,
        },
        "roc_curve": _curve(roc_curve(method.tally), "false_alarm_rate", "recall"),
        "pr_curve": _curve(pr_curve(method.tally), "recall", "precision"),
    }


def _rule(name: str) -> str:
    return "given" if name == SCORES else "best F1 on this truth"


def _curve(curve: Curve, x: str, y: str) -> dict[str, Any]:
    if not (np.isfinite(curve.x).all() and np.isfinite(curve.y).all()):
        return {x: [], y: [], "threshold": []}
    thin = curve.thinned(CURVE_POINTS)
    return {x: _numbers(thin.x), y: _numbers(thin.y), "threshold": _numbers(thin.thresholds)}


def _numbers(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _area(result: Result) -> dict[str, Any]:
    found = result.area
    head: dict[str, Any] = {"design": result.area_design, "note": result.area_note}
    if found is None:
        return {**head, "unit": "ha", "classes": None}
    return {
        **head,
        "unit": "ha",
        "proportions": found.proportions.tolist(),
        "overall_accuracy": _estimated(found.overall),
        "classes": {
            name: {
                "mapped_area": found.mapped_areas[k],
                "sample": found.sample_sizes[k],
                "area": _estimated(found.areas[k]),
                "users_accuracy": _estimated(found.users[k]),
                "producers_accuracy": _estimated(found.producers[k]),
            }
            for k, name in enumerate(("change", "no_change"))
        },
    }


def _estimated(value: Estimated) -> dict[str, Any]:
    return {"estimate": value.value, "standard_error": value.standard_error, "interval": list(value.interval)}


def _dates(found: DateErrors | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "hits": found.count,
        "median": found.median,
        "median_absolute": found.median_absolute,
        "mean_absolute": found.mean_absolute,
        "mean_absolute_interval": list(found.mean_absolute_interval),
        "tolerance_days": found.tolerance_days,
        "within_tolerance": found.within,
        "within_tolerance_interval": list(found.within_interval),
        "best_constant_mean_absolute": found.best_constant_mae,
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


# ---------------------------------------------------------------- tables and text


def method_title(name: str) -> str:
    """How a table and a plot call a method."""
    return "urbandelta" if name == SCORES else BASELINES[name]


def results_of(found: Evaluation) -> Sequence[Result]:
    """The sites, and after several of them the pooled result."""
    return found.sites if len(found.sites) == 1 else (*found.sites, found.pooled)


def rows(found: Evaluation) -> list[dict[str, Any]]:
    """One row a site and method, with the keys of `COLUMNS`."""
    listed = []
    for result in results_of(found):
        for name, method in result.methods.items():
            counts = method.counts
            row: dict[str, Any] = {
                "site": result.name, "method": name, "threshold": method.threshold, "threshold_rule": _rule(name),
                "compared": result.compared, "changed": result.changed, **dataclasses.asdict(counts),
                **{measure: getattr(counts, measure) for measure in MEASURES},
                "roc_auc": method.roc_auc, "pr_auc": method.pr_auc, "best_f1": method.best_f1,
                "best_threshold": method.best_threshold,
            }  # fmt: skip
            for measure in ("f1", "roc_auc", "pr_auc"):
                low, high = method.intervals.get(measure, (math.nan, math.nan))
                row |= {f"{measure}_low": low, f"{measure}_high": high}
            listed.append(row)
    return listed


def write_csv(found: Evaluation, path: Path) -> Path:
    """Write the rows; an undefined measure is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(row[key]) for key in COLUMNS} for row in rows(found))
    return path


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def area_lines(result: Result) -> list[str]:
    """Area of change and accuracies as sentences."""
    found: AreaAccuracy | None = result.area
    if found is None:
        return [f"area: no estimate, {result.area_note}"]
    mapped, true = found.mapped_areas[0], found.areas[0]
    return [
        f"area of change: {_hectares(true)} (mapped: {mapped:.4g} ha); {result.area_design}",
        f"user's accuracy {_share(found.users[0])}, producer's {_share(found.producers[0])}, "
        f"overall {_share(found.overall)} (Olofsson et al. 2014)",
        result.area_note,
    ]


def _hectares(value: Estimated) -> str:
    return f"{value.value:.4g}{_margin(value, '.2g')} ha"


def _share(value: Estimated) -> str:
    return f"{value.value:.3f}{_margin(value, '.3f')}"


def _margin(value: Estimated, form: str) -> str:
    """Half an interval; nothing for a census, which has none."""
    if math.isnan(value.margin):
        return " (interval unknown)"
    return f" ± {value.margin:{form}}" if value.margin else ""


def date_line(found: DateErrors | None) -> str:
    """Date errors as a sentence."""
    if found is None:
        return "dates: no hit has a true date"
    low, high = found.mean_absolute_interval
    return (
        f"dates of {found.count} hits: median error {found.median:+.0f} d, median absolute {found.median_absolute:.0f} "
        f"d, mean absolute {found.mean_absolute:.0f} d [{low:.0f}, {high:.0f}], {found.within:.0%} within "
        f"{found.tolerance_days} d; the best single date for all would be {found.best_constant_mae:.0f} d off"
    )


def notes(found: Evaluation) -> list[str]:
    """What a reader must know, most specific first."""
    listed: list[str] = []
    for maps in found.maps:
        for name, reason in maps.skipped.items():
            listed.append(f"{maps.name}: no {BASELINES[name]}: {reason}")
        listed += [f"{maps.name}: {note}" for note in maps.notes]
    for result in results_of(found):
        if found.options.bootstrap and result.blocks < FEW_BLOCKS:
            listed.append(f"{result.name}: only {result.blocks} blocks to resample; the intervals are a guess")
        if not result.changed:
            listed.append(f"{result.name}: nothing changed here; only false alarms can be counted")
        if result.outside:
            listed.append(f"{result.name}: {result.outside} pixels changed outside of the windows and are left out")
    return [*listed, *found.limits]


def pixel_line(result: Result) -> str:
    """Which pixels were compared."""
    return (
        f"{result.name}: {result.compared} pixels compared, {result.changed} of them changed; left out: "
        f"{result.unknown} unknown, {result.unscored} not scored, {result.outside} changed outside of the windows"
    )


def interval_text(intervals: Mapping[str, tuple[float, float]], measure: str) -> str:
    """An interval in brackets; empty where there is none."""
    low, high = intervals.get(measure, (math.nan, math.nan))
    return "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
