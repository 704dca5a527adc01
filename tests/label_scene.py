"""A small cube long enough for triplets, in which one corner is built over, and its dates of change as a raster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from urbandelta.eras import ERAS
from urbandelta.grid import Grid
from urbandelta.store import Cube, create_cube
from urbandelta.types import Acquisition

START, DAYS, EVERY = np.datetime64("2018-01-01T10:00", "ns"), 580, 12
BUILT_DAY = 290
SIZE = 70  # four blocks: 64 and 6 px along each axis
CORNER = slice(2, 12)
ORIGIN = (500_000.0, 5_000_000.0)


def acquisitions(stream, days=range(DAYS), size=SIZE):
    """One stream's images: speckle or reflectance, a fifth of the optical pixels under cloud, one row never seen."""
    for day in list(days)[::EVERY]:
        rng = np.random.default_rng([day, len(stream.bands), stream.orbit_state == "ascending"])
        built = day >= BUILT_DAY
        if stream.kind == "sar":
            values = rng.gamma(4, 0.02, (size, size, len(stream.bands))).astype(np.float32)
            values[CORNER, CORNER] *= 30 if built else 1
            mask = np.zeros((size, size), np.uint8)
        else:
            values = rng.uniform(0.08, 0.12, (size, size, len(stream.bands))).astype(np.float32)
            if built:
                values[CORNER, CORNER, stream.index("blue")] = 0.3
                values[CORNER, CORNER, stream.index("swir16")] = 0.28
                values[CORNER, CORNER, stream.index("swir22")] = 0.6
            mask = (rng.random((size, size)) < 0.2).astype(np.uint8)
            mask[60:61] = 2
        yield Acquisition(
            time=START + np.timedelta64(day, "D"), values=values, mask=mask, bands=stream.bands,
            orbit_state=stream.orbit_state, processing_level=stream.processing_level,
            backscatter_coefficient=stream.backscatter_coefficient,
        )  # fmt: skip


def make_scene(url: Path, *, size: int = SIZE, streams: tuple[str, ...] = ("s1_asc", "s1_dsc", "optical")) -> Cube:
    west, south = ORIGIN
    grid = Grid.from_bounds((west, south, west + 10 * size, south + 10 * size), "EPSG:32631", (size, size))
    cube = create_cube(str(url), era="s12", grid=grid)
    for offset, stream in enumerate(ERAS["s12"].streams):
        if stream.name in streams:
            cube.append(stream.name, acquisitions(stream, range(4 * offset, DAYS), size))
    return cube


def write_dates(path: Path, *, size: int = SIZE, shift_m: float = 0.0, dtype: str = "int32") -> Path:
    days = np.full((size, size), -1, dtype)
    days[CORNER, CORNER] = (START + np.timedelta64(BUILT_DAY, "D")).astype("datetime64[D]").astype(int)
    west, south = ORIGIN
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=size, width=size, dtype=dtype, crs="EPSG:32631",
        transform=Affine(10, 0, west + shift_m, 0, -10, south + 10 * size),
    ) as target:  # fmt: skip
        target.write(days, 1)
    return path
