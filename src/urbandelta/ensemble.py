"""Ensembles: several networks' scores of the same windows combined into one, with how far they differ.

The published folds are combined by a rule that is not published; here the rule is named, and kept with the scores.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta import __version__
from urbandelta.errors import ConfigError, StoreError
from urbandelta.grid import Grid
from urbandelta.infer import SCORE_CHUNKS
from urbandelta.products import checked_score, grid_of
from urbandelta.scores import create_or_resume_scores, open_scores
from urbandelta.types import FloatArray, Progress, Window

Rule: TypeAlias = Literal["mean", "median", "max", "mean-logit"]
RULES: tuple[Rule, ...] = get_args(Rule)

BLOCK_BYTES = 64 * 2**20
"""Scores and spread of one block over all windows, the unit of a commit; the members of a few windows come on top."""
LARGEST_BLOCK_PX = 512
SURE = 1e-6
"""Scores are kept this far from 0 and 1 before logits are taken: one member that is sure must not outvote all."""


def combine(members: npt.NDArray[np.floating[Any]], rule: Rule) -> tuple[FloatArray, FloatArray]:
    """Combine the scores of several networks.

    Parameters
    ----------
    members : ndarray, shape (member, ...)
        0..1; NaN where a member has no score.
    rule : {"mean", "median", "max", "mean-logit"}
        `mean-logit` is the sigmoid of the mean of the members' logits, a geometric mean of odds: it follows the members
        that are sure more than the mean does.

    Returns
    -------
    score, spread : ndarray of float32, shape (...)
        The combination, and the standard deviation over the members (of the whole population: divided by their number).
        Both are NaN where any member is: a combination of fewer members would be another quantity.

    Raises
    ------
    ConfigError
        If the rule is unknown.
    """
    values = np.asarray(members, np.float64)
    if rule == "mean":
        score = values.mean(axis=0)
    elif rule == "median":
        score = np.median(values, axis=0)
    elif rule == "max":
        score = values.max(axis=0)
    elif rule == "mean-logit":
        inside = np.clip(values, SURE, 1 - SURE)
        score = 1 / (1 + np.exp(-(np.log(inside) - np.log1p(-inside)).mean(axis=0)))
    else:
        raise ConfigError(f"unknown rule {rule!r} to combine scores; choose one of {', '.join(RULES)}")
    spread = values.std(axis=0)
    missing = np.isnan(values).any(axis=0)
    score[missing], spread[missing] = np.nan, np.nan
    return score.astype(np.float32), spread.astype(np.float32)


@dataclass(frozen=True)
class _Member:
    """One store of scores: its data, and what makes it what it is."""

    url: str
    data: xr.Dataset
    grid: Grid

    @property
    def provenance(self) -> dict[str, Any]:
        """Which network it is of, as JSON values."""
        attributes = self.data.attrs
        return {
            "url": self.url,
            "weights_name": str(attributes.get("weights_name", "")),
            "weights_sha256": str(attributes.get("weights_sha256", "")),
            "snapshot": str(attributes["snapshot"]),
        }


def combine_scores(
    members: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    rule: Rule = "mean",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Combine score stores of the same grid and windows into one, block by block.

    Killed at any moment, the same call goes on after the last finished block.

    Parameters
    ----------
    members : sequence of URL
        Two at least, complete, each of another network.
    out : URL
    rule : {"mean", "median", "max", "mean-logit"}
        See `combine`. A pixel without a score in some member has none in the combination.
    overwrite : bool
        Replace scores of another run at `out`.
    progress : callable, optional
        Called with (blocks done, in all, message).

    Returns
    -------
    Dataset
        As `open_scores` gives it, with `spread`; attributes `rule` and `members`.

    Raises
    ------
    ConfigError
        If the rule is unknown or there are fewer than two members.
    StoreError
        If a member is missing or incomplete, two are the same, they differ in grid or windows, or `out` holds another
        run.
    """
    if rule not in RULES:
        raise ConfigError(f"unknown rule {rule!r} to combine scores; choose one of {', '.join(RULES)}")
    opened = [_open(os.fspath(member)) for member in members]
    _require_alike(opened)
    first = opened[0]
    windows = _windows(first.data)
    side = _block_px(len(windows))
    sink = create_or_resume_scores(
        os.fspath(out),
        grid=first.grid,
        windows=windows,
        chunks=SCORE_CHUNKS,
        attributes=_attributes(opened, rule, side),
        provisional=first.data["provisional"].values.tolist() if "provisional" in first.data.variables else None,
        spread=True,
        overwrite=overwrite,
    )
    blocks = list(_blocks(first.grid.shape, side))
    if progress is not None:
        progress(len(sink.done), len(blocks), "blocks")
    for number, (y, x) in enumerate(blocks):
        if number in sink.done:
            continue
        sink.add(number, y, x, *_combined(opened, rule, y, x))
        if progress is not None:
            progress(len(sink.done), len(blocks), "blocks")
    sink.finish()
    return open_scores(os.fspath(out))


