"""A small cube with scores whose maps are known, for the tests of products and reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import xarray as xr

from urbandelta.grid import Grid
from urbandelta.scores import create_scores
from urbandelta.store import create_cube
from urbandelta.types import Acquisition, Window

UTM = (10.0, 0.0, 604_120.0, 0.0, -10.0, 5_749_870.0)
DEGREES = (0.00014, 0.0, 4.3412, 0.0, -0.00009, 51.92)
DAY = np.timedelta64(1, "D")
START = np.datetime64("2021-01-03T10:00:00", "ns")


def small_grid(height: int = 20, width: int = 32, *, geographic: bool = False) -> Grid:
    return Grid("EPSG:4326", DEGREES, height, width) if geographic else Grid("EPSG:32631", UTM, height, width)


def dataset(values: np.ndarray, middles: list[str], *, half_days: int = 91) -> xr.Dataset:
    """Scores in the form that `open_scores` gives them."""
    grid = small_grid(*values.shape[1:])
    time = np.array(middles, "datetime64[ns]")
    return xr.Dataset(
        {"score": (("window", "y", "x"), values.astype(np.float32))},
        coords={
            "time": ("window", time),
            "window_start": ("window", time - half_days * DAY),
            "window_end": ("window", time + half_days * DAY),
            "n_obs": ("window", np.full(len(middles), 70)),
        },
        attrs={"grid": grid.to_json(), "weights_sha256": "ab" * 32, "parameters": {"stride": 5}},
    )


def true_dates(height: int, width: int) -> np.ndarray:
    truth = np.full((height, width), -1, np.int32)
    truth[3:9, 20:28] = np.datetime64("2021-09-10", "D").astype(int)
    truth[12:15, 4:8] = np.datetime64("2021-10-30", "D").astype(int)
    return truth


def make_scene(
    folder: Path,
    *,
    shape: tuple[int, int] = (20, 32),
    optical: bool = True,
    truth: bool = True,
    windows: int = 12,
    border: int = 0,
    geographic: bool = False,
    description: str = "simulated scenes",
    change: bool = True,
) -> tuple[str, str]:
    """Write a cube and its scores; returns their addresses."""
    random = np.random.default_rng(7)
    grid = small_grid(*shape, geographic=geographic)
    dates = true_dates(*shape)
    cube = create_cube(str(folder / "cube"), era="s12", grid=grid)
    clear = np.zeros(shape, np.uint8)
    for name, orbit, hour in (("s1_asc", "ascending", 7), ("s1_dsc", "descending", -5)):
        cube.append(
            name,
            [
                Acquisition(
                    time=START + 70 * k * DAY + np.timedelta64(hour, "h"),
                    values=random.gamma(4, 0.02, (*shape, 2)).astype(np.float32),
                    mask=clear,
                    bands=("VV", "VH"),
                    platform="sentinel-1a",
                    orbit_state=orbit,
                    backscatter_coefficient="gamma0",
                )
                for k in range(8)
            ],
        )
    if optical:
        cloud = clear.copy()
        cloud[:10] = 2
        cube.append(
            "optical",
            [
                Acquisition(
                    time=START + 39 * k * DAY,
                    values=random.integers(300, 3000, (*shape, 4)).astype(np.uint16),
                    scale=1e-4,
                    mask=cloud if k % 2 else clear,
                    bands=("B02", "B03", "B04", "B08"),
                    platform="sentinel-2a",
                )
                for k in range(12)
            ],
        )
    if truth:
        profile = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": 1, "dtype": "int32"}
        where = {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform), "nodata": -1}
        with rasterio.open(folder / "cube.truth.tif", "w", **profile, **where) as target:
            target.write(dates, 1)
    spans = [Window(START + 30 * k * DAY, START + (30 * k + 182) * DAY, 70, 5 * k, 5 * k + 69) for k in range(windows)]
    writer = create_scores(
        str(folder / "scores"),
        grid=grid,
        windows=spans,
        chunks=(4, 16, 16),
        attributes={
            "weights_name": "tiny",
            "weights_sha256": "cd" * 32,
            "weights_description": {"data": description},
            "cube_url": cube.url,
            "cube_snapshot": cube.snapshot,
            "version": "0.1.0",
            "parameters": {"stride": 5},
            "substitutions": {},
        },
    )
    days = np.array([np.datetime64(span.middle, "D").astype(int) for span in spans])
    bump = np.exp(-0.5 * ((dates - days[:, None, None]) / 60.0) ** 2) * (dates >= 0) * change
    values = np.clip(0.9 * bump + random.uniform(0.02, 0.1, bump.shape), 0, 1).astype(np.float32)
    if border:
        inside = np.zeros(shape, bool)
        inside[border:-border, border:-border] = True
        values[:, ~inside] = np.nan
    writer.add(0, slice(0, shape[0]), slice(0, shape[1]), values)
    writer.finish()
    return str(folder / "scores"), str(folder / "cube")
