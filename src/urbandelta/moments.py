"""What a picture shows at one moment: the score of a month or of a window, and the scene at that time.

The scene is the median of the valid acquisitions around the moment. Where clouds leave nothing, the last picture may
stay; what was not seen yet is transparent. One stretch serves all moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.composites import display_bands, fit_stretch, median_of_run, shrink, title_of
from urbandelta.figures import MONTHS
from urbandelta.narrative import plain_date
from urbandelta.products import checked_score, period_maxima
from urbandelta.types import FloatArray

if TYPE_CHECKING:
    from urbandelta.eras import Stream
    from urbandelta.store import Cube

__all__ = ["Moment", "Sight", "acquisition_moments", "month_moments", "sights", "window_moments"]

HALF_DAYS = np.timedelta64(15, "D")
"""A window's picture is made of the acquisitions this close to its middle."""
EARLIER = 12
"""Acquisitions before the first moment that fill the holes of its picture."""
CLEAR = 0.5
"""Valid share from which an acquisition is worth a picture of its own."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One picture before it is drawn."""

    label: str
    details: str
    start: np.datetime64
    end: np.datetime64
    """Of the windows that it shows."""
    seen_start: np.datetime64
    seen_end: np.datetime64
    """Of the acquisitions that it shows, the end excluded."""
    score: FloatArray
    """(y, x), at display size."""


@dataclass(frozen=True, eq=False)
class Sight:
    """The scene at one moment."""

    rgba: npt.NDArray[np.uint8]
    acquisitions: int


def month_moments(scores: xr.Dataset, factor: int) -> Iterator[Moment]:
    """A moment for each calendar month from the first to the last window's middle."""
    starts, ends = scores["window_start"].values, scores["window_end"].values
    provisional = _provisional(scores)
    of_window = scores["time"].values.astype("datetime64[M]")
    for period in period_maxima(scores):
        month = period.start.astype("datetime64[M]")
        mine = of_window == month
        year, number = str(month).split("-")
        details = "no window is centred here"
        first, last = period.start, period.end
        if mine.any():
            first, last = starts[mine].min(), ends[mine].max()
            windows = "1 window" if period.windows == 1 else f"{period.windows} windows"
            details = f"{windows}, {plain_date(first)} to {plain_date(last)}{_mark(provisional[mine])}"
        yield Moment(
            f"{MONTHS[int(number) - 1]} {year}",
            details,
            first,
            last,
            period.start,
            period.end,
            shrink(period.maximum, factor, how="max"),
        )


def window_moments(scores: xr.Dataset, factor: int) -> Iterator[Moment]:
    """A moment for each window, in order of time."""
    score = checked_score(scores)
    middles, counts = scores["time"].values, scores["n_obs"].values
    starts, ends = scores["window_start"].values, scores["window_end"].values
    provisional = _provisional(scores)
    for k in np.argsort(starts, kind="stable"):
        values = np.asarray(score[int(k)].values, np.float32)
        yield Moment(
            plain_date(middles[k]),
            f"{plain_date(starts[k])} to {plain_date(ends[k])}, {counts[k]} observations{_mark(provisional[[k]])}",
            starts[k],
            ends[k],
            middles[k] - HALF_DAYS,
            middles[k] + HALF_DAYS,
            shrink(values, factor, how="max"),
        )


def _provisional(scores: xr.Dataset) -> npt.NDArray[np.bool_]:
    if "provisional" not in scores:
        return np.zeros(scores.sizes["window"], np.bool_)
    return np.asarray(scores["provisional"].values, np.bool_)


def _mark(provisional: npt.NDArray[np.bool_]) -> str:
    return ", provisional" if provisional.any() else ""


def acquisition_moments(scores: xr.Dataset, cube: Cube, factor: int) -> Iterator[Moment]:
    """A moment for each clear acquisition of the stream that is shown, with the window whose middle is nearest."""
    stream = shown_stream(cube)
    if stream is None:
        return
    score = checked_score(scores)
    starts, ends, middles = (scores[name].values for name in ("window_start", "window_end", "time"))
    data = cube.acquisitions(stream.name)
    clear = np.asarray(data["valid_fraction"].values) >= CLEAR
    for time, platform in zip(cube.times(stream.name)[clear], data["platform"].values[clear], strict=True):
        if not starts.min() <= time <= ends.max():
            continue
        k = int(np.abs(middles - time).argmin())
        values = np.asarray(score[k].values, np.float32)
        yield Moment(
            plain_date(time),
            f"{platform}; window {plain_date(starts[k])} to {plain_date(ends[k])}",
            starts[k],
            ends[k],
            time,
            time + np.timedelta64(1, "ns"),
            shrink(values, factor, how="max"),
        )


def shown_stream(cube: Cube) -> Stream | None:
    """The stream that pictures show: the optical one if there is one, else the first."""
    streams = sorted((cube.era.stream(name) for name in cube.streams), key=lambda s: s.kind != "optical")
    return streams[0] if streams else None


def sights(cube: Cube, moments: Sequence[Moment], factor: int, *, carry: bool = True) -> tuple[str, list[Sight]]:
    """What to call the pictures of the scene, and one for each moment; none if the cube has nothing to show.

    Parameters
    ----------
    cube : Cube
    moments : sequence of Moment
        In order of time.
    factor : int
        Shrink by this many pixels a side.
    carry : bool
        Keep the last picture where a moment has no valid value.
    """
    stream = shown_stream(cube)
    if stream is None or not moments:
        return "", []
    bands, kind = display_bands(stream, cube.bands(stream.name))
    times = cube.times(stream.name)
    latest: FloatArray | None = None
    earlier = int(np.searchsorted(times, moments[0].seen_start))
    if carry and earlier:
        # What was seen before fills the holes of the first picture.
        latest = median_of_run(cube, stream.name, bands, slice(max(earlier - EARLIER, 0), earlier), factor)
    values, counts = [], []
    for moment in moments:
        first, stop = np.searchsorted(times, [moment.seen_start, moment.seen_end])
        if not carry:
            latest = None
        if stop > first:
            median = median_of_run(cube, stream.name, bands, slice(int(first), int(stop)), factor)
            latest = median if latest is None else np.where(np.isfinite(median), median, latest)
        shape = (*moment.score.shape, len(bands))
        values.append(np.full(shape, np.nan, np.float32) if latest is None else latest)
        counts.append(int(stop - first))
    common = fit_stretch(values[:: max(len(values) // 12, 1)], radar=kind == "radar")
    title = f"{title_of(stream)}, decibels" if kind == "radar" else kind.capitalize()
    return title, [Sight(common.rgba(image), count) for image, count in zip(values, counts, strict=True)]