def _open(url: str) -> _Member:
    data = open_scores(url)
    checked_score(data)
    if not data.attrs.get("complete"):
        raise StoreError(f"{url}: scores are incomplete; run the same prediction again to finish them")
    return _Member(url, data, grid_of(data))


def _require_alike(members: Sequence[_Member]) -> None:
    """Raise and name the difference unless all members have the same grid and windows, and none comes twice."""
    if len(members) < 2:
        raise ConfigError(f"{len(members)} score store makes no ensemble; name at least two")
    first = members[0]
    for other in members[1:]:
        pair = f"{first.url} and {other.url}"
        eras = first.data.attrs.get("era"), other.data.attrs.get("era")
        if eras[0] != eras[1]:
            raise StoreError(f"{pair} differ in their era: {eras[0]} and {eras[1]}; combine scores of one era")
        if first.grid != other.grid:
            raise StoreError(f"{pair} differ in their grid: {first.grid}; {other.grid}; predict on one cube")
        counts = first.data.sizes["window"], other.data.sizes["window"]
        if counts[0] != counts[1]:
            raise StoreError(
                f"{pair} differ in their windows: {counts[0]} and {counts[1]}; predict with the same --start, --end "
                "and --stride"
            )
        for name in ("window_start", "window_end"):
            differ = np.flatnonzero(first.data[name].values != other.data[name].values)
            if differ.size:
                k = int(differ[0])
                raise StoreError(
                    f"{pair} differ in their windows: {name.replace('_', ' ')} {k} is "
                    f"{_second(first.data[name].values[k])} and {_second(other.data[name].values[k])}; predict with "
                    "the same --start, --end and --stride"
                )
    known: dict[str, str] = {}
    for member in members:
        snapshot = str(member.data.attrs["snapshot"])
        if snapshot in known:
            raise StoreError(f"{known[snapshot]} and {member.url} are the same scores, which would count twice")
        known[snapshot] = member.url


def _attributes(members: Sequence[_Member], rule: Rule, side: int) -> dict[str, Any]:
    """Provenance of the combination; what all members share is kept."""
    first = members[0].data.attrs
    provenance = [member.provenance for member in members]
    hashes = [item["weights_sha256"] for item in provenance]
    names = ", ".join(item["weights_name"] or "unnamed" for item in provenance)
    shared = {
        name: first[name]
        for name in ("era", "cube_url", "cube_snapshot", "substitutions", "accepted", "unstated", "parameters")
        if name in first and all(member.data.attrs.get(name) == first[name] for member in members)
    }
    return {
        **shared,
        "title": f"{first.get('title', 'Urban change scores')}, {rule} of {len(members)} networks",
        "source": f"urbandelta {__version__}",
        "version": __version__,
        "rule": rule,
        "count": len(members),
        "members": provenance,
        "weights_name": f"{rule} of {names}",
        # One identity for the set: that of its hashes in their order.
        "weights_sha256": hashlib.sha256(" ".join(hashes).encode()).hexdigest(),
        "weights_description": {
            "ensemble": f"{rule} of {len(members)} networks: {names}",
            "members": [member.data.attrs.get("weights_description", {}) for member in members],
        },
        "identity": {
            "rule": rule,
            "members": [item["snapshot"] for item in provenance],
            "block_px": side,
        },
    }


def _windows(data: xr.Dataset) -> list[Window]:
    starts, ends = (data[name].values.astype("datetime64[ns]") for name in ("window_start", "window_end"))
    # Where its first step lies in the cube's is not kept in scores, and not needed to write them.
    return [
        Window(start, end, int(count), 0, int(count) - 1)
        for start, end, count in zip(starts, ends, data["n_obs"].values, strict=True)
    ]


def _block_px(windows: int) -> int:
    """Side of a block: whole chunks of the store, as many as `BLOCK_BYTES` holds over all windows, twice."""
    chunk = SCORE_CHUNKS[1]
    fitting = math.isqrt(BLOCK_BYTES // (2 * 4 * windows)) // chunk * chunk
    return max(chunk, min(fitting, LARGEST_BLOCK_PX))


def _blocks(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1]))


def _combined(members: Sequence[_Member], rule: Rule, y: slice, x: slice) -> tuple[FloatArray, FloatArray]:
    """Score and spread (window, y, x) of a block; the members' scores are held for one chunk of windows at a time."""
    count = members[0].data.sizes["window"]
    shape = (count, y.stop - y.start, x.stop - x.start)
    score, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for start in range(0, count, SCORE_CHUNKS[0]):
        run = slice(start, min(start + SCORE_CHUNKS[0], count))
        values = np.stack([checked_score(member.data)[run, y, x].values for member in members])
        score[run], spread[run] = combine(values, rule)
    return score, spread


def _second(moment: np.datetime64) -> str:
    return str(np.datetime_as_string(moment, unit="s"))
