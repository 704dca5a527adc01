"""Scores and maps as a plain Zarr store with CF metadata, for whoever has xarray and nothing of this program.

The score stores themselves are versioned; this is a copy without history that `xarray.open_zarr` opens alone. It is
filled chunk by chunk beside its place and renamed when it is whole.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from urbandelta.dating import NO_DATE, date_maps
from urbandelta.errors import ProductError
from urbandelta.events import AlertStatus, Event, EventOptions, find_events
from urbandelta.products import (
    ExportReport,
    checked_score,
    grid_of,
    pixel_blocks,
    provenance_of,
    score_maps,
    spread_of_maximum,
    window_runs,
)
from urbandelta.rasters import STATUS_MEANINGS, status_map
from urbandelta.types import Array, Progress

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["write_zarr"]

_MARK = "urbandelta_export"
_EPOCH = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_TIMES = ("time", "window_start", "window_end", "time_bounds")
_SIDE = 512


@dataclass(frozen=True, eq=False)
class _Map:
    """One map ready to be written."""

    name: str
    values: Array
    attributes: Mapping[str, Any]
    fill: Any


def write_zarr(
    scores: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    events: Sequence[Event] | None = None,
    options: EventOptions | None = None,
    cube: Cube | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write scores and the maps of them as one Zarr store (format 3); an equal one that is there is left alone.

    Variables: `score` (window, y, x), `spread` of an ensemble, and over (y, x) `score_max`, `spread_max`,
    `observations`, `count`, `first_date`, `first_low`, `first_high`, `last_date`, `last_low`, `last_high`, `duration`
    and `status`. Dates are int32 days since 1970-01-01 with -1 for none, which xarray reads as datetime64 and NaT.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    path : path
        A local folder that does not exist, or an earlier export.
    events : sequence of Event, optional
        Those of these scores and options, for `status`; found here if not given.
    options : EventOptions, optional
        Thresholds of counts, dates and events.
    cube : Cube, optional
        That of the scores: with it dates rest on the observations.
    overwrite : bool
        Replace an earlier export of other scores or options.
    progress : callable, optional

    Raises
    ------
    ProductError
        If something else is there, or the folder cannot be written.
    """
    options = options or EventOptions()
    checked_score(scores)
    target = Path(path)
    identity = _identity(scores, options, cube)
    if target.exists():
        known = _known(target)
        if known == identity:
            return ExportReport((), (target,))
        if known is None or not overwrite:
            what = "something else" if known is None else "the export of other scores or options"
            mend = "choose another place" if known is None else "choose another place or pass --overwrite"
            raise ProductError(f"{target}: holds {what}; {mend}")
    found = find_events(scores, options, cube=cube) if events is None else events
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _fill(partial, scores, found, options, cube, identity, progress)
        if target.exists():
            old = target.with_name(f".{target.name}.replaced")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    except OSError as error:
        raise ProductError(
            f"{target}: cannot write this store ({error.strerror or error}); check the folder and the free space"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportReport((target,), ())


def _identity(scores: xr.Dataset, options: EventOptions, cube: Cube | None) -> dict[str, Any]:
    """What decides the content of an export."""
    return {
        "scores_snapshot": str(scores.attrs.get("snapshot", "")),
        "windows": scores.sizes["window"],
        "cube": cube is not None,
        **{name: getattr(options, name) for name in EventOptions.__dataclass_fields__},
    }


def _known(target: Path) -> dict[str, Any] | None:
    """Identity of the export at a place; None if it is none."""
    try:
        known = zarr.open_group(str(target), mode="r", zarr_format=3, use_consolidated=False).attrs.get(_MARK)
    except (OSError, ValueError, KeyError):  # no folder, no Zarr, or damaged: nothing of ours to replace
        return None
    return dict(known) if isinstance(known, Mapping) else None


def _fill(
    folder: Path,
    scores: xr.Dataset,
    events: Sequence[Event],
    options: EventOptions,
    cube: Cube | None,
    identity: Mapping[str, Any],
    progress: Progress | None,
) -> None:
    layers = [name for name in ("score", "spread") if name in scores]
    frame = scores.drop_vars(layers)
    for variable in frame.variables.values():
        variable.encoding.clear()
    encoding = {name: dict(_EPOCH, dtype="int64") for name in _TIMES if name in frame.variables}
    frame.attrs = {
        **provenance_of(scores),
        "Conventions": "CF-1.11",
        "title": "urban change scores and maps",
        "source": "urbandelta",
        _MARK: dict(identity),
    }
    frame.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(str(folder), mode="r+", zarr_format=3, use_consolidated=False)
    done = 0
    total = len(layers) + 12
    for name in layers:
        _copy(group, scores, name)
        done += 1
        if progress is not None:
            progress(done, total, name)
    for one in _maps(scores, events, options, cube):
        side = tuple(min(_SIDE, size) for size in one.values.shape)
        array = _create(group, one.name, one.values.shape, one.values.dtype, side, ("y", "x"), one.attributes, one.fill)
        array[...] = one.values
        done += 1
        if progress is not None:
            progress(done, max(total, done), one.name)
    with warnings.catch_warnings():
        # It warns that format 3 does not specify this yet; without it xarray warns every reader that it is missing.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(group.store, zarr_format=3)


def _copy(group: zarr.Group, scores: xr.Dataset, name: str) -> None:
    """Copy an array (window, y, x) a few windows and blocks at a time."""
    layer = scores[name].transpose("window", "y", "x")
    preferred = scores[name].encoding.get("preferred_chunks", {})
    chunks = tuple(min(int(preferred.get(axis, _SIDE)), layer.sizes[axis]) for axis in ("window", "y", "x"))
    kept = {key: value for key, value in layer.attrs.items() if key in ("long_name", "units", "valid_range")}
    coordinates = " ".join(name for name in (*_TIMES[:3], "n_obs", "provisional", "spatial_ref") if name in scores)
    attributes = {**kept, "coordinates": coordinates}
    array = _create(group, name, layer.shape, np.dtype(np.float32), chunks, ("window", "y", "x"), attributes, np.nan)
    for y, x in pixel_blocks(checked_score(scores)):
        for run in window_runs(layer, y=y.stop - y.start, x=x.stop - x.start):
            array[run, y, x] = np.asarray(layer[run, y, x].values, np.float32)


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    dims: tuple[str, ...],
    attributes: Mapping[str, Any],
    fill: Any,
) -> zarr.Array[Any]:
    # Readers of CF look for _FillValue among the attributes; NaN there is Zarr's own affair.
    stated = {} if isinstance(fill, float) else {"_FillValue": fill}
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        fill_value=fill,
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
        dimension_names=dims,
        attributes={"grid_mapping": "spatial_ref", **attributes, **stated},
    )


