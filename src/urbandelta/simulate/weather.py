"""Weather of a simulated scene: rain that wets the soil, clouds with their shadows, haze."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from urbandelta.simulate.crops import season
from urbandelta.simulate.noise import generator, smooth_noise
from urbandelta.types import BoolArray, FloatArray

_RAINY_DAYS = 0.4
_DRYING_DAYS = 2.5
_RAMP = 0.35
"""How far beyond its edge, in standard deviations of the cloud field, a cloud becomes opaque."""


def wetness(seed: int, *, first_day: int, days: int) -> FloatArray:
    """Soil moisture of every day, 0 dry to 1 soaked; float32 (day,). Rain fills it, sun dries it in a few days."""
    rng = generator(seed, 6)
    rain = np.where(rng.random(days + 30) < _RAINY_DAYS, rng.gamma(0.8, 0.5, days + 30), 0)
    level, levels = 0.3, []
    for day, amount in enumerate(rain, start=first_day - 30):
        level = min(1.0, level * np.exp(-(0.5 + season(day)) / _DRYING_DAYS) + amount)
        levels.append(level)
    return np.array(levels[30:], np.float32)


@dataclass(frozen=True)
class Sky:
    """What the atmosphere does to one optical acquisition."""

    opacity: FloatArray
    """(y, x) 0 clear .. 1 cloud that hides the ground."""
    shadow: FloatArray
    """(y, x) share of direct light that clouds keep from the ground."""
    cloud_brightness: float
    cirrus: float
    """Height of the clouds, 0..1: only high ones show at 1375 nm."""
    haze: float
    """Aerosol load, about 0..1."""


def draw_sky(
    rng: np.random.Generator, shape: tuple[int, int], *, day: float, cloudiness: float, wavelength_px: float
) -> Sky:
    """Draw clouds, shadows and haze.

    Parameters
    ----------
    rng : Generator
    shape : (y, x)
    day : float
        Days since 1970-01-01; winter is cloudier.
    cloudiness : float
        Mean share of clouds over the year, 0..1.
    wavelength_px : float
        Size of a cloud.
    """
    mean = float(np.clip(cloudiness + 0.12 * (1 - 2 * season(day)) * (cloudiness > 0), 0, 0.95))
    # Skies are mostly clear or mostly overcast: a U-shaped distribution of the cloud share.
    share = rng.beta(0.8 * mean, 0.8 * (1 - mean)) if mean > 0 else 0.0
    reach = round(0.25 * wavelength_px)
    field = smooth_noise(
        rng, (shape[0] + 2 * reach, shape[1] + 2 * reach), wavelength_px=wavelength_px, octaves=5, roughness=0.45
    )
    # The field is one draw of a standard normal variable: its own quantile would put a cloud into every small scene.
    edge = NormalDist().inv_cdf(min(max(1 - share, 1e-9), 1 - 1e-9))
    opacity = np.clip((field - np.float32(edge)) / np.float32(_RAMP), 0, 1)
    # The sun stands in the south: shadows fall to the north, longer in winter.
    fall_y, fall_x = round(reach * (1 - 0.5 * season(day)) * rng.uniform(0.3, 1)), round(reach * rng.uniform(-0.4, 0.1))
    inner = slice(reach, reach + shape[0]), slice(reach, reach + shape[1])
    behind = slice(reach + fall_y, reach + fall_y + shape[0]), slice(reach + fall_x, reach + fall_x + shape[1])
    return Sky(
        opacity=opacity[inner],
        shadow=opacity[behind],
        cloud_brightness=float(rng.uniform(0.35, 0.85)),
        cirrus=float(rng.beta(0.6, 2.0)),
        haze=float(np.clip(rng.gamma(2.0, 0.17), 0, 1.2)),
    )


def seen_as_cloud(rng: np.random.Generator, sky: Sky, bright: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Cloud and shadow masks as a detector gives them: it misses thin clouds and takes some bright roofs for clouds.

    Parameters
    ----------
    rng : Generator
    sky : Sky
    bright : ndarray, shape (y, x)
        Share of bright artificial surfaces, 0..1.

    Returns
    -------
    (cloud, shadow), bool arrays (y, x)
    """
    threshold = rng.uniform(0.08, 0.3)
    cloud = sky.opacity > threshold
    mistaken = smooth_noise(rng, cloud.shape, wavelength_px=12) > rng.uniform(0.9, 2.2)
    cloud |= (bright > 0.6) & mistaken
    shadow = (sky.shadow > rng.uniform(0.15, 0.45)) & ~cloud
    return cloud, shadow
