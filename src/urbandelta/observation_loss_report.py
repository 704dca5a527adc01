"""A study of observation loss as JSON values, as table rows, and as a plot."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from urbandelta.observation_loss import LossRun, LossStudy

__all__ = ["COLUMNS", "draw_study", "grouped", "study_json", "write_study_csv"]

COLUMNS = (
    "rule", "seed", "acquisitions", "windows", "unscored", "precision", "recall", "f1", "f1_change_low",
    "f1_change_high", "roc_auc", "pr_auc", "dated_hits", "median_date_error", "median_absolute_date_error",
    "within_tolerance", "substitutions", "error",
)  # fmt: skip


def study_json(study: LossStudy) -> dict[str, Any]:
    """All of a study as JSON values."""
    return {
        "format": 1,
        "cube": study.cube,
        "weights": study.weights,
        "truth": study.truth,
        "threshold": study.threshold,
        "pixels": {"compared": study.compared, "changed": study.changed},
        "runs": [
            {**_row(run), "counts": dataclasses.asdict(run.counts) if run.counts else None,
             "substitutions": list(run.substitutions)}
            for run in study.runs
        ],
        "notes": list(study.notes),
    }  # fmt: skip


def _row(run: LossRun) -> dict[str, Any]:
    counts, dates, nan = run.counts, run.dates, math.nan
    return {
        "rule": run.rule.text,
        "seed": run.seed,
        "acquisitions": run.acquisitions,
        "windows": run.windows,
        "unscored": run.unscored,
        "precision": counts.precision if counts else nan,
        "recall": counts.recall if counts else nan,
        "f1": run.f1,
        "f1_change_low": run.f1_change[0],
        "f1_change_high": run.f1_change[1],
        "roc_auc": run.roc_auc,
        "pr_auc": run.pr_auc,
        "dated_hits": dates.count if dates else 0,
        "median_date_error": dates.median if dates else nan,
        "median_absolute_date_error": dates.median_absolute if dates else nan,
        "within_tolerance": dates.within if dates else nan,
        "substitutions": " ".join(run.substitutions),
        "error": run.error,
    }


def write_study_csv(study: LossStudy, path: Path) -> Path:
    """Write one row a run; an undefined measure is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for run in study.runs:
            row = _row(run)
            writer.writerow(
                {k: "" if isinstance(v, float) and math.isnan(v) else f"{v:.6g}" if isinstance(v, float) else v
                 for k, v in row.items()}
            )  # fmt: skip
    return path


def grouped(study: LossStudy) -> dict[str, list[LossRun]]:
    """Runs by rule, in the study's order."""
    groups: dict[str, list[LossRun]] = {}
    for run in study.runs:
        groups.setdefault(run.rule.text, []).append(run)
    return groups


def draw_study(study: LossStudy, path: Path) -> Path:
    """Plot F1 and date error of every run, rule by rule, beside the full series."""
    groups = grouped(study)
    figure = Figure(figsize=(8.4, 1.5 + 0.34 * len(groups)), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for row, runs in enumerate(groups.values()):
        for run in runs:
            left.plot(run.f1, row, "o", color="#0072b2", alpha=0.8)
            if run.dates is not None:
                right.plot(run.dates.median_absolute, row, "o", color="#d55e00", alpha=0.8)
            if run.error:
                left.annotate("no prediction", (0.02, row), fontsize=8, color="0.4", va="center")
    left.axvline(study.full.f1, color="0.6", linewidth=1, linestyle=":")
    if study.full.dates is not None:
        right.axvline(study.full.dates.median_absolute, color="0.6", linewidth=1, linestyle=":")
    left.set_yticks(np.arange(len(groups)), list(groups))
    left.invert_yaxis()
    left.set(xlim=(0, 1), xlabel=f"F1 at {study.threshold:g}")
    right.set(xlabel="median absolute date error of hits, days")
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("What is lost with observations; dotted: the full series", fontsize=10)
    figure.savefig(path)
    return path
