"""How good a map of scores is: against truth, beside baselines, with intervals, for each site and all together.

The measures are of pixels that truth and scores both describe. What nobody could have seen (a change outside of the
windows' span), what is unknown and what was not scored is counted and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.area_accuracy import AreaAccuracy, area_accuracy, stratified_sample
from urbandelta.baselines import BASELINES, BreakMethod, baseline_maps
from urbandelta.bootstrap import block_numbers, block_table, score_edges, score_intervals
from urbandelta.cartography import MapFrame
from urbandelta.date_accuracy import DateErrors, date_errors
from urbandelta.errors import ConfigError, ShapeError, TruthError, UrbandeltaError
from urbandelta.metrics import (
    Calibration,
    Counts,
    Tally,
    average_precision,
    best_f1,
    calibration,
    counts_at,
    merge,
    tally,
    tally_roc_auc,
)
from urbandelta.products import ScoreMaps, check_threshold, grid_of, provenance_of, score_maps
from urbandelta.scored_cube import scored_cube
from urbandelta.store import open_cube, open_scores
from urbandelta.truth import Truth, TruthOptions, read_truth
from urbandelta.types import BoolArray, FloatArray, Progress

__all__ = ["Evaluation", "MethodResult", "Options", "Result", "Site", "SiteMaps", "evaluate", "evaluate_sites"]

log = logging.getLogger(__name__)

SCORES = "scores"
"""Name of the evaluated map among the methods."""
BLOCK_PX = 32
FLOOR = -1.0
"""Where a baseline cannot be computed it flags nothing: all of them are 0 or more."""

LIMITS = (
    "A score is not a probability; the calibration curve says how far from one it is on this truth.",
    "Pixels of one building are not independent: the intervals resample blocks of pixels (and sites), and say nothing "
    "about places unlike these.",
    "Baselines are shown at the threshold that is best on this very truth, which is optimistic for them; the scores "
    "keep the threshold that was given.",
)
SIMULATED = "This truth is simulated: it says that the method works as built, and nothing about its accuracy on Earth."


@dataclass(frozen=True, kw_only=True)
class Site:
    """One map of scores and its truth."""

    name: str
    scores: str | xr.Dataset
    truth: str | Path | Truth
    cube: str | None = None
    """Where the cube is; by default where the scores say."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to evaluate."""

    threshold: float = 0.5
    tolerance_days: int = 30
    truth: TruthOptions = field(default_factory=TruthOptions)
    baselines: bool = True
    breaks: BreakMethod | None = None
    block_px: int = BLOCK_PX
    bootstrap: int = 500
    """Rounds of resampling; 0 for no intervals."""
    sample: int | None = None
    """Draw so many pixels of each map class as a field campaign would, for the estimates of area."""
    bins: int = 10
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """One map's measures; `intervals` are (low, high) of 95 % by name of measure."""

    threshold: float
    counts: Counts
    roc_auc: float
    pr_auc: float
    best_threshold: float
    best_f1: float
    intervals: Mapping[str, tuple[float, float]]
    tally: Tally
    calibration: Calibration | None = None
    undefined: int = 0
    """Compared pixels for which the method has no value; they count as not flagged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Measures of one site, or of all pooled."""

    name: str
    compared: int
    changed: int
    unknown: int
    unscored: int
    outside: int
    """Pixels that changed at a time that the windows do not span, or not certainly."""
    blocks: int
    methods: Mapping[str, MethodResult]
    area: AreaAccuracy | None
    area_design: str
    area_note: str
    dates: DateErrors | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteMaps:
    """What the measures of a site come from; maps (y, x)."""

    name: str
    truth: Truth
    maps: ScoreMaps
    compared: BoolArray
    changed: BoolArray
    """Changed and compared."""
    values: Mapping[str, FloatArray]
    """Maps by method, without NaN among the compared pixels."""
    undefined: Mapping[str, int]
    skipped: Mapping[str, str]
    notes: tuple[str, ...]
    start: np.datetime64
    end: np.datetime64
    outside: int
    row_area_ha: npt.NDArray[np.float64]
    provenance: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The whole result; `pooled` is the first site's where there is only one."""

    options: Options
    pooled: Result
    sites: tuple[Result, ...]
    maps: tuple[SiteMaps, ...] = field(repr=False)
    limits: tuple[str, ...] = LIMITS


