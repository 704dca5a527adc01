"""Simulated scenes as files: one GeoTIFF an acquisition, and the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from urbandelta.simulate.scene import NO_CHANGE, Scene
from urbandelta.types import Acquisition, Array, Progress

_FILE_NAME = "{stream}_{date:%Y%m%dT%H%M%S}_{platform}_r{track}.tif"
MASK_BAND = "mask"
"""Description of the last band, which holds the bitfield of `MaskReason`."""


def import_pattern(stream_name: str) -> str:
    """Names of one stream's files, in the pattern language of the GeoTIFF import."""
    return _FILE_NAME.replace("{stream}", stream_name)


def write_scenes(scene: Scene, folder: Path | str, *, progress: Progress | None = None) -> list[Path]:
    """Write every acquisition of a scene as a GeoTIFF.

    Each file holds the stream's bands in the era's order, in native encoding with scale and offset in the metadata, and
    a last band called `mask` with the bitfield of `MaskReason` (0 = valid, 2 = cloud, 4 = cloud shadow; never both).
    They are called like `s1_asc_20190102T172512_S1A_r88.tif`: `import_pattern` gives the pattern to import them with.

    Parameters
    ----------
    scene : Scene
    folder : path
        Made if it is missing; files of the same names are replaced.
    progress : callable, optional
        Called with (files done, files in all, name of the last).

    Returns
    -------
    list of Path
        The files, stream by stream in time order.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(len(scene.passes(name)) for name in scene.era.stream_names)
    written: list[Path] = []
    for stream_name in scene.era.stream_names:
        for acquisition in scene.acquisitions(stream_name):
            moment = acquisition.time.astype("datetime64[us]").item()
            name = _FILE_NAME.format(
                stream=stream_name,
                date=moment,
                platform=acquisition.platform,
                track=acquisition.relative_orbit,
            )
            _write_acquisition(folder / name, acquisition, scene)
            written.append(folder / name)
            if progress is not None:
                progress(len(written), total, name)
    return written


def _write_acquisition(path: Path, acquisition: Acquisition, scene: Scene) -> None:
    bands = (*acquisition.bands, MASK_BAND)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=scene.grid.height,
        width=scene.grid.width,
        count=len(bands),
        dtype=acquisition.values.dtype,
        crs=scene.grid.crs,
        transform=scene.grid.affine,
        compress="deflate",
        zlevel=1,  # speckle does not compress; more effort buys time, not bytes
        interleave="band",
    ) as target:
        for number, band in enumerate(acquisition.bands, start=1):
            target.write(acquisition.values[..., number - 1], number)
            target.set_band_description(number, band)
        target.write(acquisition.mask.astype(acquisition.values.dtype), len(bands))
        target.set_band_description(len(bands), MASK_BAND)
        target.scales = (*(acquisition.scale for _ in acquisition.bands), 1.0)
        target.offsets = (*(acquisition.offset for _ in acquisition.bands), 0.0)


def write_truth(scene: Scene, path: Path | str) -> Path:
    """Write the date of change of every pixel.

    A GeoTIFF with one int32 band: the day on which construction begins, days since 1970-01-01; -1, its nodata value,
    where nothing is built.

    Returns
    -------
    Path
    """
    return _write_days(scene, Path(path), scene.truth, "first change, days since 1970-01-01")


def write_last_truth(scene: Scene, path: Path | str) -> Path:
    """Write the day from which every changed pixel has its final look; a file like that of `write_truth`.

    The day may lie behind the end of the series.
    """
    return _write_days(scene, Path(path), scene.completed, "last change, days since 1970-01-01")


def _write_days(scene: Scene, path: Path, days: Array, description: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=scene.grid.height,
        width=scene.grid.width,
        count=1,
        dtype=np.int32,
        nodata=NO_CHANGE,
        crs=scene.grid.crs,
        transform=scene.grid.affine,
        compress="deflate",
    ) as target:
        target.write(days, 1)
        target.set_band_description(1, description)
    return path
