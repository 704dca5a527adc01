"""Plots of an evaluation: curves, calibration, date errors, and maps of hits, misses and false alarms."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from urbandelta.evaluation import SCORES, Evaluation, Result, SiteMaps
from urbandelta.evaluation_report import method_title
from urbandelta.metrics import Curve, pr_curve, roc_curve

__all__ = ["draw_plots"]

# Okabe and Ito's palette: distinct for colour-blind readers too.
COLOURS = {
    SCORES: "#0072b2",
    "change_vector": "#d55e00",
    "omnibus": "#009e73",
    "index_difference": "#cc79a7",
    "sccd": "#e69f00",
    "cold": "#56b4e9",
}
OUTCOMES = {
    "hit": "#009e73",
    "miss": "#0072b2",
    "false alarm": "#d55e00",
    "unchanged": "#f2f2f2",
    "left out": "#bdbdbd",
}
DPI = 130
LINE_POINTS = 2000
LARGEST_MAP_PX = 1600


def draw_plots(found: Evaluation, folder: Path) -> list[Path]:
    """Write the plots as PNG into a folder; returns the files.

    `pr.png`, `roc.png`, `calibration.png`, `dates.png` (if truth has dates), all of the pooled result, and a
    `map_SITE.png` for each site.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pooled = found.pooled
    written = []
    for name, draw in (("pr", _precision_recall), ("roc", _roc), ("calibration", _calibration)):
        written.append(_write(folder / f"{name}.png", (5.6, 5.2), _bound(draw, pooled)))
    if pooled.dates is not None:
        written.append(_write(folder / "dates.png", (5.6, 3.8), _bound(_dates, pooled)))
    for maps in found.maps:
        height, width = maps.compared.shape
        size = (6.4, float(np.clip(5.4 * height / width, 2, 12)) + 1.0)
        file = folder / f"map_{re.sub(r'[^A-Za-z0-9_.-]+', '_', maps.name)}.png"
        written.append(_write(file, size, _bound(_map, maps)))
    return written


def _bound(draw: Callable[[Axes, Any], None], what: Any) -> Callable[[Axes], None]:
    return lambda axes: draw(axes, what)


def _write(path: Path, size: tuple[float, float], draw: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    figure.savefig(path)
    return path


def _precision_recall(axes: Axes, result: Result) -> None:
    for name, method in result.methods.items():
        curve = pr_curve(method.tally)
        if np.isfinite(curve.x).all():
            _line(axes, curve, name, f"{method_title(name)}, area {method.pr_auc:.2f}", style="steps-pre")
        counts = method.counts
        axes.plot(counts.recall, counts.precision, "o", color=COLOURS[name], markersize=6)
    share = result.changed / result.compared
    axes.axhline(share, color="0.6", linewidth=1, linestyle=":", label=f"no skill, {share:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.set_title("Precision and recall; dots: the thresholds of the table", fontsize=10, loc="left")
    axes.figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)


def _roc(axes: Axes, result: Result) -> None:
    for name, method in result.methods.items():
        curve = roc_curve(method.tally)
        if np.isfinite(curve.x).all() and np.isfinite(curve.y).all():
            _line(axes, curve, name, f"{method_title(name)}, area {method.roc_auc:.3f}")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="no skill")
    axes.set(xlabel="false-alarm rate", ylabel="recall", xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
    axes.set_title("Receiver operating characteristic", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _line(axes: Axes, curve: Curve, name: str, label: str, *, style: str = "default") -> None:
    # Steps for precision: a straight line between two of its points is better than anything that can be reached.
    thin = curve.thinned(LINE_POINTS)
    axes.plot(thin.x, thin.y, color=COLOURS[name], linewidth=2 if name == SCORES else 1.3, label=label, drawstyle=style)


def _calibration(axes: Axes, result: Result) -> None:
    found = result.methods[SCORES].calibration
    assert found is not None
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="a probability")
    axes.plot(found.mean_score, found.changed_share, "o-", color=COLOURS[SCORES], label="urbandelta")
    for x, y, count in zip(found.mean_score, found.changed_share, found.pixels, strict=True):
        axes.annotate(
            f"{count}", (x, y), textcoords="offset points", xytext=(5, -11), fontsize=7, color="0.35", clip_on=False
        )
    axes.set(xlabel="mean score of the bin", ylabel="share that changed", xlim=(0, 1.05), ylim=(-0.04, 1.04))
    axes.set_title(f"Calibration, expected error {found.expected_error:.3f}; numbers: pixels", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _dates(axes: Axes, result: Result) -> None:
    found = result.dates
    assert found is not None
    reach = max(float(np.quantile(np.abs(found.errors), 0.99)), found.tolerance_days * 1.2, 1.0)
    outside = int(np.count_nonzero(np.abs(found.errors) > reach))
    axes.axvspan(-found.tolerance_days, found.tolerance_days, color="0.92", label=f"± {found.tolerance_days} days")
    axes.hist(found.errors, bins=41, range=(-reach, reach), color=COLOURS[SCORES])
    axes.axvline(found.median, color=COLOURS["change_vector"], linewidth=1.5, label=f"median {found.median:+.0f} days")
    axes.set(xlabel="estimated minus true date, days (late is positive)", ylabel="hits")
    beyond = f"; {outside} beyond" if outside else ""
    axes.set_title(f"Date error of {found.count} hits, {found.within:.0%} within tolerance{beyond}", fontsize=10,
                   loc="left")  # fmt: skip
    axes.legend(fontsize=8, frameon=False)


def _map(axes: Axes, maps: SiteMaps) -> None:
    flagged = maps.compared & (maps.maps.maximum >= maps.maps.threshold)
    outcome = np.full(maps.compared.shape, 4, np.uint8)
    outcome[maps.compared] = 3
    for code, where in enumerate((maps.changed & flagged, maps.changed & ~flagged, flagged & ~maps.changed)):
        outcome[where] = code
    colours = np.array([_rgb(colour) for colour in OUTCOMES.values()], np.uint8)
    step = max(1, max(outcome.shape) // LARGEST_MAP_PX)
    numbers = np.bincount(outcome.ravel(), minlength=5)
    axes.imshow(colours[outcome[::step, ::step]], interpolation="nearest", extent=_extent(maps))
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.tick_params(labelsize=7)
    axes.set_title(f"{maps.name}: scores of at least {maps.maps.threshold:g}", fontsize=10, loc="left")
    handles = [
        Patch(facecolor=colour, edgecolor="0.6", linewidth=0.5, label=f"{name}, {number} px")
        for (name, colour), number in zip(OUTCOMES.items(), numbers, strict=True)
        if number
    ]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _extent(maps: SiteMaps) -> tuple[float, float, float, float]:
    west, south, east, north = maps.truth.grid.bounds
    return west, east, south, north


def _rgb(colour: str) -> npt.NDArray[np.uint8]:
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], np.uint8)
