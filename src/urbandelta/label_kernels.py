"""Compiled loops of the synthetic label: means over a window's steps of the four bands that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


# NOTE: four bands by name rather than a loop over them: such a loop kept these from being vectorised.
@njit(cache=True, nogil=True, error_model="numpy")
def plain_mean(stack: Any, bands: Any, out: Any) -> None:
    """Mean over time of four bands of `stack` (time, pixel, band), summed in order in float32 as numpy does.

    Fills `out` (4, pixel) float32.
    """
    times, pixels, _ = stack.shape
    b0, b1, b2, b3 = np.uint64(bands[0]), np.uint64(bands[1]), np.uint64(bands[2]), np.uint64(bands[3])
    out[...] = np.float32(0)
    out0, out1, out2, out3 = out[0], out[1], out[2], out[3]
    for t in range(times):
        row = stack[t]
        for p in range(pixels):
            out0[p] += row[p, b0]
            out1[p] += row[p, b1]
            out2[p] += row[p, b2]
            out3[p] += row[p, b3]
    if times > 0:
        for b in range(4):
            for p in range(pixels):
                out[b, p] /= np.float32(times)


@njit(cache=True, nogil=True, error_model="numpy")
def seen_mean(stack: Any, bands: Any, out: Any) -> None:
    """Like `plain_mean`, over the steps at which a pixel was seen: no NaN, and not all four bands 0. Else NaN."""
    times, pixels, _ = stack.shape
    b0, b1, b2, b3 = np.uint64(bands[0]), np.uint64(bands[1]), np.uint64(bands[2]), np.uint64(bands[3])
    out[...] = np.float32(0)
    out0, out1, out2, out3 = out[0], out[1], out[2], out[3]
    count = np.zeros(pixels, np.float32)
    zero, one = np.float32(0), np.float32(1)
    for t in range(times):
        row = stack[t]
        for p in range(pixels):
            v0, v1, v2, v3 = row[p, b0], row[p, b1], row[p, b2], row[p, b3]
            total = v0 + v1 + v2 + v3
            light = (v0 != zero) | (v1 != zero) | (v2 != zero) | (v3 != zero)
            seen = light & (total == total)
            out0[p] += v0 if seen else zero
            out1[p] += v1 if seen else zero
            out2[p] += v2 if seen else zero
            out3[p] += v3 if seen else zero
            count[p] += one if seen else zero
    for b in range(4):
        for p in range(pixels):
            # 0 / 0 is NaN: never seen.
            out[b, p] /= count[p]
