"""Maps from scores, and the GeoTIFFs that carry them.

A map is folded out of the score array block by block, so memory depends on the block and on one map, never on
the number of windows times the area. Dates follow one convention everywhere: int32 days since 1970-01-01 in UTC,
-1 where there is none (1991 must fit, and a viewer must be able to subtract two of them).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr

from urbandelta.cog import content_digest, known_digest, next_action, write_cog
from urbandelta.dating import LOW, NO_DATE, DateSource, date_maps
from urbandelta.errors import ProductError
from urbandelta.grid import Grid
from urbandelta.types import Array, FloatArray, Progress, TimeArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = [
    "NO_DATE",
    "ExportReport",
    "PeriodMap",
    "Product",
    "ScoreMaps",
    "days_of",
    "export_cogs",
    "grid_of",
    "period_maxima",
    "products_of",
    "score_maps",
    "write_cog",
]

log = logging.getLogger(__name__)

DaysArray: TypeAlias = npt.NDArray[np.int32]
Which: TypeAlias = Literal["max", "maps", "windows", "monthly"]

# One float32 block with its comparisons stays near 200 MB, the fold's only working memory besides the maps themselves.
BLOCK_BYTES = 48 * 2**20
SPAN_PX = 1024


@dataclass(frozen=True, eq=False)
class ScoreMaps:
    """What a series of scores says about each pixel; every map has shape (y, x).

    `first_date` and `last_date` are the middles of the first and the last window whose score reaches `threshold`: the
    time over which a pixel was flagged. `change_date` estimates when it changed (see `dating`).
    """

    maximum: FloatArray
    """Highest score of all windows; NaN where no window was scored."""
    window_of_maximum: npt.NDArray[np.int32]
    """Index of the (first) window with the highest score; -1 where none was scored."""
    count: npt.NDArray[np.int32]
    """Number of windows whose score reaches the threshold; -1 where none was scored."""
    first_date: DaysArray
    last_date: DaysArray
    change_date: DaysArray
    """Day on which the pixel's strongest change began."""
    threshold: float
    dated_by: DateSource = "scores"
    """What `change_date` rests on."""


@dataclass(frozen=True, eq=False)
class PeriodMap:
    """Highest score of the windows whose middles lie in `[start, end)`; all NaN if `windows` is 0."""

    start: np.datetime64
    end: np.datetime64
    maximum: FloatArray
    windows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """One map ready to be written."""

    name: str
    array: Array
    nodata: float
    description: str
    categories: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[int, int, int, int]] | None = None
    """Palette of a uint8 map."""