def _maps(scores: xr.Dataset, events: Sequence[Event], options: EventOptions, cube: Cube | None) -> Iterator[_Map]:
    maps = score_maps(scores, threshold=options.threshold)
    limit = {"threshold": options.threshold}
    plain = {"units": "1", "coordinates": "spatial_ref"}
    yield _Map("score_max", maps.maximum, {**plain, "long_name": "highest score over time"}, np.nan)
    if "spread" in scores:
        what = "standard deviation of the members' scores in the window with the highest score"
        yield _Map("spread_max", spread_of_maximum(scores, maps), {**plain, "long_name": what}, np.nan)
    at = maps.window_of_maximum
    counts = scores["n_obs"].values.astype(np.int32)
    observations = np.where(at >= 0, counts[np.maximum(at, 0)], NO_DATE).astype(np.int32)
    what = "observations (steps) of the window with the highest score"
    yield _Map("observations", observations, {**plain, "long_name": what}, NO_DATE)
    what = "number of windows at or above the threshold"
    yield _Map("count", maps.count, {**plain, **limit, "long_name": what}, NO_DATE)
    dates = date_maps(scores, threshold=options.threshold, low=options.low, cube=cube)
    days = {
        "dated_by": dates.source,
        "units": "days since 1970-01-01",
        "calendar": "proleptic_gregorian",
        "coordinates": "spatial_ref",
    }
    for edge, what in (("first", "day on which the strongest change began"), ("last", "day on which it ended")):
        for suffix, bound in (("", ""), ("_low", ", lower bound of 90 %"), ("_high", ", upper bound of 90 %")):
            name = f"{edge}_date" if not suffix else f"{edge}{suffix}"
            yield _Map(
                name, getattr(dates, f"{edge}{suffix}"), {**days, **limit, "long_name": f"{what}{bound}"}, NO_DATE
            )
    # "day", not "days": xarray would turn the latter into timedelta64.
    yield _Map("duration", dates.duration, {**plain, "units": "day", "long_name": "from first to last date"}, NO_DATE)
    yield _Map(
        "status",
        status_map(events, grid_of(scores), scored=np.isfinite(maps.maximum)),
        {
            "coordinates": "spatial_ref",
            "long_name": "status of the event",
            "flag_values": list(STATUS_MEANINGS),
            "flag_meanings": " ".join(STATUS_MEANINGS.values()),
        },
        int(AlertStatus.NODATA),
    )
