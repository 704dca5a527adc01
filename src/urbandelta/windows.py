"""Windows: runs of steps inside one time span. Index arithmetic only, no pixel is read.

References
----------
.. [1] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from urbandelta.assemble import Duration, duration_like
from urbandelta.errors import ConfigError
from urbandelta.types import Array, Window

CSV_COLUMNS = ("ID", "start time", "end time", "number of observations")


def find_windows(
    times: Array, *, length: Duration, min_obs: int, max_obs: int, stride: int = 1, triplets: bool = False
) -> list[Window]:
    """Windows over ascending steps.

    A single window starts at every `stride`-th step a and holds the steps of [a, a + max_obs) with t < t_a + length;
    it is kept if it holds at least `min_obs`.

    With `triplets`, for labels, a window and the one after it hold the steps of [a, a + 2 max_obs) with t in
    [t_a, t_a + length) and [t_a + length, t_a + 2 length); the one before it holds the up to `max_obs` steps before a
    with t in [t_a - length, t_a). All three must hold at least `min_obs`. The middle one can hold more than
    `max_obs`, as published.

    Parameters
    ----------
    times : ndarray, shape (step,)
        Step times, strictly ascending: datetime64, or seconds.
    length : timedelta or seconds
        Longest span of a window (the papers' Delta).
    min_obs, max_obs : int
        Fewest and most steps of a window (omega, Omega).
    stride : int
        Steps from one window's start to the next one's. The published triplets are right only at stride 1.
    triplets : bool
        Also find the windows before and after, as `Window.previous` and `Window.following`.

    Returns
    -------
    list of Window

    Raises
    ------
    ConfigError
        If a parameter is out of range or the times do not ascend.

    References
    ----------
    .. [1] doi:10.3390/rs13153000
    """
    times = np.asarray(times)
    if min_obs < 1 or max_obs < min_obs or stride < 1:
        raise ConfigError(
            f"min_obs {min_obs}, max_obs {max_obs}, stride {stride}: need 1 <= min_obs <= max_obs, 1 <= stride"
        )
    if (times[1:] <= times[:-1]).any():
        raise ConfigError("step times must ascend strictly; pass what time_steps returns")
    span = duration_like(times, length)
    if not span > span * 0:
        raise ConfigError(f"window length {length} is not a positive duration")
    starts = np.arange(0, len(times), stride)
    find = _triplet if triplets else _single
    found = (find(times, int(a), span, max_obs, min_obs) for a in starts)
    return [window for window in found if window is not None]


def _window(times: Array, first: int, stop: int, **neighbours: Window | None) -> Window:
    return Window(times[first], times[stop - 1], stop - first, first, stop - 1, **neighbours)


def _before(times: Array, moment: Any) -> int:
    """Number of steps before a moment."""
    return int(np.searchsorted(times, moment, side="left"))


def _single(times: Array, a: int, span: Any, max_obs: int, min_obs: int) -> Window | None:
    stop = min(_before(times, times[a] + span), a + max_obs)
    return _window(times, a, stop) if stop - a >= min_obs else None


def _triplet(times: Array, a: int, span: Any, max_obs: int, min_obs: int) -> Window | None:
    limit = a + 2 * max_obs
    first = max(_before(times, times[a] - span), a - max_obs)
    middle = min(_before(times, times[a] + span), limit)
    stop = min(_before(times, times[a] + 2 * span), limit)
    if min(a - first, middle - a, stop - middle) < min_obs:
        return None
    return _window(times, a, middle, previous=_window(times, first, a), following=_window(times, middle, stop))


def write_csv(windows: Sequence[Window], file: TextIO) -> None:
    """Window list as the published CSV, without a header: id, first step, last step, number of observations."""
    writer = csv.writer(file, lineterminator="\n")
    for index, window in enumerate(windows):
        writer.writerow([index, *(time_text(moment) for moment in (window.start, window.end)), window.count])


@dataclass(frozen=True, slots=True)
class ListedWindow:
    """A row of a published window list: first and last step (to the second), number of observations."""

    start: np.datetime64
    end: np.datetime64
    count: int


def read_csv(path: Path) -> list[ListedWindow]:
    """Read a published window list, as `write_csv` writes it too; a header and further columns do no harm.

    Raises
    ------
    ConfigError
        If the file cannot be read, is empty, or a row is no window; the message names the row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: no readable window list ({error})") from error
    if rows and not rows[0][0].strip().isdecimal():
        rows = rows[1:]
    if not rows:
        raise ConfigError(f"{path}: lists no window; rows are {', '.join(CSV_COLUMNS)}")
    listed = []
    for number, row in enumerate(rows):
        try:
            index, start, end, count = (cell.strip() for cell in row[:4])
            found = ListedWindow(_listed_time(start), _listed_time(end), int(count))
            usable = int(index) == number and found.start <= found.end and found.count >= 1
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(
                f"{path}: {','.join(row)[:80]!r} is no window number {number}; rows are such as "
                "0,2018-01-11 10:13:51,2018-07-08 05:46:36,53"
            )
        listed.append(found)
    return listed


def listed_windows(listed: Sequence[ListedWindow], steps: Array) -> list[Window]:
    """Find listed windows among steps, which agree to the second.

    Raises
    ------
    ConfigError
        If one is not there; the message names the first and counts all.
    """
    seconds = np.asarray(steps).astype("datetime64[s]")
    found: list[Window] = []
    lost: list[ListedWindow] = []
    for item in listed:
        first, last = (int(np.searchsorted(seconds, moment)) for moment in (item.start, item.end))
        there = last < len(seconds) and (seconds[first], seconds[last]) == (item.start, item.end)
        if there and last - first + 1 == item.count:
            found.append(Window(steps[first], steps[last], item.count, first, last))
        else:
            lost.append(item)
    if lost:
        item = lost[0]
        raise ConfigError(
            f"{len(lost)} of {len(listed)} listed windows are not runs of these {len(seconds)} steps, such as "
            f"{time_text(item.start)} to {time_text(item.end)} with {item.count} observations; take the data and the "
            "start (--start) that the list was made with"
        )
    return found


def _listed_time(text: str) -> np.datetime64:
    """A moment such as `2018-01-11 10:13:51`; raises ValueError for anything else."""
    return np.datetime64(datetime.strptime(text[:19], "%Y-%m-%d %H:%M:%S"), "s")


def time_text(moment: np.datetime64) -> str:
    """A moment as published window lists have it, to the second."""
    return str(moment.astype("datetime64[s]")).replace("T", " ")
