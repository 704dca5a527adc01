"""An optical sensor looks at the ground: top-of-atmosphere reflectance, quantised, with an imperfect cloud mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urbandelta.simulate.crops import season
from urbandelta.simulate.noise import block_mean, generator, shifted, smooth_noise
from urbandelta.simulate.surfaces import REFLECTANCE, WARMTH_K, WAVELENGTHS_NM, WET_DARKENING, Surface
from urbandelta.simulate.weather import Sky, draw_sky, seen_as_cloud
from urbandelta.types import Array, FloatArray, MaskArray, MaskReason

_WAVELENGTHS_UM = np.array(WAVELENGTHS_NM, np.float32) / 1000
_VAPOUR = WAVELENGTHS_NM.index(945)
_CIRRUS = WAVELENGTHS_NM.index(1375)
# Rayleigh path reflectance and gas transmission near 50 degrees north, as in clear Sentinel-2 L1C scenes over forest
# and water; water vapour closes 1375 nm almost fully.
_RAYLEIGH = np.array(
    [0.092, 0.066, 0.038, 0.020, 0.016, 0.013, 0.011, 0.009, 0.008, 0.004, 0.001, 0.001, 0.0005], np.float32
)
_TRANSMISSION = np.array([0.84, 0.87, 0.90, 0.92, 0.93, 0.93, 0.95, 0.95, 0.96, 0.36, 0.003, 0.95, 0.92], np.float32)
_CLOUD = np.array([1.0, 0.98, 0.96, 0.96, 0.97, 0.98, 0.99, 0.99, 1.0, 0.55, 0.0, 0.62, 0.45], np.float32)
_SHADOW_DEPTH = np.float32(0.65)


@dataclass(frozen=True, kw_only=True)
class OpticalSensor:
    """How an optical instrument samples the ground."""

    wavelengths: tuple[int | None, ...]
    """Per band, index into WAVELENGTHS_NM; None for the thermal band."""
    block_px: tuple[int, ...]
    """Per band, size of its pixels in pixels of the grid."""
    scale: float
    dtype: str
    noise: float
    """Standard deviation of the sensor's noise at reflectance 0; grows by half a percent of the reflectance."""
    registration_px: float
    """Standard deviation of the misregistration."""
    cloud_px: float
    """Typical size of a cloud."""


def _surface_reflectance(cover: FloatArray, wet: float) -> FloatArray:
    """Reflectance of the mixture, (wavelength, y, x)."""
    # Summed surface by surface: a matrix product would leave the last bit to the BLAS of the machine.
    spectra = REFLECTANCE * (1 - np.float32(wet) * WET_DARKENING)[:, None]
    mixed = np.zeros((len(WAVELENGTHS_NM), *cover.shape[1:]), np.float32)
    for share, spectrum in zip(cover, spectra, strict=True):
        if share.any():
            mixed += spectrum[:, None, None] * share
    return mixed


def ground_texture(seed: int, shape: tuple[int, int], parcel: Array) -> FloatArray:
    """Lasting differences in brightness between parcels, patches and pixels of a class; (y, x), about 1."""
    rng = generator(seed, 7)
    between = 0.07 * rng.standard_normal(int(parcel.max()) + 1, dtype=np.float32)[parcel]
    patches = 0.05 * smooth_noise(rng, shape, wavelength_px=12, octaves=3)
    grain = 0.05 * rng.standard_normal(shape, dtype=np.float32)
    texture: FloatArray = np.exp(between + patches + grain)
    return texture


