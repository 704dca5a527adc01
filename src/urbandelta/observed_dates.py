"""When a change began and ended, from what the pixel itself showed: sharpens what the scores say (`dating`).

The run of windows that flags a change says when it happened to within weeks or months. Within that, the series of the
pixel tells more. To optical sensors the ground goes through the seasons before works, is bare and keeps still on the
open site, and keeps still at another level once the building stands. Radar sees through clouds, but hardly tells a
field from an open site; it sees walls. So a series is three stretches with two dates between them, or two with one:

    optical   before | site | built          first date: before -> site
    radar          open     | built          last date: site -> built

For every pair of candidate days the evidence of the stretches is worked out in closed form: each feature of a stretch
is normal with an unknown mean and an unknown variance, about which all that is known beforehand is its usual size. A
grid of pairs, times what the scores say about either date, gives the joint posterior of both; its quantiles are the
dates and their intervals.

Only acquisitions count that the windows of the run and those on its flanks reach, so that later ones never move a date
of what is over. Features are means over the pixel and its neighbours with a run at the same time. A pixel with next to
no valid optical acquisition keeps what the scores say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Stream, StreamKind
from urbandelta.score_runs import Runs, WindowTable, linked_runs
from urbandelta.types import Array, BoolArray, FloatArray

if TYPE_CHECKING:
    from urbandelta.dating import RunDates
    from urbandelta.store import Cube

Days = npt.NDArray[np.float64]

BOUNDS = ("first", "first_low", "first_high", "last", "last_low", "last_high")
"""Fields of `RunDates` and `DateMaps`."""
STRETCHES: Mapping[StreamKind, tuple[str, ...]] = {"optical": ("before", "site", "built"), "sar": ("open", "built")}
OPTICAL_FEATURES = ("ndvi", "log_green", "log_swir16")
"""Of plants, of visible and of short-wave brightness; every optical sensor of the table has these bands. The features
of a radar stream are the logarithms of its bands."""
ROLES = ("green", "red", "nir", "swir16")
CANDIDATES = 64
"""Days tried for either date."""
_REACH = 0.1
"""How far beyond the intervals of the scores days are tried, as a share of the window."""
_SHAPE = 2.0
"""Shape of the inverse gamma law of a variance: the fewest degrees of freedom that give it a mean."""
_MEAN_WEIGHT: Mapping[str, float] = {"before": 0.1, "open": 0.1, "site": 0.01, "built": 0.01}
"""Acquisitions that the prior of a stretch's mean is worth, which lies at the mean of the series: next to nothing."""
_FEWEST = 6
"""Valid optical acquisitions that three stretches need."""
_SMALLEST = np.float32(1e-3)
_TILE_PX = 128
_MOST_RUNS = 2048
"""Runs whose series are held at once."""
_BATCH = 8
"""Acquisitions read at once."""
_RUNS_AT_ONCE = 64
"""Joint posteriors held at once: 64 x 64 candidates each."""


@dataclass(frozen=True, eq=False)
class Series:
    """What some runs showed in one stream, oldest first."""

    kind: StreamKind
    features: tuple[str, ...]
    days: Days
    """(time,) days since 1970-01-01, with the time of day as a fraction."""
    values: npt.NDArray[np.float64]
    """(time, run, feature); anything where not valid."""
    valid: BoolArray
    """(time, run)."""


