"""Label-free maps of change from a cube: what a network must beat to be worth its weights.

* **change vector**: length of the difference between two composites, the first year and the last one of the period,
  each band standardised over the area in each of them (so neither a haze nor a drier year is change everywhere).
* **index difference**: |ENDISI of the last year - ENDISI of the first year|.
* **omnibus**: changes per observation that the SAR omnibus test finds, mean over the radar streams.
* **sccd**, **cold** (extra `xccd`): length of the strongest break of the optical series, in units of the model's RMSE.

None of them knows a threshold. Every one is read block by block, so memory depends on the block and the maps.

References
----------
.. [1] Malila, Change vector analysis (1980)
.. [2] Ye et al., A near-real-time approach for monitoring forest disturbance using Landsat time series (S-CCD), Remote
   Sensing of Environment 252 (2021), doi:10.1016/j.rse.2020.112167
.. [3] Zhu et al., Continuous monitoring of land disturbance based on Landsat time series (COLD), Remote Sensing of
   Environment 238 (2020), doi:10.1016/j.rse.2019.03.009
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Stream
from urbandelta.errors import ConfigError
from urbandelta.indices import ROLES, beta_of, coefficients_of, corrected_sums, endisi_of
from urbandelta.omnibus import omnibus_changes
from urbandelta.store import Cube
from urbandelta.types import BoolArray, FloatArray, Progress

__all__ = ["BASELINES", "Baselines", "BreakMethod", "baseline_maps"]

log = logging.getLogger(__name__)

BreakMethod: TypeAlias = Literal["sccd", "cold"]
Block: TypeAlias = tuple[slice, slice]
Span: TypeAlias = tuple[np.datetime64, np.datetime64]

BASELINES: Mapping[str, str] = {
    "change_vector": "change-vector magnitude",
    "omnibus": "omnibus alone",
    "index_difference": "index difference alone",
    "sccd": "S-CCD",
    "cold": "COLD",
}
"""Names of the maps, and how a table calls them."""

YEAR_DAYS = 365
BLOCK_BYTES = 96 * 2**20
BLOCK_PX = 128
SAMPLED_BLOCKS = 16
"""Blocks, spread evenly, from which an area's band statistics and ENDISI's beta are taken; all of a smaller area."""
INDEX_SHIFT = 0.25
RATA_DIE = 719_163
"""Ordinal day of 1970-01-01, as pyxccd counts."""
BREAK_ROLES = ("blue", "green", "red", "nir", "swir16", "swir22")
REFLECTANCE_UNITS = 10_000
"""pyxccd expects reflectance in ten-thousandths."""


@dataclass(frozen=True, eq=False)
class Baselines:
    """Maps (y, x) by name, the higher the more like change, NaN where they cannot be computed; and what is missing."""

    maps: dict[str, FloatArray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> why there is no such map."""
    notes: list[str] = field(default_factory=list)


