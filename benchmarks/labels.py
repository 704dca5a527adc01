"""Label of one window and tile: the published arithmetic as it is written down, and urbandelta's, in turns.

    python benchmarks/labels.py [--steps 48] [--tile 32] [--rounds 30] [--golden golden_labels_s12.npz]

The plain one goes frame by frame in numpy, with scipy's chi-square functions, as the published label is described
(Conradsen et al. 2016 with the published start and reset; ENDISI of the mean images). With --golden it is first checked
against recorded labels. Both get the same arrays: radar at the steps of a window, optical at the steps of the two
windows beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import chi2

from urbandelta.labels import synthetic_label

LOOKS, SIGNIFICANCE, GAIN, SHIFT, BETAS = 4, 0.001, 10.0, 0.25, (0.1, 0.12)
BLUE, GREEN, SWIR1, SWIR2 = 1, 2, 11, 12
TINY = np.finfo(np.float64).tiny


def plain_changes(series: np.ndarray) -> np.ndarray:
    """Changes per frame (y, x) of a series (time, y, x, 2)."""
    values = LOOKS * series.astype(np.float64)
    k, s = values[0, ..., 0], np.zeros(values.shape[1:3])
    n, found = np.ones(k.shape), np.zeros(k.shape)
    for v1, v2 in zip(values[1:, ..., 0], values[1:, ..., 1], strict=True):
        n = n + 1
        d0, d1 = k * s, v1 * v2
        k, s = k + v1, s + v2
        ln0, ln1, ln = (np.log(np.maximum(np.nan_to_num(d, nan=0.0), TINY)) for d in (d0, d1, k * s))
        ratio = LOOKS * (2 * (n * np.log(n) - (n - 1) * np.log(n - 1)) + (n - 1) * ln0 + ln1 - n * ln)
        rho = 1 - (1 + 1 / (n * (n - 1))) / (6 * LOOKS)
        w = -(2 / 4) * (1 - 1 / rho) ** 2
        z = -2 * rho * ratio
        change = 1 - ((1 - w) * chi2.cdf(z, 2) + w * chi2.cdf(z, 6)) <= SIGNIFICANCE
        found += change
        n, k = np.where(change, 1, n), np.where(change, v1, k)
    return found / len(series)


def plain_index(optical: np.ndarray, beta: float, shift: float) -> np.ndarray:
    """ENDISI of the mean of (time, y, x, band), as published."""
    mean = np.nan_to_num(optical.mean(axis=0))
    blue, green, swir1, swir2 = (mean[..., band] for band in (BLUE, GREEN, SWIR1, SWIR2))
    with np.errstate(all="ignore"):
        w = (green - swir1) / (green + swir1)
        dry = np.nan_to_num((swir1 - blue) / (swir1 + blue), nan=0, posinf=0, neginf=0)
        scaled = np.float32(beta) * (np.nan_to_num(swir1 / swir2) + w * w)
        r = (blue - scaled) / (blue + scaled)
    no_water = ~np.isfinite(w)
    first = np.where(no_water, np.maximum(blue, 0), np.maximum(r + np.float32(shift), 0))
    index = np.clip(first - 2 * np.maximum(np.where(no_water, 0, w), 0) - np.maximum(dry, 0), 0, 1)
    return np.where(np.isfinite(r) | no_water, index, 0)


def plain_label(asc, dsc, before, after, betas, shift) -> np.ndarray:
    changes = (plain_changes(asc) + plain_changes(dsc)) / 2
    shifted = np.abs(plain_index(after, betas[1], shift) - plain_index(before, betas[0], shift))
    return np.clip(GAIN * shifted * changes, 0, 1)


def check_golden(path: str) -> None:
    """Largest difference of both from the recorded labels."""
    arrays = np.load(path, allow_pickle=False)
    worst = [0.0, 0.0]
    for case in range(len([name for name in arrays.files if name.endswith("_label")])):

        def at_steps(part: str, sensor: str, column: int, case: int = case) -> np.ndarray:
            frames = arrays[f"c{case}_{part}_{sensor}"]
            frames = np.concatenate([frames, np.zeros((1, *frames.shape[1:]), frames.dtype)])
            return frames[arrays[f"c{case}_{part}_idx"][:, column]]

        inputs = [at_steps("cur", "asc", 0), at_steps("cur", "dsc", 1), at_steps("prev", "opt", 2)]
        inputs.append(at_steps("next", "opt", 2))
        betas, shift, expected = arrays[f"c{case}_betas"], float(arrays[f"c{case}_alpha"]), arrays[f"c{case}_label"]
        ours = synthetic_label(*inputs, era="s12", betas=betas, shift=shift, mode="reference")
        for number, label in enumerate((plain_label(*inputs, betas, shift), ours)):
            worst[number] = max(worst[number], float(np.abs(label - expected).max()))
    print(f"largest difference from the recorded labels: plain {worst[0]:.1e}, urbandelta {worst[1]:.1e}")


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--tile", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--golden")
    options = parser.parse_args()
    if options.golden:
        check_golden(options.golden)
    rng = np.random.default_rng(1)
    shape = (options.steps, options.tile, options.tile)
    asc, dsc = (rng.gamma(LOOKS, 0.1 / LOOKS, (*shape, 2)).astype(np.float32) for _ in range(2))
    before, after = (rng.uniform(0.02, 0.4, (*shape, 13)).astype(np.float32) for _ in range(2))
    inputs = asc, dsc, before, after
    runs: dict[str, Callable[[], object]] = {
        "plain": lambda: plain_label(*inputs, BETAS, SHIFT),
        "reference": lambda: synthetic_label(*inputs, era="s12", betas=BETAS, shift=SHIFT, mode="reference"),
        "corrected": lambda: synthetic_label(*inputs, era="s12", betas=BETAS, shift=SHIFT),
    }
    difference = np.abs(runs["plain"]() - runs["reference"]()).max()  # type: ignore[operator]
    runs["corrected"]()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, times in taken.items():
        ratio = medians["plain"] / medians[name]
        print(f"{name:10s} {medians[name] * 1e3:7.2f} ms  (fastest {min(times) * 1e3:.2f})  {ratio:5.1f} x")
    print(json.dumps({"difference": float(difference), **{name: 1e3 * value for name, value in medians.items()}}))


if __name__ == "__main__":
    main()
