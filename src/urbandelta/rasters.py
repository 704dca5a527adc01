"""The set of rasters that a monitored city has: one map a month, and what all months together say.

Names and encodings follow the conventions of alert systems (DIST-S1, Global Forest Watch): dates are int32 days since
1970-01-01 with -1 for none, `status` numbers its stages as DIST-S1 does. All are cloud-optimised GeoTIFFs; a file whose
pixels did not change is left alone, so an update of last night touches the newest months only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import rasterio.features
import xarray as xr

from urbandelta.dating import date_maps
from urbandelta.events import AlertStatus, Event, EventOptions, find_events
from urbandelta.grid import Grid
from urbandelta.products import (
    NO_DATE,
    ExportReport,
    Product,
    ScoreMaps,
    grid_of,
    period_starts,
    products_of,
    provenance_of,
    score_maps,
    spread_of_maximum,
    write_products,
)
from urbandelta.types import Array, Progress

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["STATUS_COLOURS", "STATUS_MEANINGS", "status_map", "write_rasters"]

STATUS_MEANINGS: Mapping[int, str] = {
    status.value: status.name.lower() for status in AlertStatus if status is not AlertStatus.NODATA
}
STATUS_COLOURS: Mapping[int, tuple[int, int, int, int]] = {
    AlertStatus.NONE: (0, 0, 0, 0),
    AlertStatus.FIRST_LOW: (253, 231, 37, 255),
    AlertStatus.PROVISIONAL_LOW: (160, 218, 57, 255),
    AlertStatus.CONFIRMED_LOW: (74, 193, 109, 255),
    AlertStatus.FIRST_HIGH: (31, 161, 135, 255),
    AlertStatus.PROVISIONAL_HIGH: (39, 127, 142, 255),
    AlertStatus.CONFIRMED_HIGH: (54, 92, 141, 255),
    AlertStatus.FINISHED_LOW: (70, 50, 126, 255),
    AlertStatus.FINISHED_HIGH: (68, 1, 84, 255),
    AlertStatus.NODATA: (0, 0, 0, 0),
}
"""Viridis in equal steps: told apart by lightness alone, and so by colour-blind people and in grey."""

# Nor what grows with the series, such as its end: a month that did not change stays the file that it is.
_UNPINNED = ("cube_snapshot", "version", "parameters")
_SUMMARIES = 11


def status_map(
    events: Sequence[Event], grid: Grid, *, scored: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.uint8]:
    """Status of each pixel's event (y, x); where events of different times overlap, the latest one's.

    `scored` (y, x) says which pixels have a score; the others are 255.
    """
    status = np.zeros(grid.shape, np.uint8)
    shapes = [(event.geometry, int(event.status)) for event in sorted(events, key=lambda event: event.first_date)]
    if shapes:
        rasterio.features.rasterize(shapes, out=status, transform=grid.affine)
    if scored is not None:
        status[~scored] = AlertStatus.NODATA
    return status


def write_rasters(
    scores: xr.Dataset,
    folder: str | os.PathLike[str],
    *,
    events: Sequence[Event] | None = None,
    options: EventOptions | None = None,
    cube: Cube | None = None,
    months: bool = True,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the set of rasters into a folder.

    `score_YYYY-MM` for each month; over all of them `score` (highest), `spread` (of an ensemble, there), `nobs` (steps
    of the window there), `count` (windows at or above the threshold), `first_date`, `last_date` with their 90 % bounds
    `first_low`, `first_high`, `last_low`, `last_high`, `duration` in days, and `status`.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    folder : path
        Made if absent. Files of these names are replaced where their content changed.
    events : sequence of Event, optional
        Those of these scores and options; found here if not given.
    options : EventOptions, optional
        Thresholds of counts and dates.
    cube : Cube, optional
        That of the scores: with it dates rest on the observations.
    months : bool
        Whether to write the monthly maps too.
    progress : callable, optional

    Raises
    ------
    ProductError
        If there are no scores, or a file cannot be written.
    """
    options = options or EventOptions()
    grid = grid_of(scores)
    found = find_events(scores, options, grid=grid, cube=cube) if events is None else events

    def products() -> Iterator[Product]:
        if months:
            yield from products_of(scores, which="monthly")
        yield from _summaries(scores, found, grid, options, cube)

    return write_products(
        products(),
        folder,
        grid=grid,
        provenance=provenance_of(scores),
        unpinned=_UNPINNED,
        overwrite=True,
        total=_SUMMARIES + (period_starts(scores["time"].values).size if months else 0),
        progress=progress,
    )


def _summaries(
    scores: xr.Dataset, events: Sequence[Event], grid: Grid, options: EventOptions, cube: Cube | None
) -> Iterator[Product]:
    maps = score_maps(scores, threshold=options.threshold)
    yield Product(name="score", array=maps.maximum, nodata=np.nan, description="highest score over time")
    if "spread" in scores:
        what = "standard deviation of the members' scores in the window with the highest score"
        yield Product(name="spread", array=spread_of_maximum(scores, maps), nodata=np.nan, description=what)
    limit = {"threshold": f"{options.threshold:g}"}
    what = "observations (steps) of the window with the highest score"
    yield _counts("nobs", _observations(scores, maps), what, {})
    yield _counts("count", maps.count, "number of windows at or above the threshold", limit)
    dates = date_maps(scores, threshold=options.threshold, low=options.low, cube=cube)
    made = {"low": f"{options.low:g}", "units": "days since 1970-01-01", "interval": "0.9", "dated_by": dates.source}
    days = {**limit, **made}
    for edge, what in (("first", "day on which the strongest change began"), ("last", "day on which it ended")):
        for suffix, bound in (("", ""), ("_low", ", lower bound"), ("_high", ", upper bound")):
            name = f"{edge}_date" if not suffix else f"{edge}{suffix}"
            yield _counts(name, getattr(dates, f"{edge}{suffix}"), f"{what}{bound}", days)
    yield _counts("duration", dates.duration, "days from first to last date", {**limit, "units": "days"})
    meanings = ", ".join(f"{value} {name}" for value, name in STATUS_MEANINGS.items())
    yield Product(
        name="status",
        array=status_map(events, grid, scored=np.isfinite(maps.maximum)),
        nodata=AlertStatus.NODATA,
        description="status of the event",
        categories=True,
        tags={**limit, "meanings": meanings},
        colours=STATUS_COLOURS,
    )


def _counts(name: str, array: Array, what: str, tags: Mapping[str, str]) -> Product:
    return Product(name=name, array=array, nodata=NO_DATE, description=what, categories=True, tags=tags)


def _observations(scores: xr.Dataset, maps: ScoreMaps) -> npt.NDArray[np.int32]:
    counts = scores["n_obs"].values.astype(np.int32)
    at = maps.window_of_maximum
    return np.where(at >= 0, counts[np.maximum(at, 0)], NO_DATE).astype(np.int32)
