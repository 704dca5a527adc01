"""How often the corrected omnibus test flags: on simulated speckle, and date by date on a real series.

    python experiments/omnibus_rates/rates.py [FOLDER ...] [--significance 0.001] [--pixels 400000]

Without a folder only the simulated table is made. A folder holds one burst of OPERA RTC-S1: GeoTIFFs of linear gamma0
whose names end in _VV.tif and _VH.tif and hold the date, such as 20211119T015858Z. Tables are Markdown, for the README.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import rasterio

from urbandelta.looks import estimate_looks
from urbandelta.omnibus import omnibus_changes, omnibus_flags, omnibus_layers

LOOKS, SIGNIFICANCES = (3, 4, 8), (0.1, 0.01, 0.001)
DATE = re.compile(r"_(\d{8})T\d{6}Z_\d{8}T\d{6}Z_(S1.)_")


def simulated(pixels: int, times: int, seed: int) -> None:
    """Print the rates on speckle that never changes."""
    print(f"### Simulated speckle, {pixels} pixels of {times} observations, seed {seed}\n")
    print("| looks | polarisations | significance | rate of the tests made | / significance | per observation |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(seed)
    for looks in LOOKS:
        for polarisations in (1, 2):
            series = rng.gamma(looks, 1 / looks, (times, pixels, 1, polarisations)).astype(np.float32)
            for significance in SIGNIFICANCES:
                flags = omnibus_flags(series, enl=looks, significance=significance)
                changes = int(flags.sum())
                # The first observation of a segment is compared with nothing; after a change, the next one is first.
                tests = pixels * (times - 1) - int(flags[:-1].sum())
                rate, simple = changes / tests, changes / (pixels * (times - 1))
                print(
                    f"| {looks} | {polarisations} | {significance} | {rate:.5f} | {rate / significance:.3f} "
                    f"| {simple:.5f} |"
                )
    series = rng.gamma(4, 0.25, (60, pixels // 4, 1, 2)).astype(np.float32)
    published = omnibus_changes(series, enl=4, significance=0.001, mode="reference").sum() / (series[1:, ..., 0].size)
    print(f"\nThe published test (4 looks, 0.001, two polarisations, 60 observations) flags {published:.5f}.\n")


def real(folder: Path, significance: float) -> None:
    """Print the rates on one burst, date by date."""
    dates, series = read(folder)
    looks = max(estimate_looks(series), 1.0)
    usable = (np.isfinite(series) & (series > 0)).all(axis=3)
    print(f"### {folder.name}: {looks:.2f} looks estimated, significance {significance}\n")
    each = [max(estimate_looks(series[..., p : p + 1]), 1.0) for p in range(2)]
    print(f"VV alone {each[0]:.2f} looks, VH alone {each[1]:.2f}; {usable.mean():.1%} of the observations count.\n")
    flags = {
        name: omnibus_flags(series, enl=enl, significance=significance)
        for name, enl in (("estimated", looks), ("nominal", 4))
    }
    print(f"| date | platform | flagged, {looks:.2f} looks | flagged, 4 looks (the era's) |")
    print("|---|---|---|---|")
    for number, (day, platform) in enumerate(dates):
        share = {name: flag[number][usable[number]].mean() for name, flag in flags.items()}
        print(f"| {day} | {platform} | {share['estimated']:.4f} | {share['nominal']:.4f} |")
    layers = omnibus_layers(series, enl=looks, significance=significance)
    tested = usable[1:].sum()
    print(
        f"\nAll dates: {flags['estimated'].sum() / tested:.4f} of the observations with estimated looks, "
        f"{flags['nominal'].sum() / tested:.4f} with 4. Pixels that changed: {(layers.count > 0).mean():.1%}; at the "
        f"last change {(layers.direction == 1).mean():.1%} rose, {(layers.direction == 2).mean():.1%} fell, "
        f"{(layers.direction == 3).mean():.1%} were mixed.\n"
    )


def read(folder: Path) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Dates with platforms, and the series (time, y, x, polarisation)."""
    dates, images = [], []
    for path in sorted(folder.glob("*_VV.tif"), key=lambda path: DATE.search(path.name).group(1)):
        found = DATE.search(path.name)
        pair = []
        for polarisation in ("VV", "VH"):
            with rasterio.open(path.with_name(path.name.replace("_VV.tif", f"_{polarisation}.tif"))) as source:
                pair.append(source.read(1))
        day = found.group(1)
        dates.append((f"{day[:4]}-{day[4:6]}-{day[6:]}", found.group(2)))
        images.append(np.stack(pair, axis=-1))
    if not images:
        raise SystemExit(f"{folder}: holds no *_VV.tif; give the folder of one burst")
    return dates, np.stack(images)


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--significance", type=float, default=0.001)
    parser.add_argument("--pixels", type=int, default=400_000)
    parser.add_argument("--times", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    simulated(options.pixels, options.times, options.seed)
    for folder in options.folders:
        real(folder, options.significance)


if __name__ == "__main__":
    main()