@dataclass(frozen=True)
class ExportReport:
    """What an export did: files written now, and files that were already there with the same content."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


# ---------------------------------------------------------------- scores to maps


def days_of(times: TimeArray | np.datetime64) -> Any:
    """Whole days since 1970-01-01 (UTC, rounded down) as int32, of one time or an array of times."""
    days = np.asarray(times).astype("datetime64[D]").astype(np.int64)
    return days.astype(np.int32)


def window_runs(score: xr.DataArray, *, y: int, x: int) -> Iterator[slice]:
    """Runs of windows whose scores for `y` times `x` pixels fill no more than `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // (4 * y * x))
    for start in range(0, score.sizes["window"], step):
        yield slice(start, min(start + step, score.sizes["window"]))


def pixel_blocks(score: xr.DataArray) -> Iterator[tuple[slice, slice]]:
    """Blocks `(y, x)` that cover the map once, whole chunks of the store each, at most about 1024 px a side."""
    chunks = score.encoding.get("preferred_chunks", {})
    spans = []
    for axis in ("y", "x"):
        chunk = min(int(chunks.get(axis, SPAN_PX)), SPAN_PX)
        step = SPAN_PX // chunk * chunk
        spans.append([slice(start, start + step) for start in range(0, score.sizes[axis], step)])
    for y in spans[0]:
        for x in spans[1]:
            yield y, x


def score_maps(scores: xr.Dataset, *, threshold: float = 0.5, cube: Cube | None = None) -> ScoreMaps:
    """Fold a series of scores into maps of its maximum, its count above a threshold, and its dates.

    Parameters
    ----------
    scores : xarray.Dataset
        `score (window, y, x)` in 0..1, NaN where nothing was computed; along `window`, `window_start` and `window_end`,
        and `time`, the windows' middles.
    threshold : float
        A score that is at least this counts as change.
    cube : Cube, optional
        That of the scores: with it `change_date` rests on the observations.

    Raises
    ------
    ProductError
        If there is no window, or the threshold is outside 0..1.
    """
    score = checked_score(scores)
    check_threshold(threshold)
    days = days_of(scores["time"].values)
    in_time = np.argsort(scores["window_start"].values, kind="stable")
    shape = (score.sizes["y"], score.sizes["x"])
    maximum = np.full(shape, -np.inf, np.float32)
    at, first, last = (np.full(shape, NO_DATE, np.int32) for _ in range(3))
    count = np.zeros(shape, np.int32)
    for y, x in pixel_blocks(score):
        height, width = maximum[y, x].shape
        for run in window_runs(score, y=height, x=width):
            members = in_time[run]
            values = np.array(score[_as_slice(members), y, x].values, np.float32)
            values[np.isnan(values)] = -np.inf
            best = values.argmax(axis=0)
            peak = np.take_along_axis(values, best[None], axis=0)[0]
            higher = peak > maximum[y, x]  # strictly: of equal scores the earliest window stays
            maximum[y, x] = np.where(higher, peak, maximum[y, x])
            at[y, x] = np.where(higher, members[best], at[y, x])
            above = values >= threshold
            count[y, x] += above.sum(axis=0, dtype=np.int32)
            _credit_dates(first[y, x], last[y, x], above, days[members])
    unseen = np.isneginf(maximum)
    maximum[unseen], count[unseen] = np.nan, NO_DATE
    dates = date_maps(scores, threshold=threshold, low=min(LOW, threshold), cube=cube)
    return ScoreMaps(maximum, at, count, first, last, dates.first, threshold, dates.source)


def spread_of_maximum(scores: xr.Dataset, maps: ScoreMaps) -> FloatArray:
    """How far the members of an ensemble differ (y, x) in each pixel's window with the highest score; NaN where none.

    `scores` must hold `spread` (window, y, x), as `urbandelta ensemble` writes it.
    """
    spread = scores["spread"].transpose("window", "y", "x")
    found = np.full(maps.maximum.shape, np.nan, np.float32)
    # Chunks of the score are those of the spread.
    for y, x in pixel_blocks(checked_score(scores)):
        at = maps.window_of_maximum[y, x]
        for run in window_runs(spread, y=at.shape[0], x=at.shape[1]):
            inside = (at >= run.start) & (at < run.stop)
            if inside.any():
                values = np.asarray(spread[run, y, x].values, np.float32)
                chosen = np.take_along_axis(values, np.where(inside, at - run.start, 0)[None], axis=0)[0]
                np.copyto(found[y, x], chosen, where=inside)
    return found


def _as_slice(members: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Consecutive windows as a slice, which a store reads without gathering."""
    consecutive = bool((np.diff(members) == 1).all())
    return slice(int(members[0]), int(members[-1]) + 1) if consecutive else members


def _credit_dates(first: DaysArray, last: DaysArray, above: npt.NDArray[np.bool_], days: DaysArray) -> None:
    """Widen `first` and `last` (y, x) in place to the days of the windows flagged in `above` (window, y, x)."""
    for flags, day in zip(above, days, strict=True):
        first[flags & ((first == NO_DATE) | (first > day))] = day
        last[flags & (last < day)] = day


def period_starts(times: TimeArray, *, months: int = 1) -> npt.NDArray[np.datetime64]:
    """First days of the calendar periods of `months` months from the earliest to the latest of `times`.

    Periods are anchored to January 1970, so three months are calendar quarters and twelve are years.
    """
    number = times.astype("datetime64[M]").astype(np.int64) // months
    return (np.arange(number.min(), number.max() + 1) * months).astype("datetime64[M]").astype("datetime64[D]")


def period_maxima(scores: xr.Dataset, *, months: int = 1) -> Iterator[PeriodMap]:
    """Yield the highest score of each calendar period, oldest first, one map in memory at a time.

    A score belongs to the period that holds its window's middle. Periods between the first and the last that hold
    no window's middle are yielded too, so that a gap shows as a gap.

    Parameters
    ----------
    scores : xarray.Dataset
        As for `score_maps`.
    months : int
        Length of a period: 1 for monthly maps, 3 for quarters, 12 for years.
    """
    score = checked_score(scores)
    middles = scores["time"].values
    number = middles.astype("datetime64[M]").astype(np.int64) // months
    height, width = score.sizes["y"], score.sizes["x"]
    for start in period_starts(middles, months=months):
        month = start.astype("datetime64[M]")
        members = np.flatnonzero(number == int(month.astype(np.int64)) // months)
        maximum = np.full((height, width), np.nan, np.float32)
        step = max(1, BLOCK_BYTES // (4 * height * width))
        for k in range(0, members.size, step):
            for values in np.asarray(score[members[k : k + step]].values, np.float32):
                np.fmax(maximum, values, out=maximum)
        yield PeriodMap(start, (month + months).astype("datetime64[D]"), maximum, int(members.size))


def checked_score(scores: xr.Dataset) -> xr.DataArray:
    """The score array in axis order `(window, y, x)`; raises `ProductError` if it is missing or holds no window."""
    if "score" not in scores or set(scores["score"].dims) != {"window", "y", "x"}:
        raise ProductError("no score (window, y, x) in this dataset; open a score store that `predict` wrote")
    if 0 in scores["score"].shape:
        raise ProductError("the score store holds no window; run `urbandelta predict` with wider dates first")
    return scores["score"].transpose("window", "y", "x")


def check_threshold(threshold: float) -> None:
    """Raise `ProductError` unless `threshold` lies in 0..1 (0 itself would call every pixel changed)."""
    if not 0 < threshold <= 1:
        raise ProductError(f"threshold {threshold:g} is not in (0, 1]; scores lie between 0 and 1, try 0.5")


# ---------------------------------------------------------------- provenance

PROVENANCE = (
    "weights_name",
    "weights_sha256",
    "cube_url",
    "cube_snapshot",
    "version",
    "era",
    "parameters",
    "substitutions",
    "accepted",
    "unstated",
    "rule",
    "members",
)


def provenance_of(scores: xr.Dataset) -> dict[str, str]:
    """The attributes of a score store that say where its scores come from, as text (JSON for nested ones)."""
    kept = {name: scores.attrs[name] for name in PROVENANCE if name in scores.attrs}
    return {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True, default=str) for k, v in kept.items()}


def grid_of(scores: xr.Dataset) -> Grid:
    """The grid of a score dataset: the one it names exactly, else that of its CF grid mapping.

    Raises
    ------
    ProductError
        If the dataset carries no CRS or no pixel transform.
    """
    if "grid" in scores.attrs:
        return Grid.from_json(str(scores.attrs["grid"]))
    mapping = scores["spatial_ref"].attrs if "spatial_ref" in scores.variables else {}
    crs, transform = mapping.get("crs_wkt", mapping.get("spatial_ref")), mapping.get("GeoTransform")
    if not crs or not transform:
        raise ProductError("the scores carry no CF grid mapping (spatial_ref with crs_wkt and GeoTransform)")
    c, a, b, f, d, e = (float(v) for v in str(transform).split())
    parsed = rasterio.crs.CRS.from_wkt(str(crs))
    epsg = parsed.to_epsg()
    return Grid(
        crs=f"EPSG:{epsg}" if epsg else str(crs),
        transform=(a, b, c, d, e, f),
        height=scores.sizes["y"],
        width=scores.sizes["x"],
    )


# ---------------------------------------------------------------- maps to files


def products_of(
    scores: xr.Dataset, *, which: Which, threshold: float = 0.5, cube: Cube | None = None
) -> Iterator[Product]:
    """Yield the maps of one kind, one at a time.

    `max`: the maximum over time, and the spread there if the scores are an ensemble's. `maps`: these and the window of
    the maximum, the count of windows at or above the threshold, first and last date, date of change. `monthly`: the
    maximum of each calendar month. `windows`: each window's scores. `cube` as for `score_maps`.
    """
    if which == "windows":
        yield from _window_products(scores)
    elif which == "monthly":
        for period in period_maxima(scores):
            label = str(period.start.astype("datetime64[M]"))
            if period.windows:
                tags = {"month": label, "windows": str(period.windows)}
                what = f"highest score of the windows centred in {label}"
                yield Product(name=f"score_{label}", array=period.maximum, nodata=np.nan, description=what, tags=tags)
    else:
        maps = score_maps(scores, threshold=threshold, cube=cube if which == "maps" else None)
        yield Product(name="score_max", array=maps.maximum, nodata=np.nan, description="highest score over time")
        if "spread" in scores:
            what = "standard deviation of the members' scores in the window with the highest score"
            array = spread_of_maximum(scores, maps)
            yield Product(name="spread_max", array=array, nodata=np.nan, description=what)
        if which == "maps":
            yield from _summary_products(maps)


def _summary_products(maps: ScoreMaps) -> Iterator[Product]:
    limit = {"threshold": f"{maps.threshold:g}"}
    days = {**limit, "units": "days since 1970-01-01", "estimator": "middle of the window"}
    run_days = {**days, "estimator": f"first date of the strongest flagged run, by {maps.dated_by}"}
    rows: tuple[tuple[str, Array, str, dict[str, str]], ...] = (
        ("window_of_max", maps.window_of_maximum, "index of the window with the highest score", {}),
        ("count", maps.count, "number of windows at or above the threshold", limit),
        ("first_date", maps.first_date, "middle of the first window at or above the threshold", days),
        ("last_date", maps.last_date, "middle of the last window at or above the threshold", days),
        ("change_date", maps.change_date, "day of change", run_days),
    )
    for name, array, what, tags in rows:
        yield Product(name=name, array=array, nodata=NO_DATE, description=what, categories=True, tags=tags)


def _window_products(scores: xr.Dataset) -> Iterator[Product]:
    score = checked_score(scores)
    bounds = [np.datetime_as_string(scores[name].values, unit="s") for name in ("window_start", "window_end")]
    middles = np.datetime_as_string(scores["time"].values, unit="s")
    observations = scores["n_obs"].values
    for run in window_runs(score, y=score.sizes["y"], x=score.sizes["x"]):
        for k, values in enumerate(np.asarray(score[run].values, np.float32), start=run.start):
            start, end = bounds[0][k], bounds[1][k]
            yield Product(
                name=f"window_{k:04d}_{start[:10].replace('-', '')}_{end[:10].replace('-', '')}",
                array=values,
                nodata=np.nan,
                description=f"score of the window {start}Z to {end}Z",
                tags={
                    "window": str(k), "window_start": f"{start}Z", "window_end": f"{end}Z",
                    "time": f"{middles[k]}Z", "n_obs": str(observations[k]),
                },
            )  # fmt: skip


def export_cogs(
    scores: xr.Dataset,
    folder: str | os.PathLike[str],
    *,
    which: Which = "max",
    threshold: float = 0.5,
    cube: Cube | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write maps as GeoTIFFs into a folder; running it twice writes nothing the second time.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    folder : path
        Made if absent.
    which : {"max", "maps", "windows", "monthly"}
        See `products_of`.
    threshold : float
        For the maps of counts and dates.
    cube : Cube, optional
        That of the scores: with it `change_date` rests on the observations.
    overwrite : bool
        Replace a file of the same name that holds something else.
    progress : callable, optional

    Raises
    ------
    ProductError
        If a file of the same name holds another result and `overwrite` is not set, or the threshold is outside 0..1.
    """
    check_threshold(threshold)
    extra = int("spread" in scores)
    total = {"max": 1 + extra, "maps": 6 + extra, "windows": scores.sizes["window"]}.get(which, 0)
    return write_products(
        products_of(scores, which=which, threshold=threshold, cube=cube),
        folder,
        grid=grid_of(scores),
        provenance=provenance_of(scores),
        overwrite=overwrite,
        total=total or period_starts(scores["time"].values).size,
        progress=progress,
    )


def write_products(
    products: Iterable[Product],
    folder: str | os.PathLike[str],
    *,
    grid: Grid,
    provenance: Mapping[str, str],
    unpinned: Collection[str] = (),
    overwrite: bool = False,
    total: int = 0,
    progress: Progress | None = None,
) -> ExportReport:
    """Write products as GeoTIFFs into a folder, made if absent; files that hold the same already are left alone.

    Parameters
    ----------
    products : iterable of Product
    folder : path
    grid : Grid
    provenance : mapping of str to str
        Tags of every file.
    unpinned : collection of str
        Tags that may differ without making a file another one: it keeps those of the run that last changed it.
    overwrite : bool
        Replace a file of the same name that holds something else.
    total : int
        For the progress.
    progress : callable, optional

    Raises
    ------
    ProductError
        If a file of the same name holds another result and `overwrite` is not set, or the folder cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProductError(f"{folder}: cannot make this folder ({error.strerror}); choose another") from error
    written: list[Path] = []
    kept: list[Path] = []
    for number, product in enumerate(products, start=1):
        path = folder / f"{product.name}.tif"
        tags = {"description": product.description, **product.tags, **provenance}
        pinned = {name: value for name, value in tags.items() if name not in unpinned}
        tags["content_sha256"] = content_digest(product.array, grid, pinned)
        if next_action(path, known_digest(path), tags["content_sha256"], overwrite=overwrite) == "keep":
            kept.append(path)
        else:
            _write_product(path, product, grid, tags)
            written.append(path)
        if progress is not None:
            progress(number, max(total, number), path.name)
    log.info("%s: %d written, %d unchanged", folder, len(written), len(kept))
    return ExportReport(tuple(written), tuple(kept))


def _write_product(path: Path, product: Product, grid: Grid, tags: Mapping[str, str]) -> None:
    write_cog(
        path,
        product.array,
        grid,
        nodata=product.nodata,
        tags=tags,
        description=product.description,
        categories=product.categories,
        colormap=product.colours,
    )