def _through_atmosphere(rng: np.random.Generator, ground: FloatArray, sky: Sky, day: float) -> FloatArray:
    """Top-of-atmosphere reflectance (wavelength, y, x) of surface reflectance, with clouds."""
    vapour = np.float32(rng.uniform(0.7, 1.25))
    haze = np.float32(sky.haze)
    low_sun = np.float32(1 + 0.25 * (1 - season(day)))
    path = low_sun * (_RAYLEIGH + haze * np.float32(0.022) * (_WAVELENGTHS_UM / np.float32(0.5)) ** np.float32(-1.3))
    path[_CIRRUS] = _RAYLEIGH[_CIRRUS] * vapour
    clear = _TRANSMISSION * (1 - np.float32(0.06) * haze * np.float32(0.5) / _WAVELENGTHS_UM)
    clear[_VAPOUR] /= vapour
    lit = 1 - _SHADOW_DEPTH * sky.shadow
    top = path[:, None, None] + clear[:, None, None] * ground * lit
    cloud = _CLOUD * np.float32(sky.cloud_brightness)
    cloud[_CIRRUS] = 0.002 + 0.08 * sky.cirrus
    return (top + sky.opacity * (cloud[:, None, None] - top)).astype(np.float32, copy=False)


def _detector_noise(rng: np.random.Generator, shape: tuple[int, int], block: int) -> FloatArray:
    """White noise of variance 1, one draw per detector pixel of `block` x `block` grid pixels."""
    coarse = -(-shape[0] // block), -(-shape[1] // block)
    noise: FloatArray = rng.standard_normal(coarse, dtype=np.float32)
    return noise.repeat(block, axis=0)[: shape[0]].repeat(block, axis=1)[:, : shape[1]]


def _brightness(cover: FloatArray, sky: Sky, day: float) -> FloatArray:
    """Thermal band as 0..1: (brightness temperature in kelvin - 240) / 100, (y, x)."""
    air = 277 + 17 * season(day - 20)
    warmth = sum(np.float32(kelvin) * share for kelvin, share in zip(WARMTH_K, cover, strict=True))
    ground = air + season(day) * warmth * (1 - 0.5 * sky.shadow)
    brightness: FloatArray = ((ground + sky.opacity * (258 - ground)) - 240) / np.float32(100)
    return brightness


def look(
    rng: np.random.Generator,
    cover: FloatArray,
    texture: FloatArray,
    sensor: OpticalSensor,
    *,
    day: float,
    wet: float,
    cloudiness: float,
) -> tuple[Array, MaskArray]:
    """One optical image of the ground.

    Parameters
    ----------
    rng : Generator
    cover : ndarray, shape (surface, y, x)
    texture : ndarray, shape (y, x)
    sensor : OpticalSensor
    day : float
        Days since 1970-01-01.
    wet : float
        Soil moisture, 0..1.
    cloudiness : float
        Mean share of clouds, 0..1.

    Returns
    -------
    values : ndarray of the sensor's type, shape (y, x, band); reflectance = values * scale
    mask : ndarray of uint8, shape (y, x)
    """
    shape = texture.shape
    sky = draw_sky(rng, shape, day=day, cloudiness=cloudiness, wavelength_px=sensor.cloud_px)
    # Direction of sun and view changes the brightness of the whole ground by a few percent.
    ground = _surface_reflectance(cover, wet) * texture * np.float32(1 + 0.03 * rng.standard_normal())
    offset = np.clip(sensor.registration_px * rng.standard_normal(2), -0.9, 0.9)
    top = _through_atmosphere(rng, shifted(ground, *offset), sky, day)
    values = np.empty((*shape, len(sensor.wavelengths)), sensor.dtype)
    limits = np.iinfo(values.dtype)
    for band, (wavelength, block) in enumerate(zip(sensor.wavelengths, sensor.block_px, strict=True)):
        image = _brightness(cover, sky, day) if wavelength is None else top[wavelength]
        image = block_mean(image, block)
        image = image + _detector_noise(rng, shape, block) * (np.float32(sensor.noise) + np.float32(0.005) * image)
        values[..., band] = np.clip(np.rint(image / np.float32(sensor.scale)), 1, limits.max)
    cloud, shadow = seen_as_cloud(rng, sky, cover[Surface.BRIGHT_ROOF])
    mask = np.where(cloud, MaskReason.CLOUD, 0) | np.where(shadow, MaskReason.CLOUD_SHADOW, 0)
    return values, mask.astype(np.uint8)
