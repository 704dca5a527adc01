"""From a cube to labels per window: blocks computed side by side, committed one by one.

A run that was killed goes on after its last committed block and ends in the same bits. Synthetic labels take two
passes. The first gathers what ENDISI's betas need, over the whole area, from the mean images of each window's
neighbours; the second tests the radar and compares the indices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from urbandelta import __version__
from urbandelta.assemble import Moment
from urbandelta.errors import ConfigError
from urbandelta.label_blocks import betas_of, block_beta_sums, block_labels
from urbandelta.label_plan import LabelPlan, Looks, Region, plan_labels
from urbandelta.label_store import Labels, LabelWriter, check_name, open_labels, start_labels
from urbandelta.labels import date_label
from urbandelta.runs import usable_cores
from urbandelta.store import Cube, open_cube
from urbandelta.types import FloatArray, Progress


def label_cube(
    cube: Cube | str,
    *,
    name: str = "synthetic",
    mode: str = "corrected",
    shift: float | None = None,
    looks: Looks | None = None,
    dates: str | Path | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Labels:
    """Label every window of a cube that has one before and one after, and store the labels with the cube.

    Parameters
    ----------
    cube : Cube or URL
    name : str
        What to call them; they lie on the branch `labels.NAME` of the cube's repository.
    mode : str
        "corrected" or "reference"; see `labels.synthetic_label`. In reference mode the beta of the window before is
        taken from the window itself, as published.
    shift : float, optional
        ENDISI's shift, 0.25 by default.
    looks : float or "auto", optional
        Looks of the radar; the era's by default, "auto" estimates them from the cube (`looks.estimate_looks`).
    dates : path, optional
        Raster of int32 days since 1970-01-01 on the cube's grid, -1 where nothing changed: single windows are labelled
        from it by `labels.date_label`, and the options of the synthetic rule do not apply.
    start, end : moment, optional
        Half-open range of the steps; everything by default.
    stride : int, optional
        Steps between windows; the era's for training (1) by default.
    workers : int, optional
        Threads; the usable cores by default.
    overwrite : bool
        Replace labels of another run that have this name.
    progress : callable, optional
        Called with (blocks done, in all, message).

    Returns
    -------
    Labels

    Raises
    ------
    LabelError
        If the cube lacks a band or a stream that the rule needs, the dates lie on another grid, or labels of another
        run have this name.
    TooFewObservations
        If no window fits.
    ConfigError
        If an option is out of range.
    """
    opened = cube if isinstance(cube, Cube) else open_cube(cube)
    check_name(name)
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers {workers}: need at least 1")
    plan = plan_labels(opened, mode=mode, shift=shift, looks=looks, dates=dates, start=start, end=end, stride=stride)
    writer = start_labels(
        opened,
        name,
        steps=plan.steps,
        windows=plan.windows,
        blocks=len(plan.regions),
        block_px=plan.block_px,
        attributes=_attributes(plan),
        overwrite=overwrite,
    )
    if not writer.complete:
        _run(plan, writer, workers=workers, progress=progress)
    return open_labels(opened, name)


def _attributes(plan: LabelPlan) -> dict[str, Any]:
    return {
        "title": f"Labels of urban change, {plan.cube.era.title}",
        "source": f"urbandelta {__version__}",
        "era": plan.cube.era.name,
        "identity": plan.identity,
    }


def _run(plan: LabelPlan, writer: LabelWriter, *, workers: int, progress: Progress | None) -> None:
    count = len(plan.regions)
    passes = 1 if plan.inputs is None else 2

    def tell(done: int, message: str) -> None:
        if progress is not None:
            progress(done, passes * count, message)

    betas = np.full((len(plan.windows), 2), np.nan)
    if plan.inputs is not None:
        for index, sums in _in_order(plan, writer.sums_done, lambda region: block_beta_sums(plan, region), workers):
            writer.add_sums(index, sums)
            tell(index + 1, "blocks, betas")
        betas = betas_of(writer.sums().sum(axis=0), plan.mode)

    def label(region: Region) -> FloatArray:
        return _from_dates(plan, region) if plan.inputs is None else block_labels(plan, betas, region)

    for index, labels in _in_order(plan, writer.blocks_done, label, workers):
        writer.add(index, *plan.regions[index], labels)
        tell((passes - 1) * count + index + 1, "blocks, labels")
    writer.finish(betas)


def _from_dates(plan: LabelPlan, region: Region) -> FloatArray:
    assert plan.dates is not None
    days = plan.dates.read(*region)
    return np.stack([date_label(days, window) for window in plan.windows])


def _in_order(plan: LabelPlan, first: int, compute: Callable[[Region], Any], workers: int) -> Iterator[tuple[int, Any]]:
    """Blocks computed side by side, handed over in order, no more than `workers` + 1 of them held at a time."""
    pending: deque[tuple[int, Future[Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in range(first, len(plan.regions)):
                pending.append((index, pool.submit(compute, plan.regions[index])))
                if len(pending) > workers:
                    number, future = pending.popleft()
                    yield number, future.result()
            while pending:
                number, future = pending.popleft()
                yield number, future.result()
        finally:
            for _, future in pending:
                future.cancel()