def evaluate(
    scores: str | xr.Dataset,
    truth: str | Path | Truth,
    *,
    cube: str | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge one map of scores by truth.

    Parameters
    ----------
    scores : URL or Dataset
        A score store, or what `open_scores` gives.
    truth : path or Truth
        See `truth.read_truth`.
    cube : URL, optional
        Cube that the baselines are made from; by default the one that the scores name.
    options : Options, optional
    progress : callable, optional

    Raises
    ------
    TruthError
        If the truth cannot be used, or shares no pixel with the scores.
    ProductError, StoreError, ConfigError
        If the scores cannot be opened, or an option is out of range.
    """
    return evaluate_sites(
        [Site(name="site", scores=scores, truth=truth, cube=cube)], options=options, progress=progress
    )


def evaluate_sites(
    sites: Sequence[Site], *, options: Options | None = None, progress: Progress | None = None
) -> Evaluation:
    """Judge several sites, each alone and all pooled; parameters and errors as in `evaluate`."""
    options = options or Options()
    _check(sites, options)
    gathered: list[SiteMaps] = []
    for number, site in enumerate(sites):

        def report(done: int, total: int, message: str, number: int = number, name: str = site.name) -> None:
            if progress is not None:
                progress(number * 1000 + 1000 * done // max(total, 1), 1000 * len(sites), f"{name}: {message}")

        gathered.append(_gather(site, options, report))
    methods = _common(gathered)
    results = tuple(_judge([maps], methods, maps.name, options) for maps in gathered)
    pooled = results[0] if len(gathered) == 1 else _judge(gathered, methods, "pooled", options)
    simulated = any("simulated" in note for maps in gathered for note in maps.notes)
    limits = (*LIMITS, *([SIMULATED] if simulated else []))
    return Evaluation(options=options, pooled=pooled, sites=results, maps=tuple(gathered), limits=limits)


def _check(sites: Sequence[Site], options: Options) -> None:
    check_threshold(options.threshold)
    if not sites:
        raise ConfigError("no site to evaluate; give scores and truth")
    if len({site.name for site in sites}) < len(sites):
        raise ConfigError(f"two sites have the same name: {', '.join(site.name for site in sites)}; name them apart")
    for name, value, least in (
        ("tolerance_days", options.tolerance_days, 0),
        ("block_px", options.block_px, 1),
        ("bootstrap", options.bootstrap, 0),
        ("sample", options.sample if options.sample is not None else 2, 2),
        ("bins", options.bins, 2),
    ):
        if value < least:
            raise ConfigError(f"{name} {value}: need at least {least}")


# ---------------------------------------------------------------- one site's maps


def _gather(site: Site, options: Options, report: Progress) -> SiteMaps:
    """Read scores, truth and baselines of a site."""
    scores = open_scores(site.scores) if isinstance(site.scores, str) else site.scores
    grid = grid_of(scores)
    truth = site.truth if isinstance(site.truth, Truth) else read_truth(site.truth, grid, options.truth)
    if truth.grid != grid:
        raise TruthError(f"{truth.source}: was read onto {truth.grid}, the scores are {grid}; read it onto their grid")
    dating_cube = scored_cube(scores) if site.cube is None else _cube(site, scores)
    maps = score_maps(scores, threshold=options.threshold, cube=dating_cube)
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    scored = np.isfinite(maps.maximum)
    seen = truth.visible(start, end) & truth.known & scored
    unchanged = truth.known & ~truth.changed & scored
    compared = seen | unchanged
    outside = int(np.count_nonzero(truth.known & truth.changed & scored & ~seen))
    if not compared.any():
        raise TruthError(
            f"{truth.source}: no pixel is both known and scored ({int(truth.known.sum())} known, {int(scored.sum())} "
            f"scored, {outside} changed outside of {_day(start)}..{_day(end)}); check its extent and its dates"
        )
    values: dict[str, FloatArray] = {SCORES: maps.maximum}
    undefined, skipped = {SCORES: 0}, {}
    notes = list(truth.notes)
    provenance = provenance_of(scores)
    if not scores.attrs.get("complete", True):
        notes.append("the scores are incomplete: predict was stopped before its end")
    if _is_simulated(site, provenance):
        notes.append("the scene is simulated")
    if options.baselines:
        try:
            found = baseline_maps(_cube(site, scores), start, end, breaks=options.breaks, progress=report)
        except ConfigError:
            raise
        except (UrbandeltaError, OSError) as error:
            skipped = {name: str(error) for name in ("change_vector", "omnibus", "index_difference")}
        else:
            skipped = dict(found.skipped)
            notes += found.notes
            for name, values_of in found.maps.items():
                undefined[name] = int(np.count_nonzero(compared & ~np.isfinite(values_of)))
                values[name] = np.where(np.isfinite(values_of), values_of, np.float32(FLOOR)).astype(np.float32)
    report(1, 1, "read")
    return SiteMaps(
        name=site.name,
        truth=truth,
        maps=maps,
        compared=compared,
        changed=seen,
        values=values,
        undefined=undefined,
        skipped=skipped,
        notes=tuple(notes),
        start=start,
        end=end,
        outside=outside,
        row_area_ha=MapFrame(grid).row_area_ha,
        provenance=provenance,
    )


def _cube(site: Site, scores: xr.Dataset) -> Any:
    """The cube at the snapshot that was scored, if it is still there."""
    url = site.cube or str(scores.attrs.get("cube_url", ""))
    if not url:
        raise ConfigError("the scores do not name a cube; give one (--cube), or leave the baselines out")
    snapshot = None if site.cube else scores.attrs.get("cube_snapshot")
    cube = open_cube(url, snapshot=snapshot)
    if cube.grid != grid_of(scores):
        raise TruthError(f"{url}: lies on another grid ({cube.grid}) than the scores ({grid_of(scores)})")
    return cube


def _is_simulated(site: Site, provenance: Mapping[str, str]) -> bool:
    """Truth that lies beside a cube, as `urbandelta simulate` leaves it."""
    cube = (site.cube or provenance.get("cube_url", "")).rstrip("/")
    source = site.truth.source if isinstance(site.truth, Truth) else str(site.truth)
    return bool(cube) and source.endswith(".truth.tif") and Path(source).name == f"{Path(cube).name}.truth.tif"


def _common(gathered: Sequence[SiteMaps]) -> list[str]:
    """Methods that every site has, in the order of the table; pooling needs the same pixels for all."""
    return [name for name in (SCORES, *BASELINES) if all(name in maps.values for maps in gathered)]


# ---------------------------------------------------------------- measures


def _judge(gathered: Sequence[SiteMaps], methods: Sequence[str], name: str, options: Options) -> Result:
    blocks = [block_numbers(maps.compared, options.block_px) for maps in gathered]
    area, design, note = _area(gathered, options)
    scored = [np.isfinite(maps.maps.maximum) for maps in gathered]
    return Result(
        name=name,
        compared=sum(int(np.count_nonzero(maps.compared)) for maps in gathered),
        changed=sum(int(np.count_nonzero(maps.changed)) for maps in gathered),
        unknown=sum(int(np.count_nonzero(~maps.truth.known)) for maps in gathered),
        unscored=sum(
            int(np.count_nonzero(maps.truth.known & ~there)) for maps, there in zip(gathered, scored, strict=True)
        ),
        outside=sum(maps.outside for maps in gathered),
        blocks=sum(int(number.max(initial=-1)) + 1 for number in blocks),
        methods={method: _measure(gathered, blocks, method, options) for method in methods},
        area=area,
        area_design=design,
        area_note=note,
        dates=date_errors(
            [(m.truth, m.maps.change_date, m.changed & (m.maps.maximum >= options.threshold)) for m in gathered],
            tolerance_days=options.tolerance_days,
            block_px=options.block_px,
            rounds=options.bootstrap,
            seed=options.seed,
        ),
    )


def _measure(
    gathered: Sequence[SiteMaps], blocks: Sequence[npt.NDArray[np.int64]], method: str, options: Options
) -> MethodResult:
    scores = [maps.values[method][maps.compared] for maps in gathered]
    truths = [maps.changed[maps.compared] for maps in gathered]
    pixels = merge([tally(score, truth).coarsened() for score, truth in zip(scores, truths, strict=True)]).coarsened()
    best_threshold, highest_f1 = best_f1(pixels)
    own = method == SCORES
    # Of a baseline nobody knows a threshold: it gets the one that suits it best here. Without change there is none.
    threshold = options.threshold if own else best_threshold if np.isfinite(best_threshold) else float("inf")
    intervals: dict[str, tuple[float, float]] = {}
    if options.bootstrap:
        edges = score_edges(pixels, [threshold])
        tables = [block_table(*parts, edges) for parts in zip(scores, truths, blocks, strict=True)]
        intervals = score_intervals(tables, edges, threshold, rounds=options.bootstrap, seed=options.seed)
    return MethodResult(
        threshold=threshold,
        counts=counts_at(pixels, threshold),
        roc_auc=tally_roc_auc(pixels),
        pr_auc=average_precision(pixels),
        best_threshold=best_threshold,
        best_f1=highest_f1,
        intervals=intervals,
        tally=pixels,
        calibration=calibration(pixels, bins=options.bins) if own else None,
        undefined=sum(maps.undefined[method] for maps in gathered),
    )


def _area(gathered: Sequence[SiteMaps], options: Options) -> tuple[AreaAccuracy | None, str, str]:
    """Estimates of area, how the truth was drawn, and what that means. Classes: change, no change."""
    points = any(maps.truth.kind == "points" for maps in gathered)
    matrix, areas, units = np.zeros((2, 2), np.int64), np.zeros(2), np.zeros(2)
    for number, maps in enumerate(gathered):
        scored = np.isfinite(maps.maps.maximum)
        flagged = scored & (maps.maps.maximum >= options.threshold)
        # Points stand for the whole map; a truth that covers an area stands for that area alone.
        population = scored if points else maps.compared
        known = maps.compared
        if options.sample is not None and not points:
            chosen = stratified_sample(
                np.where(flagged, 0, 1)[known].astype(np.int64), options.sample, seed=options.seed + number
            )
            kept = np.zeros(int(known.sum()), np.bool_)
            kept[chosen] = True
            known = known.copy()
            known[maps.compared] = kept
        for row, mapped in enumerate((flagged, ~flagged)):
            areas[row] += float((np.count_nonzero(mapped & population, axis=1) * maps.row_area_ha).sum())
            units[row] += np.count_nonzero(mapped & population)
            for column, true in enumerate((maps.changed, ~maps.changed)):
                matrix[row, column] += int(np.count_nonzero(mapped & true & known))
    if points:
        design = "sample of points"
        note = "valid if the points were drawn at random within each class of this map (stratified random sampling)"
    elif options.sample is not None:
        design = f"stratified random sample of {options.sample} pixels a class, drawn here"
        note = "what a field campaign of that size would report"
        if len(gathered) > 1:
            note += "; sites are pooled as one area, each sampled equally"
    else:
        design = "census"
        note = (
            "the truth covers every compared pixel: no sampling error, the areas are those of that truth; "
            "its own errors, and other places, are not in the interval"
        )
    try:
        return area_accuracy(matrix, areas.tolist(), population=units.tolist()), design, note
    except ShapeError as error:
        return None, design, str(error)


def _day(moment: np.datetime64) -> str:
    return str(moment)[:10]