def baseline_maps(
    cube: Cube,
    start: np.datetime64,
    end: np.datetime64,
    *,
    breaks: BreakMethod | None = None,
    progress: Progress | None = None,
) -> Baselines:
    """Compute the baselines of a cube over the period that the scores are of.

    Parameters
    ----------
    cube : Cube
    start, end : datetime64
        First and last moment of the period, both inclusive: start of the first window, end of the last one.
    breaks : {"sccd", "cold"}, optional
        Also run this break detector of pyxccd on every pixel (milliseconds each).
    progress : callable, optional

    Raises
    ------
    ConfigError
        If pyxccd is asked for and not installed, or the method is unknown.
    """
    if breaks is not None:
        _require_pyxccd(breaks)
    found = Baselines()
    optical = [stream for stream in cube.era.streams if stream.kind == "optical" and stream.name in cube.streams]
    radar = [stream for stream in cube.era.streams if stream.kind == "sar" and stream.name in cube.streams]
    jobs: list[Callable[[Progress], None]] = [
        *([lambda report: _two_years(cube, optical[0], start, end, found, report)] if optical else []),
        *([lambda report: _omnibus(cube, radar, start, end, found, report)] if radar else []),
        *([lambda report: _breaks(cube, optical[0], start, end, found, breaks, report)] if optical and breaks else []),
    ]
    if not optical:
        missing = ("change_vector", "index_difference", *([breaks] if breaks else []))
        found.skipped.update(dict.fromkeys(missing, "the cube holds no optical stream"))
    if not radar:
        found.skipped["omnibus"] = "the cube holds no radar stream"
    for number, job in enumerate(jobs):

        def report(done: int, total: int, message: str, number: int = number) -> None:
            if progress is not None:
                progress(number * 1000 + 1000 * done // max(total, 1), 1000 * len(jobs), message)

        job(report)
    for note in found.notes:
        log.info("%s: %s", cube.url, note)
    return found


# ---------------------------------------------------------------- two years


def _two_years(
    cube: Cube, stream: Stream, start: np.datetime64, end: np.datetime64, found: Baselines, report: Progress
) -> None:
    """Change vector and index difference, which share their composites."""
    days = min(YEAR_DAYS, int((end - start) / np.timedelta64(2, "D")))
    year = np.timedelta64(days, "D")
    runs = [_run(cube, stream.name, (start, start + year)), _run(cube, stream.name, (end - year, end))]
    names = ("change_vector", "index_difference")
    if any(run.stop - run.start < 1 for run in runs):
        found.skipped.update(dict.fromkeys(names, "no optical acquisition at one end of the period"))
        return
    if days < YEAR_DAYS - 30:
        found.notes.append(f"the composites are of {days} days each, not a year: the seasons may differ between them")
    bands = cube.bands(stream.name)
    roles = [bands.index(stream.roles[role]) if stream.roles.get(role) in bands else -1 for role in ROLES]
    blocks = list(_blocks(cube, max(run.stop - run.start for run in runs) * len(bands)))
    sampled = blocks[:: max(1, -(-len(blocks) // SAMPLED_BLOCKS))]
    statistics = [_Statistics(len(bands), roles) for _ in runs]
    for block in sampled:
        for run, statistic in zip(runs, statistics, strict=True):
            statistic.add(_composite(cube, stream.name, run, block))
    if len(sampled) < len(blocks):
        found.notes.append(f"band statistics are of {len(sampled)} of {len(blocks)} blocks, spread evenly")
    magnitude, difference = (np.full(cube.grid.shape, np.nan, np.float32) for _ in names)
    for number, block in enumerate(blocks, start=1):
        before, after = (_composite(cube, stream.name, run, block) for run in runs)
        vector = statistics[1].standardised(after) - statistics[0].standardised(before)
        magnitude[block] = np.sqrt((vector**2).sum(axis=-1))
        if -1 not in roles:
            difference[block] = np.abs(statistics[1].index(after) - statistics[0].index(before))
        report(number, len(blocks), "change vector")
    found.maps["change_vector"] = magnitude
    if -1 in roles:
        found.skipped["index_difference"] = f"the cube lacks a band for {ROLES[roles.index(-1)]}"
    else:
        found.maps["index_difference"] = difference


class _Statistics:
    """Mean and spread of the bands of one composite, and ENDISI's beta, gathered block by block."""

    def __init__(self, bands: int, roles: list[int]) -> None:
        self._roles = roles
        self._count = np.zeros(bands)
        self._sum, self._squares = np.zeros(bands), np.zeros(bands)
        self._index_sums, self._index_count = np.zeros(3), 0

    def add(self, composite: FloatArray) -> None:
        values = composite.reshape(-1, composite.shape[-1]).astype(np.float64)
        self._count += np.isfinite(values).sum(axis=0)
        self._sum += np.nansum(values, axis=0)
        self._squares += np.nansum(values**2, axis=0)
        if -1 not in self._roles:
            sums, count = corrected_sums(*(composite[..., band] for band in self._roles))
            self._index_sums += sums
            self._index_count += count

    def standardised(self, composite: FloatArray) -> FloatArray:
        """Each band with mean 0 and standard deviation 1 over the area; a band that does not vary is 0."""
        count = np.maximum(self._count, 1)
        mean = self._sum / count
        spread = np.sqrt(np.maximum(self._squares / count - mean**2, 0))
        scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-9)
        return ((composite - mean) * scale).astype(np.float32)

    def index(self, composite: FloatArray) -> FloatArray:
        """ENDISI of the composite."""
        beta = beta_of([coefficients_of(self._index_sums, self._index_count)])
        blue, green, swir1, swir2 = (composite[..., band] for band in self._roles)
        return endisi_of(blue, green, swir1, swir2, beta, shift=INDEX_SHIFT, mode="corrected")


def _composite(cube: Cube, name: str, run: slice, block: Block) -> FloatArray:
    """Median over time of the valid values (y, x, band); NaN where there is none."""
    values, mask = cube.read(name, run, *block)
    values[mask != 0] = np.nan
    # np.nanmedian warns of pixels without any value and is slow; sorting puts NaN last.
    values.sort(axis=0)
    number = np.isfinite(values).sum(axis=0)
    low, high = (
        np.take_along_axis(values, np.maximum(k, 0)[None], axis=0)[0] for k in ((number - 1) // 2, number // 2)
    )
    high = np.where(number % 2 == 1, low, high)
    return np.where(number > 0, (low + high) / 2, np.nan).astype(np.float32)


# ---------------------------------------------------------------- radar


def _omnibus(
    cube: Cube, streams: list[Stream], start: np.datetime64, end: np.datetime64, found: Baselines, report: Progress
) -> None:
    rule = cube.era.label
    total = np.zeros(cube.grid.shape, np.float64)
    counted = np.zeros(cube.grid.shape, np.int32)
    for number, stream in enumerate(streams):
        run = _run(cube, stream.name, (start, end))
        if run.stop - run.start < 2:
            continue
        blocks = list(_blocks(cube, (run.stop - run.start) * len(cube.bands(stream.name))))
        for done, block in enumerate(blocks, start=1):
            values, mask = cube.read(stream.name, run, *block)
            valid = mask == 0
            changes = omnibus_changes(
                values[..., : rule.polarisations], enl=rule.looks, significance=rule.significance, valid=valid
            )
            total[block] += changes / np.maximum(valid.sum(axis=0), 1)
            counted[block] += valid.sum(axis=0) > 1
            report(number * len(blocks) + done, len(streams) * len(blocks), f"omnibus {stream.name}")
    if not counted.any():
        found.skipped["omnibus"] = "no radar stream has two acquisitions in the period"
        return
    found.maps["omnibus"] = np.where(counted > 0, total / np.maximum(counted, 1), np.nan).astype(np.float32)


# ---------------------------------------------------------------- breaks


def _require_pyxccd(method: str) -> None:
    if method not in ("sccd", "cold"):
        raise ConfigError(f"unknown break detector {method!r}; expected sccd or cold")
    if find_spec("pyxccd") is None:
        raise ConfigError(f"{method} needs pyxccd, which is not installed; run pip install 'urbandelta[xccd]'")


def _breaks(
    cube: Cube,
    stream: Stream,
    start: np.datetime64,
    end: np.datetime64,
    found: Baselines,
    method: BreakMethod | None,
    report: Progress,
) -> None:
    assert method is not None
    bands = cube.bands(stream.name)
    if lacking := [role for role in BREAK_ROLES if stream.roles.get(role) not in bands]:
        found.skipped[method] = f"the cube lacks a band for {lacking[0]}"
        return
    order = [bands.index(stream.roles[role]) for role in BREAK_ROLES]
    run = _run(cube, stream.name, (start, end))
    days = cube.times(stream.name)[run].astype("datetime64[D]").astype(np.int64) + RATA_DIE
    strength = np.full(cube.grid.shape, np.nan, np.float32)
    strongest = _strongest_break(method)
    blocks = list(_blocks(cube, (run.stop - run.start) * len(bands)))
    for number, block in enumerate(blocks, start=1):
        values, mask = cube.read(stream.name, run, *block)
        reflectance = np.round(values[..., order] * REFLECTANCE_UNITS).astype(np.int64)
        height, width = mask.shape[1:]
        out = np.zeros((height, width), np.float32)
        for y in range(height):
            for x in range(width):
                out[y, x] = strongest(days, reflectance[:, y, x], mask[:, y, x] == 0)
        strength[block] = out
        report(number, len(blocks), BASELINES[method])
    found.maps[method] = strength
    found.notes.append(
        f"{BASELINES[method]} (pyxccd, default parameters) needs about a year to fit its model: "
        "it cannot see a change in the first one"
    )


def _strongest_break(
    method: BreakMethod,
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], BoolArray], float]:
    pyxccd: Any = import_module("pyxccd")
    detect = pyxccd.sccd_detect_flex if method == "sccd" else pyxccd.cold_detect_flex

    def strongest(days: npt.NDArray[np.int64], values: npt.NDArray[np.int64], valid: BoolArray) -> float:
        if valid.sum() < 12:  # fewer than the simplest model has coefficients for
            return 0.0
        clear = np.zeros(int(valid.sum()), np.int64)
        answer = detect(
            days[valid], np.ascontiguousarray(values[valid]), clear, lam=20.0, tmask_b1_index=2, tmask_b2_index=5
        )
        return _break_strength(answer.rec_cg if method == "sccd" else answer)

    return strongest


def _break_strength(segments: Any) -> float:
    """Length of the largest break, each band in units of its model's RMSE; 0 without one."""
    strength = 0.0
    for segment in np.atleast_1d(segments):
        if segment["t_break"] > 0:
            change = segment["magnitude"] / np.maximum(segment["rmse"], 1)
            strength = max(strength, float(np.sqrt((change**2).sum())))
    return strength


# ---------------------------------------------------------------- reading


def _run(cube: Cube, name: str, span: Span) -> slice:
    """Positions of a stream's acquisitions in a span, both ends included."""
    times = cube.times(name)
    return slice(int(np.searchsorted(times, span[0], "left")), int(np.searchsorted(times, span[1], "right")))


def _blocks(cube: Cube, planes: int) -> Iterator[Block]:
    """Blocks of a grid of which `planes` float32 planes fit into `BLOCK_BYTES`."""
    side = max(8, min(BLOCK_PX, math.isqrt(BLOCK_BYTES // (4 * max(planes, 1)))))
    height, width = cube.grid.shape
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))
