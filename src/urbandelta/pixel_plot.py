"""One pixel through time as a picture: score with the spans of its windows, both polarisations, optical indices."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from urbandelta.builtup import INDEX_SHIFT, sampled_beta
from urbandelta.cartography import MapFrame
from urbandelta.composites import PixelSeries, pixel_series, title_of
from urbandelta.errors import GridError
from urbandelta.figures import date_ticks
from urbandelta.indices import ROLES, endisi_of
from urbandelta.narrative import position_text
from urbandelta.products import checked_score, grid_of
from urbandelta.types import Array, FloatArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["draw_pixel", "strongest_pixel"]

# Okabe and Ito: told apart by colour-blind people. Lines differ in dashes too, and so in grey.
VERMILION, BLUE, SKY, GREEN, PURPLE = "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#aa4499"
INK, MUTED, LINE = "#1c2226", "#5a656d", "#d6dada"
DASHED = (0, (4, 2))
_STYLE: dict[Any, Any] = {
    "font.size": 11, "font.family": "DejaVu Sans", "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "text.color": INK,
    "xtick.color": MUTED, "ytick.color": MUTED,
}  # fmt: skip


def strongest_pixel(maximum: FloatArray) -> tuple[int, int]:
    """Row and column of the highest score of a map (y, x); the middle if there is none."""
    if not np.isfinite(maximum).any():
        return maximum.shape[0] // 2, maximum.shape[1] // 2
    row, column = np.unravel_index(int(np.nanargmax(maximum)), maximum.shape)
    return int(row), int(column)


def draw_pixel(
    scores: xr.Dataset, cube: Cube | None, row: int, column: int, *, width: int = 1200, threshold: float = 0.5
) -> bytes:
    """PNG of one pixel's history.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    cube : Cube, optional
        Without it only the score is shown.
    row, column : int
    width : int
        Of the picture in pixels.
    threshold : float

    Raises
    ------
    GridError
        If scores and cube lie on different grids.
    """
    grid = grid_of(scores)
    if cube is not None and (cube.grid.shape != grid.shape or cube.grid.crs != grid.crs):
        raise GridError(f"the scores lie on {grid}, the cube on {cube.grid}; pass the cube that they were made from")
    series = pixel_series(cube, row, column) if cube is not None else []
    beta = sampled_beta(cube) if cube is not None else None
    heights = [2.6, *([1.6] * len(series))]
    with matplotlib.rc_context(_STYLE):
        inches = width / 110
        figure = Figure(figsize=(inches, 1.15 + sum(heights) + 0.42 * len(heights)), dpi=110, facecolor="white")
        axes = _axes(figure, heights)
        _draw_score(axes[0], scores, row, column, threshold)
        for axis, one in zip(axes[1:], series, strict=True):
            if one.stream.kind == "sar":
                _draw_radar(axis, one)
            else:
                _draw_optical(axis, one, beta)
        date_ticks(axes[-1], width)
        place = position_text(MapFrame(grid).lonlat(row, column))
        figure.text(0.06, 1 - 0.36 / figure.get_figheight(), f"Pixel {row}, {column}", fontsize=16, fontweight="bold")
        figure.text(
            0.06, 1 - 0.60 / figure.get_figheight(), f"row and column from the upper left; {place}", color=MUTED
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _axes(figure: Figure, heights: Sequence[float]) -> list[Axes]:
    """Panels above each other on one axis of time; heights in inches."""
    whole = figure.get_figheight()
    axes: list[Axes] = []
    top = whole - 1.0
    for height in heights:
        box = (0.06, (top - height) / whole, 0.92, height / whole)
        axis = figure.add_axes(box, sharex=axes[0] if axes else None)
        axis.grid(visible=True, color=LINE, linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False)
        axes.append(axis)
        top -= height + 0.42
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    return axes


def _draw_score(axis: Axes, scores: xr.Dataset, row: int, column: int, threshold: float) -> None:
    score = np.asarray(checked_score(scores)[:, row, column].values, np.float32)
    starts, ends, middles = (_days(scores[name].values) for name in ("window_start", "window_end", "time"))
    axis.axhline(threshold, color=MUTED, linewidth=1, linestyle=DASHED)
    axis.hlines(score, starts, ends, color=VERMILION, linewidth=0.9, alpha=0.22, label="span of each window")
    axis.plot(middles, score, color=VERMILION, linewidth=2, marker="o", markersize=3.5, label="score at its middle")
    if "spread" in scores:
        spread = np.asarray(scores["spread"].transpose("window", "y", "x")[:, row, column].values, np.float32)
        axis.fill_between(
            middles, score - spread, score + spread, color=VERMILION, alpha=0.18, linewidth=0, label="spread"
        )
    if "provisional" in scores and scores["provisional"].values.any():
        mine = np.asarray(scores["provisional"].values, bool)
        axis.plot(
            middles[mine], score[mine], "o", markersize=6, markerfacecolor="white", color=VERMILION, label="provisional"
        )
    axis.set_ylim(-0.03, 1.05)
    axis.set_yticks([0, 0.5, 1])
    axis.set_title("Change score", loc="left", fontsize=11)
    _legend(axis)


def _draw_radar(axis: Axes, one: PixelSeries) -> None:
    for (band, values), colour, dashes in zip(one.values.items(), (BLUE, SKY), ("-", DASHED), strict=False):
        decibels = 10 * np.log10(np.where(values > 0, values, np.nan))
        _dots_and_line(axis, one, decibels, colour, dashes, band)
    axis.set_title(f"{title_of(one.stream)} (dB)", loc="left", fontsize=11)
    _legend(axis)


def _draw_optical(axis: Axes, one: PixelSeries, beta: float | None) -> None:
    roles = {role: one.values[band] for role, band in one.stream.roles.items() if band in one.values}
    if {"nir", "red"} <= set(roles):
        total = roles["nir"] + roles["red"]
        ndvi = (roles["nir"] - roles["red"]) / np.where(total > 0, total, np.nan)
        _dots_and_line(axis, one, ndvi, GREEN, "-", "vegetation index (NDVI)")
    if beta is not None and set(ROLES) <= set(roles):
        blue, green, first, second = (roles[role] for role in ROLES)
        built = endisi_of(blue, green, first, second, beta, shift=INDEX_SHIFT, mode="corrected")
        _dots_and_line(axis, one, built, PURPLE, DASHED, "built-up index (ENDISI)")
    axis.set_title(f"{title_of(one.stream)}: indices", loc="left", fontsize=11)
    _legend(axis)


def _dots_and_line(axis: Axes, one: PixelSeries, values: Array, colour: str, dashes: object, label: str) -> None:
    """Single acquisitions as dots, their running median of seven as a line."""
    times = _days(one.times)
    axis.plot(times, values, color=colour, linestyle="none", marker=".", markersize=4, alpha=0.4)
    smooth = values
    if values.size >= 7:
        padded = np.pad(values, 3, mode="edge")
        smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7), axis=-1)
    axis.plot(times, smooth, color=colour, linestyle=dashes, linewidth=1.8, label=label)


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, frameon=False, fontsize=10, borderaxespad=0.2)


def _days(times: Array) -> Array:
    return np.asarray(times).astype("datetime64[s]").astype(np.int64) / 86_400
