"""Compiled loops of the omnibus test.

Most observations are far from flagging. A first pass over neighbouring pixels, which the compiler turns into vector
instructions, compares each new observation's share of the sum with an interval in which no polarisation can flag; only
what falls outside takes the logarithms of the test itself. No distribution function is evaluated per pixel.

A series is a tuple of one contiguous plane (time, pixel) a polarisation: the tuple's length is known when compiling,
and neighbouring pixels lie side by side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

CHUNK = 512
"""Pixels whose state stays in the processor's nearest cache."""
_TINY = np.finfo(np.float64).tiny


@njit(inline="always")
def _log(value: Any) -> Any:
    # NaN compares false and becomes tiny as well, as published (NaN -> 0 -> smallest normal number).
    return math.log(value if value > _TINY else _TINY)


# NOTE: rows are cut out as views and the tables are looked up in a loop of their own: indices computed inside and
# look-ups beside stores keep a loop from being vectorised.
@njit(cache=True, nogil=True, error_model="numpy")
def scan_published(planes: Any, looks: float, limits: Any, flags: Any) -> None:
    """The published test, faults included; fills `flags` (time, pixel).

    `limits` (3, n): the limit of the statistic after n observations, and the interval of shares that cannot flag.
    """
    first_plane, second_plane = planes[0], planes[-1]
    times, pixels = first_plane.shape
    state = np.empty((6, CHUNK))
    count = np.empty(CHUNK, np.int64)
    first, second, first_old, second_old, low, high = state[0], state[1], state[2], state[3], state[4], state[5]
    for start in range(0, pixels, CHUNK):
        size = min(CHUNK, pixels - start)
        for p in range(size):
            first[p] = looks * np.float64(first_plane[0, start + p])
            second[p] = 0.0
            count[p] = 1
        for t in range(1, times):
            x1, x2 = first_plane[t, start : start + size], second_plane[t, start : start + size]
            marks = flags[t, start : start + size]
            for p in range(size):
                low[p] = limits[1, np.uint64(count[p])]
                high[p] = limits[2, np.uint64(count[p])]
            for p in range(size):
                k = first[p]
                v = looks * np.float64(x1[p])
                k_next = k + v
                inside = (v >= low[p] * k_next) & (v <= high[p] * k_next)
                first_old[p] = k
                first[p] = k_next
                if len(planes) == 2:
                    k = second[p]
                    v = looks * np.float64(x2[p])
                    k_next = k + v
                    inside &= (v >= low[p] * k_next) & (v <= high[p] * k_next)
                    second_old[p] = k
                    second[p] = k_next
                marks[p] = not inside
                count[p] += 1
            for p in range(size):
                if marks[p]:
                    v = looks * np.float64(x1[p])
                    d0, d1, d = first_old[p], v, first[p]
                    if len(planes) == 2:
                        d0, d1, d = d0 * second_old[p], d1 * (looks * np.float64(x2[p])), d * second[p]
                    n = count[p]
                    change = (n - 1) * _log(d0) + _log(d1) - n * _log(d) <= limits[0, n - 1]
                    marks[p] = change
                    if change:
                        first[p] = v
                        count[p] = 1


@njit(inline="always")
def _usable(value: Any) -> Any:
    return (value > 0.0) & (value < np.inf)  # false for NaN


@njit(cache=True, nogil=True, error_model="numpy")
def scan_corrected(planes: Any, valid: Any, limits: Any, flags: Any, used: Any) -> None:
    """The corrected test where `valid` (time, pixel).

    A segment's observations end with the one that flags; the next segment starts with the one after. Fills `flags`
    (time, pixel) and `used` (pixel), the number of observations. `limits` as in `scan_published`; its first column
    lets any observation pass.
    """
    first_plane, second_plane = planes[0], planes[-1]
    times, pixels = first_plane.shape
    state = np.empty((4, CHUNK))
    count = np.empty(CHUNK, np.int64)
    first, second, low, high = state[0], state[1], state[2], state[3]
    for start in range(0, pixels, CHUNK):
        size = min(CHUNK, pixels - start)
        state[:2] = 0.0
        count[:] = 0
        seen = used[start : start + size]
        for t in range(times):
            x1, x2 = first_plane[t, start : start + size], second_plane[t, start : start + size]
            usable, marks = valid[t, start : start + size], flags[t, start : start + size]
            for p in range(size):
                low[p] = limits[1, np.uint64(count[p])]
                high[p] = limits[2, np.uint64(count[p])]
            for p in range(size):
                v, w = np.float64(x1[p]), np.float64(x2[p])
                ok = (usable[p] != 0) & _usable(v) & _usable(w)
                v = v if ok else np.float64(0)
                k_next = first[p] + v
                inside = (v >= low[p] * k_next) & (v <= high[p] * k_next)
                first[p] = k_next
                if len(planes) == 2:
                    w = w if ok else np.float64(0)
                    k_next = second[p] + w
                    inside &= (w >= low[p] * k_next) & (w <= high[p] * k_next)
                    second[p] = k_next
                marks[p] = ok & (not inside)
                count[p] += np.int64(ok)
                seen[p] += np.int32(ok)
            for p in range(size):
                if marks[p]:
                    # Shares of the new observation and of those before it: 0 to 1 whatever the units.
                    v = np.float64(x1[p])
                    new, old = v / first[p], (first[p] - v) / first[p]
                    if len(planes) == 2:
                        v = np.float64(x2[p])
                        new, old = new * (v / second[p]), old * ((second[p] - v) / second[p])
                    n = count[p]
                    change = (n - 1) * _log(old) + _log(new) <= limits[0, n - 1]
                    marks[p] = change
                    if change:
                        first[p] = 0.0
                        second[p] = 0.0
                        count[p] = 0


@njit(cache=True, nogil=True)
def replay(planes: Any, valid: Any, flags: Any, layers: Any) -> None:
    """First and last change, their number, and which way the last one went, from the flags of a scan.

    Fills `layers` (4, pixel): first and last index (-1 none), number, direction (1 all polarisations rise, 2 all fall,
    3 mixed, 0 none).
    """
    polarisations = len(planes)
    times, pixels = planes[0].shape
    sums = np.zeros(polarisations)
    for p in range(pixels):
        first, last, count, direction = -1, -1, 0, 0
        sums[:] = 0.0
        members = 0
        for t in range(times):
            ok = valid[t, p] != 0
            for plane in planes:
                ok = ok and _usable(np.float64(plane[t, p]))
            if flags[t, p]:
                rises, falls = True, True
                for f, plane in enumerate(planes):
                    rises = rises and plane[t, p] * members > sums[f]
                    falls = falls and plane[t, p] * members < sums[f]
                direction = 1 if rises else (2 if falls else 3)
                first = t if first < 0 else first
                last = t
                count += 1
                sums[:] = 0.0
                members = 0
            elif ok:
                for f, plane in enumerate(planes):
                    sums[f] += np.float64(plane[t, p])
                members += 1
        layers[0, p], layers[1, p], layers[2, p], layers[3, p] = first, last, count, direction
