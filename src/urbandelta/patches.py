"""Connected patches of change, strongest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urbandelta.products import NO_DATE, ScoreMaps
from urbandelta.types import BoolArray, FloatArray

__all__ = ["Patch", "components", "find_patches", "label_components"]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A connected run of changed pixels; `row` and `column` are fractional pixel indices of its centre of mass."""

    label: int
    pixels: int
    area_ha: float
    row: float
    column: float
    change_date: np.datetime64
    """Median over its pixels of the estimated day of change."""
    peak_score: float
    peak_row: int
    peak_column: int
    strength: float
    """Sum of its pixels' maximum scores: large and certain patches rank before small or doubtful ones."""


def label_components(mask: BoolArray) -> npt.NDArray[np.int32]:
    """Number the 8-connected components of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)

    Returns
    -------
    ndarray of int32, shape (y, x)
        0 outside the mask, 1, 2, ... inside, in reading order of each component's first pixel.
    """
    number = np.full(mask.shape, -1, np.int64)
    number[mask] = np.arange(np.count_nonzero(mask))
    pairs = [
        _linked(number[:, :-1], number[:, 1:]),
        _linked(number[:-1], number[1:]),
        _linked(number[:-1, :-1], number[1:, 1:]),
        _linked(number[:-1, 1:], number[1:, :-1]),
    ]
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    parent = components(one, other, int(np.count_nonzero(mask)))
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.unique(parent, return_inverse=True)[1].astype(np.int32) + 1
    return labels


def components(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Smallest member (member,) of the connected component of each of `count` members, given linked pairs."""
    parent = np.arange(count)
    # Hook each root to the smallest root it touches, then shorten all paths; few rounds even for winding shapes.
    while True:
        a, b = parent[one], parent[other]
        apart = a != b
        if not apart.any():
            break
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
    return parent


def _linked(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    both = (a >= 0) & (b >= 0)
    return a[both], b[both]


def find_patches(maps: ScoreMaps, row_area_ha: npt.NDArray[np.float64], *, min_pixels: int = 1) -> list[Patch]:
    """Patches of connected pixels whose maximum score reaches the maps' threshold, strongest first.

    Parameters
    ----------
    maps : ScoreMaps
    row_area_ha : ndarray, shape (y,)
        Area in hectares of one pixel of each row.
    min_pixels : int
        Smaller patches are left out.
    """
    labels = label_components(np.nan_to_num(maps.maximum, nan=0.0) >= maps.threshold)
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns]
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=1)[1:]) if which.size else np.zeros(0, np.int64)
    members = np.split(order, ends[:-1]) if which.size else []
    patches = [
        _patch(label, rows[member], columns[member], maps, row_area_ha)
        for label, member in enumerate(members, start=1)
        if member.size >= min_pixels
    ]
    return sorted(patches, key=lambda patch: (-patch.strength, patch.label))


def _patch(
    label: int,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    maps: ScoreMaps,
    row_area_ha: npt.NDArray[np.float64],
) -> Patch:
    scores: FloatArray = maps.maximum[rows, columns]
    peak = int(scores.argmax())
    days = maps.change_date[rows, columns]
    return Patch(
        label=label,
        pixels=rows.size,
        area_ha=float(row_area_ha[rows].sum()),
        row=float(np.average(rows, weights=scores)),
        column=float(np.average(columns, weights=scores)),
        change_date=np.datetime64(int(np.median(days[days != NO_DATE])), "D"),
        peak_score=float(scores[peak]),
        peak_row=int(rows[peak]),
        peak_column=int(columns[peak]),
        strength=float(scores.sum(dtype=np.float64)),
    )
