"""A small area as a Sentinel Hub deployment would have it: known arrays behind a catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rasterio.warp import transform_bounds
from servers.sentinel_hub import OPTICAL, Deployment, Granule

from urbandelta.aoi import read_aoi
from urbandelta.grid import Grid

BBOX = (5.5, 50.6, 5.506, 50.603)


@dataclass(frozen=True)
class HubScene:
    """A grid, a deployment that covers more than it, and where the grid lies in its images."""

    grid: Grid
    deployment: Deployment
    window: tuple[slice, slice]

    def expected(self, granule: Granule, bands: tuple[str, ...]) -> np.ndarray:
        """Numbers of a granule on the grid, shape (y, x, band)."""
        return np.stack([granule.image[band][self.window] for band in bands], axis=-1)

    def granule(self, start: str) -> Granule:
        (found,) = (granule for granule in self.deployment.granules if granule.id.startswith(start))
        return found


def hub_scene(*, margin: int = 8, seed: int = 3) -> HubScene:
    grid = Grid.for_aoi(read_aoi(BBOX), pixel_m=10)
    west, south, east, north = grid.bounds
    pad = 10 * margin
    bounds = (west - pad, south - pad, east + pad, north + pad)
    deployment = Deployment(
        bounds=bounds,
        epsg=int(grid.crs.removeprefix("EPSG:")),
        pixel=10,
        footprint=transform_bounds(grid.crs, "EPSG:4326", *bounds),
    )
    shape = (grid.height + 2 * margin, grid.width + 2 * margin)
    rng = np.random.default_rng(seed)
    half = shape[1] // 2

    def radar(part: slice | None = None) -> dict[str, np.ndarray]:
        image = {band: rng.gamma(4, 0.03, shape).astype(np.float32) for band in ("VV", "VH")}
        seen = np.ones(shape, np.uint8) if part is None else np.zeros(shape, np.uint8)
        if part is not None:
            seen[:, part] = 1
        return {**image, "dataMask": seen}

    def optical(cloud: float = 0.0) -> dict[str, np.ndarray]:
        image = {band: rng.integers(300, 3000, shape).astype(np.uint16) for band in OPTICAL}
        seen = np.ones(shape, np.uint8)
        seen[:12] = 0
        clouds = (rng.random(shape) < cloud).astype(np.uint8)
        clouds[:12] = 255
        return {**image, "dataMask": seen, "CLM": clouds}

    def s1(name: str, moment: str, orbit: int, state: str, part: slice | None = None) -> Granule:
        day = moment[:19].replace("-", "").replace(":", "")
        item = f"{name}_IW_GRDH_1SDV_{day}_{day}_{orbit:06d}_038222_ABCD"
        return Granule(item, moment, f"sentinel-1{name[2].lower()}", radar(part), state)

    def s2(name: str, moment: str, cloud: float, baseline: str = "N0208", tile: str = "T31UFS") -> Granule:
        day = moment[:19].replace("-", "").replace(":", "")
        item = f"{name}_MSIL1C_{day}_{baseline}_R051_{tile}_{day}"
        return Granule(item, moment, f"sentinel-2{name[2].lower()}", optical(cloud), cloud=100 * cloud)

    deployment.granules = [
        # One pass in two granules, 25 s apart; each has one half.
        s1("S1A", "2020-01-03T17:24:10Z", 30610, "ascending", slice(0, half)),
        s1("S1A", "2020-01-03T17:24:35Z", 30610, "ascending", slice(half, None)),
        s1("S1B", "2020-01-09T17:23:29Z", 19714, "ascending"),
        s1("S1A", "2020-01-15T17:24:09Z", 30785, "ascending"),
        s1("S1A", "2020-01-08T05:50:01Z", 30726, "descending"),
        s2("S2A", "2020-01-07T10:56:48Z", 0.3),
        s2("S2B", "2020-01-12T10:56:45Z", 0.0),
        s2("S2A", "2020-01-17T10:56:47Z", 0.9, "N0400"),
    ]
    return HubScene(grid, deployment, (slice(margin, margin + grid.height), slice(margin, margin + grid.width)))


def monitor_file(folder: Path, url: str | None, **source: object) -> Path:
    path = folder / "monitor.yaml"
    document = {
        "version": 1,
        "name": "liege",
        "aoi": {"bbox": list(BBOX)},
        "start": "2020-01-01",
        "end": "2020-02-01",
        "store": "liege",
        "source": {"kind": "sentinelhub", "url": url, **source},
    }
    path.write_text(yaml.safe_dump(document))
    return path
