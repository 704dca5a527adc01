"""From a cube to scores: blocks computed side by side, committed one by one in the plan's order.

A run that was killed goes on after its last committed block and ends with the same bits, since a block's scores
depend on nothing but the cube, the weights and the plan.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from urbandelta.assemble import Moment
from urbandelta.errors import ConfigError
from urbandelta.execute import run_blocks
from urbandelta.grid import Grid
from urbandelta.runs import prepare_run, usable_cores
from urbandelta.scores import create_or_resume_scores, open_scores
from urbandelta.store import Cube, open_cube
from urbandelta.types import FloatArray, Progress, Window
from urbandelta.weights import Weights, find_weights

SCORE_CHUNKS = (16, 64, 64)
"""Windows, rows, columns. Blocks share the chunks at their borders, and small chunks cost less to write again."""


def predict(
    cube: Cube | str,
    weights: Weights | str | os.PathLike[str],
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    tile: int | None = None,
    halo: int | None = None,
    engine: str = "auto",
    out: str | os.PathLike[str] | None = None,
    mask_rule: str = "explicit",
    precision: str = "fp32",
    workers: int | None = None,
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Score every window of a cube.

    Parameters
    ----------
    cube : Cube or URL
    weights : Weights, path, or name of a shipped set
    start, end : moment, optional
        Half-open range of the steps; everything by default.
    stride : int, optional
        Steps between windows; the era's (5) by default.
    tile, halo : int, optional
        Pixels; see `plan.plan_prediction`. `tile=32, halo=0` is the published tiling.
    engine : str
        "auto", "native", "openvino" or "torch".
    out : URL, optional
        Score store to write or, after a kill, to resume; without it the scores stay in memory.
    mask_rule : str
        "explicit" (default): every step of a window is processed, a pixel shows its first valid value until then, and
        a pixel that some stream has not seen by a window's end is NaN. "published": pixels show 0 until they are
        seen, and a step is skipped where pixel (0, 0) of the tile shows 0 in the first channel.
    precision : str
        "fp32", or "bf16" in the recurrence.
    workers : int, optional
        Threads; the usable cores by default.
    substitutions, accepted : sequences of str
        Declared departures from the weights' contract; see `inputs.resolve_inputs`.
    overwrite : bool
        Replace scores of another run at `out`.
    progress : callable, optional
        Called with (window-tiles done, in all, message).

    Returns
    -------
    DataArray
        `score` (window, y, x) float32, 0..1, NaN where a pixel was not observed; lazy if `out` was given.

    Raises
    ------
    ContractError, TooFewObservations, EngineError, ConfigError, StoreError
        Each with the cause and the mend.
    """
    cube = cube if isinstance(cube, Cube) else open_cube(cube)
    weights = weights if isinstance(weights, Weights) else find_weights(weights)
    run = prepare_run(
        cube,
        weights,
        start=start,
        end=end,
        stride=stride,
        tile=tile,
        halo=halo,
        engine=engine,
        mask_rule=mask_rule,
        precision=precision,
        substitutions=substitutions,
        accepted=accepted,
    )
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers {workers}: need at least 1")
    if out is None:
        memory = _MemorySink(run.plan.windows, run.plan.provisional, cube.grid)
        run_blocks(run, memory, workers=workers, progress=progress)
        return memory.to_xarray(run.attributes)
    sink = create_or_resume_scores(
        os.fspath(out),
        grid=cube.grid,
        windows=run.plan.windows,
        chunks=SCORE_CHUNKS,
        attributes=run.attributes,
        provisional=run.plan.provisional,
        overwrite=overwrite,
    )
    run_blocks(run, sink, workers=workers, progress=progress)
    sink.finish()
    return open_scores(os.fspath(out))["score"]


class _MemorySink:
    """Scores in memory, for notebooks and small areas."""

    def __init__(self, windows: Sequence[Window], provisional: Sequence[bool], grid: Grid) -> None:
        self._windows, self._provisional, self._grid = windows, provisional, grid
        self._scores = np.full((len(windows), *grid.shape), np.nan, np.float32)
        self.done: frozenset[int] = frozenset()

    def add(self, block_id: int, y: slice, x: slice, contribution: FloatArray) -> None:
        stored = self._scores[:, y, x]
        both = ~np.isnan(stored) & ~np.isnan(contribution)
        np.copyto(stored, np.where(both, stored + contribution, contribution), where=~np.isnan(contribution))
        self.done |= {block_id}

    def to_xarray(self, attributes: dict[str, Any]) -> xr.DataArray:
        start, end, middle = (
            np.array([getattr(window, name) for window in self._windows], "datetime64[ns]")
            for name in ("start", "end", "middle")
        )
        return xr.DataArray(
            self._scores,
            dims=("window", "y", "x"),
            coords={
                "y": self._grid.y,
                "x": self._grid.x,
                "time": ("window", middle),
                "window_start": ("window", start),
                "window_end": ("window", end),
                "n_obs": ("window", np.array([window.count for window in self._windows], np.int32)),
                "provisional": ("window", np.array(self._provisional, np.bool_)),
            },
            name="score",
            attrs={**attributes, "grid": self._grid.to_json()},
        )
