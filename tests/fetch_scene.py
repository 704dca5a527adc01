"""A year of simulated scenes as a public archive would have them: files, and STAC items that point at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.warp import transform_bounds

from urbandelta.grid import Grid
from urbandelta.simulate import simulate
from urbandelta.simulate.files import MASK_BAND, import_pattern, write_scenes
from urbandelta.simulate.scene import Scene

MASK_VALUES = "1=nodata,2=cloud,4=cloud_shadow"
COLLECTIONS = {"s1_asc": "radar", "s1_dsc": "radar", "optical": "msi"}


@dataclass(frozen=True)
class Published:
    """Files of a folder, and the items of a catalogue whose assets lie under `base`."""

    folder: Path
    grid: Grid
    items: list[dict[str, Any]]
    scene: Scene

    @property
    def bbox(self) -> list[float]:
        """West, south, east, north of the middle of the scene, in degrees."""
        west, south, east, north = self.grid.bounds
        inset = 30.0
        box = (west + inset, south + inset, east - inset, north - inset)
        return [round(value, 6) for value in transform_bounds(self.grid.crs, "EPSG:4326", *box)]

    def streams(self) -> dict[str, dict[str, Any]]:
        """What a monitor file says of the streams of this catalogue."""
        mask = {"mask_band": MASK_BAND, "mask_values": MASK_VALUES}
        radar = {"collection": "radar", "level": "GRD", "coefficient": "gamma0", **mask}
        return {"s1_asc": dict(radar), "s1_dsc": dict(radar), "optical": {"collection": "msi", "level": "L1C", **mask}}

    def import_words(self, stream: str, cube: Path) -> list[str]:
        """Words of `urbandelta import geotiff` for the same files."""
        words = [str(self.folder), "--into", str(cube), "--stream", stream, "--pattern", import_pattern(stream)]
        words += ["--mask-band", MASK_BAND, "--mask-values", MASK_VALUES]
        words += ["--level", "L1C"] if stream == "optical" else ["--level", "GRD", "--coefficient", "gamma0"]
        return [*words, "--orbit", {"s1_asc": "ascending", "s1_dsc": "descending"}.get(stream, "unknown")]


def publish(folder: Path, base: str, *, size: int = 32, months: int = 12, seed: int = 5) -> Published:
    """Write scenes and describe them; `base` is the address under which the folder is served."""
    scene = simulate("s12", size=size, months=months, seed=seed, cloudiness=0.4)
    paths = write_scenes(scene, folder)
    outline = shapely.box(*transform_bounds(scene.grid.crs, "EPSG:4326", *scene.grid.bounds))
    by_name = {path.name: path for path in paths}
    items = []
    for stream in scene.era.stream_names:
        row = scene.era.stream(stream)
        for visit in scene.passes(stream):
            moment = visit.time.astype("datetime64[us]").item()
            name = f"{stream}_{moment:%Y%m%dT%H%M%S}_{visit.platform}_r{visit.relative_orbit}"
            path = by_name[f"{name}.tif"]
            items.append(
                {
                    "type": "Feature",
                    "stac_version": "1.0.0",
                    "stac_extensions": [],
                    "id": name,
                    "collection": COLLECTIONS[stream],
                    "bbox": list(outline.bounds),
                    "geometry": shapely.geometry.mapping(outline),
                    "properties": {
                        "datetime": f"{moment:%Y-%m-%dT%H:%M:%S}Z",
                        "platform": f"sentinel-{visit.platform[1:].lower()}",
                        "sat:relative_orbit": visit.relative_orbit,
                        **({"sat:orbit_state": row.orbit_state} if row.orbit_state else {}),
                        "updated": "2024-01-01T00:00:00Z",
                    },
                    "links": [],
                    "assets": {
                        "image": {
                            "href": f"{base}/{path.name}",
                            "type": "image/tiff; application=geotiff",
                            "bands": [{"name": band} for band in (*row.bands, MASK_BAND)],
                            "file:size": path.stat().st_size,
                        }
                    },
                }
            )
    return Published(folder, scene.grid, items, scene)


def digests(cube: Any) -> dict[str, list[str]]:
    """Digests of all acquisitions of a cube, in order of time, by stream."""
    return {
        name: [
            f"{np.datetime_as_string(moment, 's')} {value}"
            for moment, value in zip(cube.times(name), cube.acquisitions(name)["digest"].values, strict=True)
        ]
        for name in cube.streams
    }