@cache
def observed_table() -> Mapping[str, Any]:
    """Constants of every era that has been calibrated, made by `experiments/dating/fit_observed.py`.

    `evidence` is the share that counts of the evidence of each kind of stream, as errors of features and acquisitions
    go together, and of that of the scores; `spread` the usual standard deviation by kind, stretch and feature; `shift`
    days added to dates, `widen` to either side of their intervals.
    """
    text = files("urbandelta").joinpath("data/observed_dates.json").read_text("utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


# ---------------------------------------------------------------- reading


def features_of_stream(stream: Stream, bands: Sequence[str]) -> tuple[str, ...]:
    """Features that a stream shows whose cube holds `bands`; none if it lacks a band."""
    if stream.kind == "sar":
        return tuple(f"log_{band.lower()}" for band in bands)
    return OPTICAL_FEATURES if all(stream.roles.get(role) in bands for role in ROLES) else ()


def features_of(values: Array, stream: Stream, bands: Sequence[str]) -> FloatArray:
    """Features (..., feature) of linear power or reflectance (..., band)."""
    if stream.kind == "sar":
        return np.log(np.maximum(values, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)
    green, red, nir, swir16 = (np.maximum(values[..., bands.index(stream.roles[role])], _SMALLEST) for role in ROLES)
    return np.stack([(nir - red) / (nir + red), np.log(green), np.log(swir16)], axis=-1).astype(np.float32, copy=False)


def read_series(cube: Cube, name: str, runs: Runs, width: int, begin: float, stop: float) -> Series:
    """Series of the pixels of some runs in a stream, from day `begin` to day `stop`, both inclusive.

    Reads the pixels' bounding box a few acquisitions at a time.
    """
    times = _days_of(cube.times(name))
    first, last = int(np.searchsorted(times, begin, "left")), int(np.searchsorted(times, stop, "right"))
    rows, columns = np.divmod(runs.pixel, width)
    y, x = (slice(int(at.min()), int(at.max()) + 1) for at in (rows, columns))
    stream, bands = cube.era.stream(name), cube.bands(name)
    features = features_of_stream(stream, bands)
    values = np.zeros((last - first, len(runs), len(features)), np.float32)
    valid = np.zeros((last - first, len(runs)), np.bool_)
    for start in range(first, last, _BATCH):
        part = slice(start, min(start + _BATCH, last))
        read, mask = cube.read(name, part, y, x)
        seen = read[:, rows - y.start, columns - x.start]
        here = slice(part.start - first, part.stop - first)
        valid[here] = (mask[:, rows - y.start, columns - x.start] == 0) & np.isfinite(seen).all(axis=-1)
        values[here] = features_of(np.where(valid[here][..., None], seen, 0), stream, bands)
    return Series(stream.kind, features, times[first:last], values.astype(np.float64), valid)


def pooled(series: Series, target: npt.NDArray[np.int64], source: npt.NDArray[np.int64], count: int) -> Series:
    """Series of the first `count` runs, each the mean of its own (target) and of all that are linked to it (source).

    Where a run itself is masked it stays so.
    """
    weight = series.valid[..., None].astype(np.float64)
    own = np.where(weight > 0, series.values, 0.0)
    total, number = own[:, :count].copy(), weight[:, :count].copy()
    np.add.at(total.swapaxes(0, 1), target, own.swapaxes(0, 1)[source])
    np.add.at(number.swapaxes(0, 1), target, weight.swapaxes(0, 1)[source])
    return replace(series, values=total / np.maximum(number, 1.0), valid=series.valid[:, :count])


# ---------------------------------------------------------------- estimating


def joint_evidence(series: Series, candidates: Days, spread: Mapping[str, Mapping[str, float]]) -> Days:
    """Logarithm of the evidence of each pair of dates, up to a constant of each run.

    Parameters
    ----------
    series : Series
    candidates : ndarray, shape (run, candidate)
        Days tried, ascending.
    spread : mapping
        Usual standard deviation by stretch and feature.

    Returns
    -------
    ndarray, shape (run, candidate, candidate)
        The first date varies along the second axis, the last one along the third. Where the last one comes first there
        is no meaning. Of radar the second axis has length 1: it says nothing about the first date.
    """
    before = np.searchsorted(series.days, candidates)  # acquisitions before each candidate
    row = np.arange(len(candidates))[:, None]
    weight = series.valid.astype(np.float64)
    n = _running(weight)
    found = np.zeros(())
    for k, feature in enumerate(series.features):
        values = series.values[..., k]
        centre = np.where(weight > 0, values, 0).sum(axis=0) / np.maximum(n[-1], 1)
        x = np.where(weight > 0, values - centre, 0.0)
        sums = [n, _running(x), _running(x * x)]
        to = [each[before, row] for each in sums]  # (run, candidate)
        rest = [(each[-1][:, None] - upto)[:, None, :] for each, upto in zip(sums, to, strict=True)]
        if series.kind == "optical":
            between = [each[:, None, :] - each[:, :, None] for each in to]
            parts = {"before": [each[:, :, None] for each in to], "site": between, "built": rest}
        else:
            parts = {"open": [each[:, None, :] for each in to], "built": rest}
        for stretch, (count, total, squares) in parts.items():
            found = found + _evidence(count, total, squares, _MEAN_WEIGHT[stretch], spread[stretch][feature])
    return found


def _running(values: Days) -> Days:
    """Sums (time + 1, run) over everything before each time."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])


@cache
def _of_count(most: int, mean_weight: float) -> Days:
    """The part of a stretch's evidence that depends on the number of its acquisitions alone (number,)."""
    return np.array(
        [
            math.lgamma(_SHAPE + n / 2) - math.lgamma(_SHAPE) + 0.5 * math.log(mean_weight / (mean_weight + n))
            for n in range(most + 1)
        ]
    )


def _evidence(count: Days, total: Days, squares: Days, mean_weight: float, spread: float) -> Days:
    """Evidence of a normal stretch with a normal-inverse-gamma prior around zero, from its sums."""
    count = np.maximum(count, 0.0)
    scale = _SHAPE * spread * spread
    rest = scale + 0.5 * np.maximum(squares - total * total / (mean_weight + count), 0.0)
    table = _of_count(int(count.max(initial=0)), mean_weight)
    found: Days = table[count.astype(np.intp)] - (_SHAPE + count / 2) * np.log(rest) + _SHAPE * math.log(scale)
    return found


def _log_prior(candidates: Days, dates: RunDates, which: str, part: slice) -> Days:
    """What the scores say of a date: exponential flanks (run, candidate) with 5 % of the probability beyond a bound."""
    low, middle, high = (getattr(dates, f"{which}{suffix}")[part] for suffix in ("_low", "", "_high"))
    below, above = (np.maximum(side, 1.0)[:, None] / math.log(10) for side in (middle - low, high - middle))
    away = candidates - middle[:, None]
    flanks: Days = -np.where(away < 0, -away / below, away / above)
    return flanks


def _quantile(probability: Days, candidates: Days, share: float) -> Days:
    """Day (run,) before which lies a share of the probability (run, candidate), each spread evenly over its cell."""
    row = np.arange(len(probability))
    upto = np.cumsum(probability, axis=1)
    at = (upto >= share * upto[:, -1:]).argmax(axis=1)
    inside = (share * upto[:, -1] - (upto[row, at] - probability[row, at])) / np.maximum(probability[row, at], 1e-300)
    step = candidates[:, 1] - candidates[:, 0]
    found: Days = candidates[row, at] + (np.clip(inside, 0, 1) - 0.5) * step
    return found


def posterior_quantiles(
    series: Sequence[Series], dates: RunDates, *, window_days: float, row: Mapping[str, Any]
) -> dict[str, Days]:
    """Quantiles of the posterior of both dates, before any calibration.

    Parameters
    ----------
    series : sequence of Series
        Of each stream, for the same runs.
    dates : RunDates
        What the scores say.
    window_days : float
    row : mapping
        Of `observed_table`; `evidence` and `spread` are used.

    Returns
    -------
    dict of ndarray, shape (run,)
        `first_low`, `first`, `first_high`, `last_low`, `last`, `last_high`: the 5, 50 and 95 % points, days.
    """
    low = dates.first_low - _REACH * window_days
    high = np.maximum(dates.first_high, dates.last_high) + _REACH * window_days
    found: dict[str, list[Days]] = {}
    for start in range(0, low.size, _RUNS_AT_ONCE):
        part = slice(start, start + _RUNS_AT_ONCE)
        candidates = np.linspace(low[part], high[part], CANDIDATES, axis=1)
        first, last = (_log_prior(candidates, dates, which, part) for which in ("first", "last"))
        joint = row["evidence"]["scores"] * (first[:, :, None] + last[:, None, :])
        for one in series:
            mine = replace(one, values=one.values[:, part], valid=one.valid[:, part])
            joint += row["evidence"][one.kind] * joint_evidence(mine, candidates, row["spread"][one.kind])
        joint[:, np.tri(CANDIDATES, k=-1, dtype=bool)] = -np.inf
        joint = np.exp(joint - joint.max(axis=(1, 2), keepdims=True))
        for which, probability in (("first", joint.sum(axis=2)), ("last", joint.sum(axis=1))):
            for suffix, share in (("_low", 0.05), ("", 0.5), ("_high", 0.95)):
                found.setdefault(f"{which}{suffix}", []).append(_quantile(probability, candidates, share))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def seen_enough(series: Sequence[Series]) -> BoolArray:
    """Which runs (run,) have enough valid optical acquisitions for dates of their own."""
    enough: BoolArray = sum(one.valid.sum(axis=0) for one in series if one.kind == "optical") >= np.int64(_FEWEST)
    return enough


def calibrated(quantiles: Mapping[str, Days], dates: RunDates, enough: BoolArray, row: Mapping[str, Any]) -> RunDates:
    """Dates in whole days from quantiles of the posterior, moved and widened; if not `enough`, those of the scores."""
    moved: dict[str, Days] = {}
    for which in ("first", "last"):
        shift, widen = row["shift"][which], row["widen"][which]
        moved[which] = quantiles[which] + shift
        moved[f"{which}_low"] = quantiles[f"{which}_low"] + shift - widen
        moved[f"{which}_high"] = quantiles[f"{which}_high"] + shift + widen
    kept: Any = {name: np.where(enough, values, getattr(dates, name)) for name, values in whole_days(moved).items()}
    return replace(dates, **kept)


def whole_days(bounds: Mapping[str, Days]) -> dict[str, npt.NDArray[np.int32]]:
    """Dates with bounds, see `BOUNDS`, in whole days: each inside its interval, and no last date before the first."""
    days: dict[str, npt.NDArray[np.int32]] = {}
    for which in ("first", "last"):
        days[which] = np.floor(bounds[which]).astype(np.int32)
        days[f"{which}_low"] = np.minimum(np.floor(bounds[f"{which}_low"]), days[which]).astype(np.int32)
        days[f"{which}_high"] = np.maximum(np.ceil(bounds[f"{which}_high"]), days[which]).astype(np.int32)
    days["last"] = np.maximum(days["last"], days["first"])
    days["last_high"] = np.maximum(days["last_high"], days["last"])
    return days


# ---------------------------------------------------------------- the whole


def observed_dates(
    runs: Runs, dates: RunDates, windows: WindowTable, cube: Cube, *, window_days: float, row: Mapping[str, Any]
) -> RunDates | None:
    """Sharpen the dates of any number of runs by the observations behind them, tile by tile.

    Parameters
    ----------
    runs : Runs
        As `find_runs` orders them, on the grid of the cube: only those that reach the threshold.
    dates : RunDates
        What the scores say about them.
    windows : WindowTable
    cube : Cube
        That the scores come from.
    window_days : float
    row : mapping
        Of `observed_table`.

    Returns
    -------
    RunDates or None
        None if the cube has no optical stream that shows the features.
    """
    names = [name for name in streams_of(cube) if _calibrated(cube, name, row)]
    if not any(cube.era.stream(name).kind == "optical" for name in names):
        return None
    sharper = dates.copy()
    for mine, series in run_series(runs, windows, cube, names, window_days=window_days):
        part = dates.take(mine)
        quantiles = posterior_quantiles(series, part, window_days=window_days, row=row)
        sharper.put(mine, calibrated(quantiles, part, seen_enough(series), row))
    return replace(sharper, source="observations")


def streams_of(cube: Cube) -> list[str]:
    """Streams of a cube that show features."""
    return [name for name in cube.streams if features_of_stream(cube.era.stream(name), cube.bands(name))]


def _calibrated(cube: Cube, name: str, row: Mapping[str, Any]) -> bool:
    """Whether the row has all features of a stream: a radar may have bands that no calibration has seen."""
    stream = cube.era.stream(name)
    return set(features_of_stream(stream, cube.bands(name))) <= set(row["spread"].get(stream.kind, {}).get("built", {}))


def run_series(
    runs: Runs, windows: WindowTable, cube: Cube, names: Sequence[str], *, window_days: float
) -> Iterator[tuple[npt.NDArray[np.intp], list[Series]]]:
    """Runs of one block after the other, as positions in `runs`, with their series in each of the streams `names`."""
    width = cube.grid.width
    begin = np.maximum(runs.edges.fall - window_days, windows.start[0])
    stop = windows.end[np.minimum(runs.edges.after, len(windows) - 1)]
    blocks = _blocks(runs, width)
    block = np.empty(len(runs), np.int64)
    for number, mine in enumerate(blocks):
        block[mine] = number
    one, other = linked_runs(runs, width)
    target, source = np.concatenate([one, other]), np.concatenate([other, one])
    # Stable: the links of a run keep their order, and so its sums their last bit, whatever else lies in the block.
    order = np.argsort(block[target], kind="stable")
    target, source = target[order], source[order]
    limits = np.searchsorted(block[target], np.arange(len(blocks) + 1))
    position = np.empty(len(runs), np.int64)
    for number, mine in enumerate(blocks):
        links = slice(limits[number], limits[number + 1])
        gathered = np.concatenate([mine, np.setdiff1d(source[links], mine)])
        position[gathered] = np.arange(gathered.size)
        members, to, by = runs.take(gathered), position[target[links]], position[source[links]]
        # What the block's runs reach in all; each then looks at its own part.
        span = float(begin[mine].min()), float(stop[mine].max())
        read = (pooled(read_series(cube, name, members, width, *span), to, by, mine.size) for name in names)
        yield mine, [_within(series, begin[mine], stop[mine]) for series in read]


def _blocks(runs: Runs, width: int) -> list[npt.NDArray[np.intp]]:
    """Runs tile by tile, of a tile with very many a part after the other; as positions."""
    rows, columns = np.divmod(runs.pixel, width)
    tile = rows // _TILE_PX * (-(-width // _TILE_PX)) + columns // _TILE_PX
    order = np.argsort(tile, kind="stable")
    tiles = np.split(order, np.flatnonzero(np.diff(tile[order])) + 1)
    return [part[k : k + _MOST_RUNS] for part in tiles for k in range(0, part.size, _MOST_RUNS)]


def _within(series: Series, begin: Days, stop: Days) -> Series:
    """Only acquisitions from `begin` (run,) to `stop` (run,) are valid."""
    days = series.days[:, None]
    return replace(series, valid=series.valid & (days >= begin) & (days <= stop))


def _days_of(times: Array) -> Days:
    seconds: Days = times.astype("datetime64[s]").astype(np.float64)
    return seconds / 86_400
