"""A radar looks at the ground: linear power per polarisation, with speckle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urbandelta.simulate.noise import generator, smooth_noise, speckle
from urbandelta.simulate.surfaces import BACKSCATTER_DB, ROOFS, WET_GAIN_DB, Surface
from urbandelta.types import Array, FloatArray

_OFFSET_DB = 0.2
"""Standard deviation of an acquisition's calibration."""


@dataclass(frozen=True, kw_only=True)
class RadarSensor:
    """How a radar samples the ground."""

    columns: tuple[int, ...]
    """Per band, column of `BACKSCATTER_DB`."""
    gain: float
    """Stored value of backscatter 1."""
    dtype: str = "float32"


def ground_roughness(seed: int, direction: int, shape: tuple[int, int], parcel: Array) -> tuple[FloatArray, FloatArray]:
    """Lasting backscatter differences seen from one orbit direction.

    Returns
    -------
    texture : ndarray, shape (y, x)
        Factor on everything, about 1.
    bounce : ndarray, shape (y, x)
        Factor on buildings: walls that face the radar reflect many times more, from one direction and not the other.
    """
    rng = generator(seed, 8)  # the ground is the same for both directions ...
    texture = np.exp(
        0.15 * rng.standard_normal(int(parcel.max()) + 1, dtype=np.float32)[parcel]
        + 0.10 * smooth_noise(rng, shape, wavelength_px=10, octaves=2)
    )
    rng = generator(seed, 9, direction)  # ... and its walls are not
    facing = rng.standard_normal(int(parcel.max()) + 1, dtype=np.float32)[parcel]
    wall = rng.standard_normal(shape, dtype=np.float32)
    return texture, np.exp(0.5 * facing + 0.6 * wall).clip(0.3, 12).astype(np.float32)


def look(
    rng: np.random.Generator,
    cover: FloatArray,
    texture: FloatArray,
    bounce: FloatArray,
    sensor: RadarSensor,
    *,
    wet: float,
    looks: int,
) -> Array:
    """One radar image of the ground.

    Parameters
    ----------
    rng : Generator
    cover : ndarray, shape (surface, y, x)
    texture, bounce : ndarray, shape (y, x)
        See `ground_roughness`.
    sensor : RadarSensor
    wet : float
        Soil moisture, 0..1.
    looks : int
        Looks of the speckle.

    Returns
    -------
    ndarray of the sensor's type, shape (y, x, band), linear power
    """
    shape = texture.shape
    wind_db = 2.5 * rng.standard_normal()  # roughens water
    values = np.empty((*shape, len(sensor.columns)), sensor.dtype)
    for band, column in enumerate(sensor.columns):
        level_db = BACKSCATTER_DB[:, column] + np.float32(wet) * WET_GAIN_DB
        level_db[Surface.WATER] += wind_db
        power = np.power(np.float32(10), level_db / np.float32(10))
        image = np.zeros(shape, np.float32)
        for surface in Surface:
            share = cover[surface] * bounce if surface in ROOFS else cover[surface]
            image += power[surface] * share
        calibration = sensor.gain * 10 ** (_OFFSET_DB * rng.standard_normal() / 10)
        values[..., band] = image * texture * speckle(rng, shape, looks=looks) * np.float32(calibration)
    return values
