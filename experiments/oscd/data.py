"""OSCD cities as arrays: two dates of Sentinel-2, of Sentinel-1 where there is any, and the labels, on one grid.

Layout of the folder (that of the Onera data set, with Sentinel-1 as in the DS_UNet repository):

    images/CITY/imgs_1/*_B02.tif, images/CITY/imgs_2/*_B02.tif     one GeoTIFF a band, uint16 x 1e-4 reflectance
    labels/CITY/cm/CITY-cm.tif                                     1 no change, 2 change; on imgs_1's B02
    sentinel1/sentinel1_CITY_TRACK_t1.tif, ..._t2.tif              optional; VV, (dB + 25) / 30, 0..1

References
----------
.. [1] Daudt et al., Urban change detection for multispectral Earth observation using CNNs, IGARSS 2018
.. [2] Hafner et al., Sentinel-1 and Sentinel-2 data fusion for urban change detection, IGARSS 2021
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import reproject

from urbandelta.eras import ERAS
from urbandelta.errors import UrbandeltaError
from urbandelta.types import BoolArray, FloatArray

BANDS = ERAS["s12"].optical_streams[0].bands
"""Sentinel-2 bands in the order of the network's input."""
DATES = 2
REFLECTANCE = 1e-4
CHANGE = 2
CACHE_VERSION = 1


class OscdError(UrbandeltaError):
    """The data folder is not as described above."""


@dataclass(frozen=True, eq=False)
class City:
    """One city on the grid of its first date's B02."""

    name: str
    optical: FloatArray
    """(date, band, y, x), top-of-atmosphere reflectance, bands in the order of `BANDS`."""
    sar: FloatArray | None
    """(date, y, x), VV in dB."""
    truth: BoolArray
    """(y, x), True where changed."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.truth.shape
        return rows, columns


def city_names(data: Path) -> tuple[str, ...]:
    """Cities with images and labels in `data`, sorted."""
    found = [path.parent.parent.name for path in data.glob("labels/*/cm/*-cm.tif")]
    return tuple(sorted(name for name in found if (data / "images" / name / "imgs_1").is_dir()))


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise OscdError(f"{folder}: {len(found)} files match {pattern}, expected one; check the data folder")
    return found[0]


def _on_grid(path: Path, grid: rasterio.DatasetReader) -> FloatArray:
    """First band of a raster on the grid of another, bilinear.

    Both dates of a city and all bands have the same bounds, so without georeference the pixels are stretched alike.
    """
    out = np.full(grid.shape, np.nan, np.float32)
    with rasterio.open(path) as source:
        if source.shape == grid.shape and source.transform.almost_equals(grid.transform, 1e-9):
            return source.read(1).astype(np.float32)
        if source.crs is None or grid.crs is None:
            return source.read(1, out_shape=grid.shape, resampling=Resampling.bilinear).astype(np.float32)
        reproject(
            source.read(1).astype(np.float32),
            out,
            src_transform=source.transform,
            src_crs=source.crs,
            dst_transform=grid.transform,
            dst_crs=grid.crs,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
    if np.isnan(out).any():  # a strip of a second date that is a few pixels smaller
        with rasterio.open(path) as source:
            stretched = source.read(1, out_shape=grid.shape, resampling=Resampling.bilinear)
        out = np.where(np.isnan(out), stretched, out).astype(np.float32)
    return out


def _read_city(data: Path, name: str) -> City:
    images = data / "images" / name
    with rasterio.open(_one(images / "imgs_1", "*B02.tif")) as grid:
        optical = np.stack(
            [
                np.stack([_on_grid(_one(images / f"imgs_{date}", f"*{band}.tif"), grid) for band in BANDS])
                for date in (1, 2)
            ]
        )
        radar = [sorted((data / "sentinel1").glob(f"sentinel1_{name}_*_t{date}.tif")) for date in (1, 2)]
        sar = np.stack([_on_grid(files[0], grid) for files in radar]) * 30 - 25 if all(radar) else None
        shape = grid.shape
    with rasterio.open(_one(data / "labels" / name / "cm", "*-cm.tif")) as source:
        truth = source.read(1) == CHANGE
    if truth.shape != shape:
        raise OscdError(f"{name}: labels have shape {truth.shape}, B02 of the first date {shape}")
    return City(name, optical * np.float32(REFLECTANCE), sar, truth)


def load_city(data: Path, name: str, *, cache: Path | None = None) -> City:
    """One city, from `cache` if it was read before.

    Raises
    ------
    OscdError
        If a file is missing or the shapes of image and labels differ.
    """
    stored = None if cache is None else cache / f"{name}-{CACHE_VERSION}.npz"
    if stored is not None and stored.exists():
        with np.load(stored) as arrays:
            return City(name, arrays["optical"], arrays.get("sar"), arrays["truth"])
    if not (data / "images" / name).is_dir():
        raise OscdError(f"{data}: no city {name!r}; it has {', '.join(city_names(data)) or 'none'}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        city = _read_city(data, name)
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"optical": city.optical, "truth": city.truth} | ({} if city.sar is None else {"sar": city.sar})
        partial = stored.with_suffix(".partial.npz")  # savez appends .npz to any other name
        np.savez(partial, **arrays)
        partial.replace(stored)
    return city
