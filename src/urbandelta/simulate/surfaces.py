"""What the ground is made of, and how each material looks to each sensor.

Every pixel is a mixture of a few surfaces. Reflectances follow common spectral libraries and Sentinel-2 scenes of
western Europe, backscatter published averages of C band at 39 degrees (Sentinel-1) and 23 degrees (ERS); they are
round numbers of the right size, not measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from urbandelta.types import FloatArray


class Surface(IntEnum):
    """Materials; an index into the tables below and the first axis of a cover."""

    WATER = 0
    GREEN = 1
    CONIFER = 2
    LEAFY = 3
    LEAFLESS = 4
    STRAW = 5
    SOIL = 6
    GRAVEL = 7
    ASPHALT = 8
    BRIGHT_ROOF = 9
    RED_ROOF = 10
    DARK_ROOF = 11


class LandCover(IntEnum):
    """Classes of the land-cover map of a scene, as it was before any construction."""

    WATER = 0
    FOREST = 1
    GRASS = 2
    FIELD = 3
    BARE = 4
    ROAD = 5
    SUBURB = 6
    BUILDING = 7


ROOFS = (Surface.BRIGHT_ROOF, Surface.RED_ROOF, Surface.DARK_ROOF)

WAVELENGTHS_NM = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190)

# Surface reflectance at WAVELENGTHS_NM.
_REFLECTANCE = {
    Surface.WATER: (0.030, 0.035, 0.035, 0.020, 0.015, 0.012, 0.010, 0.008, 0.007, 0.006, 0.0, 0.004, 0.003),
    Surface.GREEN: (0.025, 0.030, 0.070, 0.035, 0.100, 0.320, 0.420, 0.450, 0.460, 0.440, 0.0, 0.210, 0.100),
    Surface.CONIFER: (0.015, 0.020, 0.030, 0.020, 0.050, 0.140, 0.180, 0.200, 0.210, 0.200, 0.0, 0.090, 0.040),
    Surface.LEAFY: (0.020, 0.025, 0.055, 0.025, 0.080, 0.280, 0.380, 0.400, 0.420, 0.410, 0.0, 0.190, 0.080),
    Surface.LEAFLESS: (0.030, 0.040, 0.055, 0.070, 0.100, 0.130, 0.150, 0.170, 0.190, 0.200, 0.0, 0.200, 0.130),
    Surface.STRAW: (0.070, 0.090, 0.140, 0.180, 0.220, 0.260, 0.290, 0.310, 0.330, 0.340, 0.0, 0.360, 0.240),
    Surface.SOIL: (0.060, 0.080, 0.110, 0.150, 0.170, 0.180, 0.195, 0.210, 0.220, 0.230, 0.0, 0.290, 0.240),
    Surface.GRAVEL: (0.110, 0.140, 0.180, 0.220, 0.240, 0.250, 0.260, 0.270, 0.280, 0.280, 0.0, 0.330, 0.290),
    Surface.ASPHALT: (0.070, 0.080, 0.090, 0.100, 0.105, 0.110, 0.115, 0.120, 0.125, 0.130, 0.0, 0.150, 0.140),
    Surface.BRIGHT_ROOF: (0.280, 0.320, 0.360, 0.380, 0.390, 0.400, 0.410, 0.420, 0.420, 0.420, 0.0, 0.430, 0.400),
    Surface.RED_ROOF: (0.060, 0.070, 0.100, 0.180, 0.210, 0.220, 0.230, 0.250, 0.260, 0.270, 0.0, 0.320, 0.280),
    Surface.DARK_ROOF: (0.060, 0.065, 0.070, 0.075, 0.080, 0.080, 0.085, 0.090, 0.090, 0.095, 0.0, 0.110, 0.110),
}

# Backscatter in dB: VV and VH at 39 degrees, VV at 23 degrees.
_BACKSCATTER_DB = {
    Surface.WATER: (-20.0, -28.0, -11.0),
    Surface.GREEN: (-11.5, -17.5, -7.5),
    Surface.CONIFER: (-10.5, -15.8, -7.5),
    Surface.LEAFY: (-10.5, -16.0, -7.5),
    Surface.LEAFLESS: (-10.2, -16.3, -7.3),
    Surface.STRAW: (-12.0, -19.0, -7.5),
    Surface.SOIL: (-12.5, -20.0, -7.0),
    Surface.GRAVEL: (-10.0, -18.0, -6.0),
    Surface.ASPHALT: (-16.0, -23.0, -11.0),
    Surface.BRIGHT_ROOF: (-6.5, -14.5, -3.0),
    Surface.RED_ROOF: (-7.0, -14.5, -3.5),
    Surface.DARK_ROOF: (-6.5, -14.5, -3.0),
}

# How much a soaked surface gains in dB, and loses in reflectance, against a dry one.
_WET_GAIN_DB = {Surface.SOIL: 4.0, Surface.GRAVEL: 1.5, Surface.STRAW: 2.5, Surface.GREEN: 1.2}
_WET_DARKENING = {Surface.SOIL: 0.35, Surface.GRAVEL: 0.25, Surface.STRAW: 0.2, Surface.ASPHALT: 0.2}

# Warmer (+) or cooler (-) than the air at a midsummer overpass, kelvin.
_WARMTH_K = {
    Surface.WATER: -4.0,
    Surface.GREEN: 0.0,
    Surface.CONIFER: -2.0,
    Surface.LEAFY: -1.5,
    Surface.LEAFLESS: 1.0,
    Surface.STRAW: 7.0,
    Surface.SOIL: 8.0,
    Surface.GRAVEL: 9.0,
    Surface.ASPHALT: 10.0,
    Surface.BRIGHT_ROOF: 4.0,
    Surface.RED_ROOF: 9.0,
    Surface.DARK_ROOF: 12.0,
}


def _table(rows: Mapping[Surface, tuple[float, ...]]) -> FloatArray:
    return np.array([rows[surface] for surface in Surface], np.float32)


def _column(values: Mapping[Surface, float]) -> FloatArray:
    return np.array([values.get(surface, 0.0) for surface in Surface], np.float32)


REFLECTANCE = _table(_REFLECTANCE)
"""Shape (surface, wavelength)."""
BACKSCATTER_DB = _table(_BACKSCATTER_DB)
"""Shape (surface, 3): VV 39 degrees, VH 39 degrees, VV 23 degrees."""
WET_GAIN_DB = _column(_WET_GAIN_DB)
WET_DARKENING = _column(_WET_DARKENING)
WARMTH_K = _column(_WARMTH_K)
