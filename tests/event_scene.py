"""Scores made by hand: which pixels change when, and what windows say of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from urbandelta.grid import Grid

GRID = Grid("EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_600_000.0), 24, 24)
START = np.datetime64("2020-01-01", "ns")
DAY = np.timedelta64(1, "D")
WINDOW_DAYS = 182
Change = tuple[slice, slice, int]
"""Rows, columns and the day of change, counted from `START`."""


def response(share: np.ndarray) -> np.ndarray:
    """Score of a window in which a change lies at this share of its length: a plateau with soft flanks."""
    return np.clip(np.minimum((share + 0.1) / 0.15, (0.95 - share) / 0.15), 0.02, 0.95)


def scores_of(
    changes: Iterable[Change],
    *,
    windows: int = 40,
    step_days: int = 10,
    provisional: int = 0,
    grid: Grid = GRID,
    spread: float | None = None,
) -> xr.Dataset:
    """Scores of windows of 182 days that begin every `step_days`."""
    start = START + np.arange(windows) * step_days * DAY
    score = np.full((windows, *grid.shape), 0.02, np.float32)
    for rows, columns, day in changes:
        share = (day - np.arange(windows) * step_days) / WINDOW_DAYS
        score[:, rows, columns] = np.maximum(score[:, rows, columns], response(share)[:, None, None])
    return dataset(score, start, provisional=provisional, grid=grid, spread=spread)


def dataset(
    score: np.ndarray,
    start: np.ndarray,
    *,
    provisional: int = 0,
    grid: Grid = GRID,
    spread: float | None = None,
) -> xr.Dataset:
    """Scores (window, y, x) as `open_scores` gives them; the last `provisional` windows are marked so."""
    end = start + WINDOW_DAYS * DAY
    middle = start + (end - start) // 2
    count = len(start)
    variables = {"score": (("window", "y", "x"), score)}
    if spread is not None:
        variables["spread"] = (("window", "y", "x"), np.full(score.shape, spread, np.float32))
    return xr.Dataset(
        variables,
        coords={
            "window_start": ("window", start),
            "window_end": ("window", end),
            "time": ("window", middle),
            "n_obs": ("window", np.arange(40, 40 + count, dtype=np.int32)),
            "provisional": ("window", np.arange(count) >= count - provisional),
        },
        attrs={"era": "s12", "grid": grid.to_json(), "weights_name": "by hand", "version": "0"},
    )
