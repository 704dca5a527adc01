"""One encoding for all processing baselines of Sentinel-2, and a check by numbers that it was reached exactly once.

Since baseline 04.00 raw numbers carry 1000 more, which some archives subtract again and some say wrongly whether they
did. What an item says decides (`item_facts.radiometry`); here raw numbers are moved by whole counts, so that nothing is
lost, and the result is held against what reflectance can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from urbandelta.errors import SourceError
from urbandelta.sources.base import WrappedLayer
from urbandelta.types import Acquisition, Array, BoolArray

Verdict: TypeAlias = Literal["consistent", "undecided", "suspicious", "contradiction"]

_ENOUGH_PIXELS = 64
# Where the offset is subtracted twice, most of a scene's green lies below 0: vegetation, water and shadow reflect less
# than 0.1 of it. Rightly processed ones have a few such pixels, over dark water at level 2A.
_VISIBLE = ("B02", "B03", "B04")
_MOST_NEGATIVE = 0.25
# Where it is left in, nothing lies below 0.1, not even cirrus (no ground is seen in it) or water in the short infrared.
_LOWEST = 0.095
_DARK_QUANTILE = 0.02
# Clouds may be as bright. Clear air reflects next to nothing in the cirrus band, everywhere alike; clouds do not.
_CIRRUS, _CLEAR_CIRRUS = "B10", 0.12


@dataclass(frozen=True, eq=False)
class ShiftedLayer(WrappedLayer):
    """A layer whose raw integers are moved by `add` counts; `missing` values stay as they are.

    Numbers below 1 become 1 (0 is the missing value), which concerns only a cube that stores an offset of 0.
    """

    add: int
    missing: tuple[float, ...]

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Moved numbers of a window, and which of them the file masks out."""
        raw, masked = self.layer.read(rows, columns)
        if raw.dtype.kind not in "iu":
            raise SourceError(f"{self.origin}: holds {raw.dtype} where integers with an offset are declared")
        missing = np.isin(raw, [value for value in (self.nodata, *self.missing) if value is not None])
        moved = np.clip(raw.astype(np.int64) + self.add, 1, np.iinfo(raw.dtype).max).astype(raw.dtype)
        return np.where(missing, raw, moved), masked


@dataclass(frozen=True)
class OffsetFinding:
    """What the numbers of one acquisition say about its offset.

    `negative` is the share of clear pixels of the visible bands below 0; `darkest` the least reflectance of any band,
    as its 2nd percentile.
    """

    verdict: Verdict
    reason: str
    negative: float
    darkest: float

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the provenance."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "share_below_0": round(self.negative, 4),
            "darkest_reflectance": round(self.darkest, 4),
        }


def counts_to_move(scale: float, offset: float, *, target_scale: float, target_offset: float, origin: str) -> int:
    """Whole counts between two encodings of one scale.

    Raises
    ------
    SourceError
        If the scales differ, or the offsets by a fraction of a count.
    """
    if not np.isclose(scale, target_scale, rtol=1e-9, atol=0):
        raise SourceError(
            f"{origin}: has a scale of {scale:g}, the stream {target_scale:g}; fetch it into another cube"
        )
    exact = (offset - target_offset) / target_scale
    counts = round(exact)
    if abs(exact - counts) > 1e-6:
        raise SourceError(
            f"{origin}: its offset {offset:g} differs from {target_offset:g} by a fraction of the scale {scale:g}; "
            "fetch it into another cube"
        )
    return counts


def check_offset(acquisition: Acquisition, *, offset_present: bool) -> OffsetFinding:
    """Hold an acquisition's reflectance against what the offset's handling makes of it.

    Parameters
    ----------
    acquisition : Acquisition
        After harmonising: physical = raw * scale + offset.
    offset_present : bool
        Whether the archive's raw numbers are said to carry the offset.
    """
    clear = acquisition.mask == 0
    if np.count_nonzero(clear) < _ENOUGH_PIXELS:
        return OffsetFinding("undecided", f"fewer than {_ENOUGH_PIXELS} clear pixels", float("nan"), float("nan"))
    pixels = acquisition.values[clear] * np.float64(acquisition.scale) + acquisition.offset
    visible = [acquisition.bands.index(band) for band in _VISIBLE if band in acquisition.bands]
    negative = float(np.median(np.mean(pixels[:, visible] < 0, axis=0))) if visible else float("nan")
    lowest = np.quantile(pixels, _DARK_QUANTILE, axis=0)
    darkest = float(lowest.min())
    if offset_present and negative > _MOST_NEGATIVE:
        return OffsetFinding(
            "contradiction",
            f"{negative:.0%} of the visible reflectance is below 0: the offset was subtracted before, against the item",
            negative,
            darkest,
        )
    if not offset_present and darkest >= _LOWEST:
        cirrus = pixels[:, acquisition.bands.index(_CIRRUS)] if _CIRRUS in acquisition.bands else None
        sure = cirrus is not None and float(np.quantile(cirrus, 1 - _DARK_QUANTILE)) < _CLEAR_CIRRUS
        return OffsetFinding(
            "contradiction" if sure else "suspicious",
            f"no band has reflectance below {_LOWEST}: the offset seems to be in the numbers still, against the item",
            negative,
            darkest,
        )
    return OffsetFinding("consistent", "", negative, darkest)
