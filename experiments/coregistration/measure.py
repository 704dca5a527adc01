"""How well shifts are measured, on real images moved by known fractions of a pixel.

    python experiments/coregistration/measure.py ../shared/data

Images of other dates are moved in the Fourier domain, so that the truth is known whatever their own offset is: for
optical pairs the change of the measured shift is compared, for radar medians of disjoint dates of one satellite.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import rasterio

from urbandelta.coregistration import shift
from urbandelta.types import Array, FloatArray

FARTHEST = 2.0
PADDING = 16
DRAWS = 12


def moved(image: FloatArray, dy: float, dx: float) -> FloatArray:
    """An image moved by fractions of a pixel; its border is mirrored first, so that nothing comes in round the edge."""
    padded = np.pad(image, PADDING, mode="reflect")
    fy, fx = np.fft.fftfreq(padded.shape[0])[:, None], np.fft.fftfreq(padded.shape[1])[None]
    there = np.fft.ifft2(np.fft.fft2(padded) * np.exp(-2j * np.pi * (fy * dy + fx * dx))).real
    return there[PADDING:-PADDING, PADDING:-PADDING].astype(np.float32)


def optical(data: Path, rng: np.random.Generator) -> None:
    """Pairs of OSCD, years apart."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oscd"))
    from data import city_names, load_city

    errors = []
    for name in city_names(data / "oscd"):
        city = load_city(data / "oscd", name)
        first, second = (np.asarray(city.optical[date, 1:4].mean(0)) for date in (0, 1))
        own = shift(first, second)
        for _ in range(DRAWS):
            dy, dx = rng.uniform(-FARTHEST, FARTHEST, 2)
            found = shift(first, moved(second, dy, dx))
            errors.append(np.hypot(found.dy - own.dy - dy, found.dx - own.dx - dx))
        print(f"{name}: {own.dy:+.2f} {own.dx:+.2f} px between its dates, quality {own.quality:.0f}")
    report("optical pairs", errors)


def radar(data: Path, rng: np.random.Generator) -> None:
    """OPERA RTC-S1, 100 x 100 pixels of 30 m."""
    series: dict[tuple[str, str], list[FloatArray]] = defaultdict(list)
    for path in sorted((data / "opera_rtc_s1").rglob("*VV*.tif")):
        match = re.search(r"(T\d+-\d+-IW\d).*_(S1[A-D])_", path.name)
        if match is not None:
            with rasterio.open(path) as source:
                series[match[1], match[2]].append(source.read(1))
    for (burst, satellite), images in sorted(series.items()):
        for dates in (number for number in (1, 3, 6, 9) if 2 * number <= len(images)):
            errors = []
            for _ in range(DRAWS):
                order = rng.permutation(len(images))
                first, second = (
                    np.nanmedian([images[index] for index in chosen], axis=0)
                    for chosen in (order[:dates], order[dates : 2 * dates])
                )
                dy, dx = rng.uniform(-FARTHEST, FARTHEST, 2)
                found = shift(first, moved(second, dy, dx))
                errors.append(np.hypot(found.dy - dy, found.dx - dx))
            report(f"{burst} {satellite}, medians of {dates}", errors)
        for (other_burst, other), others in sorted(series.items()):
            if other_burst == burst and other > satellite:
                found = shift(np.nanmedian(images, axis=0), np.nanmedian(others, axis=0))
                print(f"{burst} {other} against {satellite}: {found.dy:+.2f} {found.dx:+.2f}, {found.quality:.0f}")


def report(what: str, errors: Array) -> None:
    """One line of figures."""
    print(f"{what}: error median {np.median(errors):.3f}, largest {np.max(errors):.3f} px of {len(errors)}")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    optical(folder, np.random.default_rng(0))
    radar(folder, np.random.default_rng(0))
