"""A series stacked in one raster: the bands of the first date, then those of the second, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from urbandelta.errors import ConfigError, SourceError
from urbandelta.sources.base import Layer, Part, Scene
from urbandelta.sources.geotiff import SKIP, read_info

_UNITS = {"D": np.timedelta64(1, "D"), "h": np.timedelta64(1, "h")}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A series stacked in one file: the bands of the first date, then those of the second, and so on.

    `bands` names those of one date in order (`-` skips one); `times` are the dates. Bands left over at the end
    (elevation and the like) belong to no date.
    """

    bands: tuple[str, ...]
    times: tuple[np.datetime64, ...]


def find_scenes(path: Path, layout: Layout, *, crs: str | None = None) -> list[Scene]:
    """Scenes of one file that stacks a series.

    Raises
    ------
    SourceError
        If the file has too few bands for the dates.
    """
    info = read_info(path, crs=crs)
    needed = len(layout.bands) * len(layout.times)
    if info.count < needed:
        raise SourceError(
            f"{path}: has {info.count} bands, {len(layout.times)} dates of {len(layout.bands)} need {needed}; "
            "correct --layout or --steps"
        )
    scenes = []
    for step, time in enumerate(layout.times):
        first = step * len(layout.bands) + 1
        layers: dict[str, Layer] = {
            name: info.layer(first + index) for index, name in enumerate(layout.bands) if name != SKIP
        }
        scenes.append(Scene(time=time, parts=(Part(layers, f"{path.name}#{step + 1}"),)))
    return scenes


def parse_layout(bands: str, *, start: np.datetime64, every: str, steps: int) -> Layout:
    """Layout from the command line's words: `VV,VH,-`, a first date, `1M` (months), `5D` (days) or `12h`, a count.

    Raises
    ------
    ConfigError
        If the interval is malformed or `steps` is not positive.
    """
    unit = every[-1:]
    count = every[:-1]
    if unit not in ("M", *_UNITS) or not count.isdigit() or int(count) < 1:
        raise ConfigError(f"--every {every!r}: expected a count and M (months), D (days) or h (hours), such as 1M")
    if steps < 1:
        raise ConfigError(f"--steps {steps}: a series has at least one date")
    names = tuple(name.strip() for name in bands.split(","))
    if unit != "M":
        interval = int(count) * _UNITS[unit]
        return Layout(bands=names, times=tuple(start + index * interval for index in range(steps)))
    # Months differ in length: keep the day and time of day within each.
    within_month = start - start.astype("datetime64[M]")
    months = [start.astype("datetime64[M]") + index * int(count) for index in range(steps)]
    return Layout(bands=names, times=tuple((month + within_month).astype("datetime64[ns]") for month in months))
