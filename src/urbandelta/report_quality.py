"""How good the data are: observations a month and stream, what hides the ground, gaps, one satellite alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from urbandelta import composites, figures, narrative
from urbandelta.composites import Acquisitions
from urbandelta.types import MaskReason

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["masked_shares", "quality_view"]

SAMPLED_ACQUISITIONS = 60
SAMPLED_BLOCKS = 4
BLOCK_PX = 256
_NAMES = {
    MaskReason.NODATA: "no data",
    MaskReason.CLOUD: "cloud",
    MaskReason.CLOUD_SHADOW: "cloud shadow",
    MaskReason.SNOW: "snow",
    MaskReason.SATURATED: "saturated",
    MaskReason.BORDER_NOISE: "border noise",
    MaskReason.DROPPED: "dropped",
    MaskReason.OTHER: "other",
}


def quality_view(
    cube: Cube, acquisitions: Sequence[Acquisitions], *, charts: Sequence[tuple[str, int]]
) -> dict[str, Any] | None:
    """Values of the page's section on data quality; None if the cube holds no acquisition.

    Parameters
    ----------
    cube : Cube
    acquisitions : sequence of Acquisitions
        As `composites.acquisitions_of` lists them.
    charts : sequence of (str, int)
        Name and width in CSS pixels of each drawing of the months.
    """
    seen = [stream for stream in acquisitions if stream.times.size]
    if not seen:
        return None
    return {
        "rows": [_row(cube, stream) for stream in seen],
        "sampled": _is_sample(cube, seen),
        "charts": {name: figures.month_chart(seen, width=width, name=f"months-{name}") for name, width in charts},
    }


def masked_shares(cube: Cube, name: str) -> dict[str, float]:
    """Share of a stream's pixels that each reason masks, largest first; a pixel may have several.

    Large cubes are sampled: acquisitions spread evenly over time, and blocks of pixels spread over the area.
    """
    total, hidden = 0, dict.fromkeys(_NAMES, 0)
    for position in _spread(len(cube.times(name)), SAMPLED_ACQUISITIONS):
        for rows in _blocks(cube.grid.height):
            for columns in _blocks(cube.grid.width):
                mask = cube.read_mask(name, slice(int(position), int(position) + 1), rows, columns)
                total += mask.size
                for reason in hidden:
                    hidden[reason] += int(np.count_nonzero(mask & int(reason)))
    shares = {_NAMES[reason]: count / max(total, 1) for reason, count in hidden.items() if count}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _spread(size: int, most: int) -> npt.NDArray[np.intp]:
    """Up to `most` positions, evenly spread over `size`."""
    return (
        np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.intp)) if size else np.zeros(0, np.intp)
    )


def _blocks(size: int) -> list[slice]:
    side = int(SAMPLED_BLOCKS**0.5)
    if size <= side * BLOCK_PX:
        return [slice(0, size)]
    starts = [(2 * k + 1) * size // (2 * side) - BLOCK_PX // 2 for k in range(side)]
    return [slice(start, start + BLOCK_PX) for start in starts]


def _is_sample(cube: Cube, seen: Sequence[Acquisitions]) -> bool:
    wide = any(len(_blocks(size)) > 1 for size in cube.grid.shape)
    return wide or any(stream.times.size > SAMPLED_ACQUISITIONS for stream in seen)


def _row(cube: Cube, stream: Acquisitions) -> dict[str, Any]:
    months = stream.times.astype("datetime64[M]")
    calendar = np.arange(months.min(), months.max() + 1)
    per_month = np.array([(months == month).sum() for month in calendar])
    steps = np.diff(stream.times)
    longest = int(steps.argmax()) if steps.size else None
    shares = masked_shares(cube, stream.stream.name)
    return {
        "stream": composites.title_of(stream.stream),
        "count": stream.times.size,
        "median": f"{np.median(per_month):g}",
        "empty": int((per_month == 0).sum()),
        "alone": _months_of_one(stream, months, calendar),
        "valid": f"{100 * float(stream.valid_fraction.mean()):.0f} %",
        "masked": ", ".join(f"{name} {percent(share)}" for name, share in shares.items()) or "nothing",
        "gap": None if longest is None else f"{int(steps[longest] / np.timedelta64(1, 'D'))} days",
        "gap_start": None if longest is None else narrative.plain_date(stream.times[longest]),
    }


def _months_of_one(stream: Acquisitions, months: npt.NDArray[np.datetime64], calendar: Any) -> int:
    """Months in which only one of several satellites looked."""
    names = np.array(stream.platforms)
    if np.unique(names).size < 2:
        return 0
    return sum(np.unique(names[months == month]).size == 1 for month in calendar)


def percent(share: float) -> str:
    """A share in per cent, small ones not rounded away."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
