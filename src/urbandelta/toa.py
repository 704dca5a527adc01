"""Top-of-atmosphere correction of Landsat: digital numbers to reflectance, radiance and brightness temperature.

    radiance L = M_L Q + A_L                                          W / (m2 sr um)
    reflectance = (M_R Q + A_R) / sin(sun elevation)                  where the metadata state M_R and A_R
    reflectance = pi L d^2 / (ESUN sin(sun elevation))                the older formula, where they do not
    temperature = K2 / ln(K1 / L + 1)                                 K

Everything is computed in float64 and rounded once, to float32. A digital number of 0 is fill and gives NaN.

References
----------
.. [1] Landsat 8-9 Data Users Handbook, USGS LSDS-1574; Landsat 4-7 Collection 1 Level-1 Data Format Control Book.
.. [2] Chander, Markham & Helder, Remote Sensing of Environment 113, 893-903 (2009), doi:10.1016/j.rse.2009.01.007
.. [3] The Astronomical Almanac, low-precision formulas for the Sun (0.01 degrees, 1950-2050); Michalsky, Solar Energy
       40(3), 227-235 (1988), doi:10.1016/0038-092X(88)90045-X
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ConfigError, MetadataError, ShapeError
from urbandelta.landsat_mtl import BandMetadata, Line, Mtl
from urbandelta.types import Array, FloatArray

Float64Array: TypeAlias = npt.NDArray[np.float64]
Quantity: TypeAlias = Literal["reflectance", "radiance", "temperature"]
Kind: TypeAlias = Literal["toa", "reflectance", "radiance", "temperature"]
"""What to make; `toa` is reflectance of the reflective bands and temperature of the thermal ones."""
Rescaling: TypeAlias = Literal["declared", "range"]
"""Factors as declared, or from the declared minima and maxima, which old files state with more digits."""

FILL = 0
"""Digital number of pixels without data, in all collections."""

ESUN: Mapping[tuple[int, str], float] = MappingProxyType(
    {
        (spacecraft, band): value
        for spacecraft, bands in {
            4: {"1": 1983.0, "2": 1795.0, "3": 1539.0, "4": 1028.0, "5": 219.8, "7": 83.49},
            5: {"1": 1983.0, "2": 1796.0, "3": 1536.0, "4": 1031.0, "5": 220.0, "7": 83.44},
            7: {"1": 1997.0, "2": 1812.0, "3": 1533.0, "4": 1039.0, "5": 230.8, "7": 84.90, "8": 1362.0},
        }.items()
        for band, value in bands.items()
    }
)
"""Mean exoatmospheric solar irradiance, W / (m2 um), by spacecraft and band: Chander et al. (2009), tables 2 to 4
(Thuillier's solar spectrum). Landsat 8 and 9 always state reflectance factors."""

THERMAL_CONSTANTS: Mapping[int, tuple[float, float]] = MappingProxyType(
    {4: (671.62, 1284.30), 5: (607.76, 1260.56), 7: (666.09, 1282.71)}
)
"""K1 (W / (m2 sr um)) and K2 (K) of band 6 by spacecraft, for files that state none: Chander et al. (2009), table 7."""

_THERMAL = ("6", "6_VCID_1", "6_VCID_2")
_THERMAL_TIRS = ("10", "11")
PANCHROMATIC = "8"


def is_thermal(mtl: Mtl, band: str) -> bool:
    """Whether a band measures emission, not reflection."""
    return band in (_THERMAL_TIRS if mtl.spacecraft >= 8 else _THERMAL)


@dataclass(frozen=True, kw_only=True)
class Correction:
    """How one band's digital numbers become a quantity.

    `line` gives radiance, or reflectance before the division by the sine of the sun's elevation. `origin` says where
    its numbers come from.
    """

    band: str
    quantity: Quantity
    line: Line
    k1: float = 0.0
    k2: float = 0.0
    origin: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for provenance."""
        document: dict[str, Any] = {
            "band": self.band,
            "quantity": self.quantity,
            "mult": self.line.mult,
            "add": self.line.add,
            "origin": self.origin,
        }
        return document | ({"k1": self.k1, "k2": self.k2} if self.quantity == "temperature" else {})


def quantity_of(mtl: Mtl, band: str, kind: Kind) -> Quantity:
    """Quantity that `kind` means for a band.

    Raises
    ------
    ConfigError
        If the band cannot be had in it: reflectance of a thermal band, temperature of another.
    """
    thermal = is_thermal(mtl, band)
    if kind == "toa":
        return "temperature" if thermal else "reflectance"
    if kind not in get_args(Kind):
        raise ConfigError(f"unknown kind {kind!r}; known: {', '.join(get_args(Kind))}")
    if kind != "radiance" and thermal != (kind == "temperature"):
        raise ConfigError(f"band {band} has no {kind}; name other bands, or choose kind toa or radiance")
    return kind


def find_correction(mtl: Mtl, band: str, *, kind: Kind = "toa", rescaling: Rescaling = "declared") -> Correction:
    """How to correct a band of a scene, from its metadata and, where they are silent, from tables.

    Raises
    ------
    MetadataError
        If the metadata do not know the band, or state too little and no table helps.
    ConfigError
        If the band cannot be had in this kind.
    """
    metadata = mtl.bands.get(band)
    if metadata is None:
        raise MetadataError(f"{mtl.where}: states no band {band}; it has {', '.join(mtl.bands)}")
    quantity = quantity_of(mtl, band, kind)
    if quantity == "reflectance":
        line, origin = _reflectance(mtl, metadata, rescaling)
        return Correction(band=band, quantity=quantity, line=line, origin=origin)
    line, origin = _radiance(mtl, metadata, rescaling)
    if quantity == "radiance":
        return Correction(band=band, quantity=quantity, line=line, origin=origin)
    k1, k2, constants = _thermal_constants(mtl, metadata)
    return Correction(band=band, quantity=quantity, line=line, k1=k1, k2=k2, origin=f"{origin}; {constants}")


def _radiance(mtl: Mtl, band: BandMetadata, rescaling: Rescaling) -> tuple[Line, str]:
    chosen = _chosen(band.radiance, band.radiance_range, rescaling, "RADIANCE")
    if chosen is None:
        raise MetadataError(
            f"{mtl.where}: states neither RADIANCE_MULT_BAND_{band.name} nor the range of its radiance; "
            "fetch the scene's MTL file again"
        )
    return chosen


def _reflectance(mtl: Mtl, band: BandMetadata, rescaling: Rescaling) -> tuple[Line, str]:
    chosen = _chosen(band.reflectance, band.reflectance_range, rescaling, "REFLECTANCE")
    if chosen is not None:
        return chosen
    radiance, origin = _radiance(mtl, band, rescaling)
    esun = ESUN.get((mtl.spacecraft, band.name))
    if esun is None:
        raise MetadataError(
            f"{mtl.where}: states no REFLECTANCE_MULT_BAND_{band.name}, and no table has the band's solar irradiance; "
            "fetch the scene's MTL file again"
        )
    distance = sun_distance(mtl)
    factor = math.pi * distance**2 / esun
    stated = "MTL" if mtl.earth_sun_distance is not None else "almanac"
    return (
        Line(radiance.mult * factor, radiance.add * factor),
        f"pi L d^2 / ESUN; {origin}; ESUN {esun:g} (Chander 2009); d {distance:.7f} ({stated})",
    )


def _chosen(declared: Line | None, by_range: Line | None, rescaling: Rescaling, name: str) -> tuple[Line, str] | None:
    if rescaling not in get_args(Rescaling):
        raise ConfigError(f"unknown rescaling {rescaling!r}; known: {', '.join(get_args(Rescaling))}")
    lines = [(declared, f"{name}_MULT, {name}_ADD"), (by_range, f"range of {name.lower()}")]
    if rescaling == "range":
        lines.reverse()
    return next(((line, origin) for line, origin in lines if line is not None), None)


def _thermal_constants(mtl: Mtl, band: BandMetadata) -> tuple[float, float, str]:
    if band.k1 is not None and band.k2 is not None:
        return band.k1, band.k2, "K1, K2 of the MTL"
    if mtl.spacecraft not in THERMAL_CONSTANTS:
        raise MetadataError(f"{mtl.where}: states no K1_CONSTANT_BAND_{band.name}; fetch the scene's MTL file again")
    return *THERMAL_CONSTANTS[mtl.spacecraft], "K1, K2 of Chander 2009"


def rounding(mtl: Mtl, band: str) -> float:
    """Relative error of a band's declared factor against its declared range; 0 if either is missing.

    Files of 2012 to 2014 declare `RADIANCE_MULT_BAND_7 = 0.066` where the range gives 0.065551, 0.7 % less.
    """
    metadata = mtl.bands[band]
    pairs = ((metadata.reflectance, metadata.reflectance_range), (metadata.radiance, metadata.radiance_range))
    for declared, by_range in pairs:
        if declared is not None and by_range is not None:
            return declared.mult / by_range.mult - 1
    return 0.0


def correct(dn: Array, correction: Correction, *, sun_elevation: float | Array) -> FloatArray:
    """Correct one band.

    Parameters
    ----------
    dn : ndarray of integers, shape (y, x)
    correction : Correction
    sun_elevation : float or ndarray, shape (y, x)
        Degrees above the horizon; used by reflectance only.

    Returns
    -------
    ndarray of float32, shape (y, x)
        Reflectance (1 is all light), W / (m2 sr um), or K. NaN where `dn` is 0, where the sun is not above the horizon,
        and where a temperature has no positive radiance.

    Raises
    ------
    ShapeError
        If the elevations have another shape.
    """
    line = correction.line
    numbers = dn.astype(np.float64)
    values = line.mult * numbers + line.add
    with np.errstate(divide="ignore", invalid="ignore"):
        if correction.quantity == "reflectance":
            elevation = np.asarray(sun_elevation, np.float64)
            if elevation.ndim and elevation.shape != dn.shape:
                raise ShapeError(f"sun elevations of shape {elevation.shape} do not fit pixels of shape {dn.shape}")
            values = values / np.where(elevation > 0, np.sin(np.deg2rad(elevation)), np.nan)
        elif correction.quantity == "temperature":
            values = correction.k2 / np.log(correction.k1 / np.where(values > 0, values, np.nan) + 1)
    values[numbers == FILL] = np.nan
    corrected: FloatArray = values.astype(np.float32)
    return corrected


def sun_distance(mtl: Mtl) -> float:
    """Distance of the sun when a scene was taken, astronomical units: as stated, else computed."""
    return mtl.earth_sun_distance if mtl.earth_sun_distance is not None else earth_sun_distance(mtl.time)


def earth_sun_distance(time: np.datetime64) -> float:
    """Distance of the sun in astronomical units, by the Almanac's formula.

    Within 2e-5 of what USGS states; the simpler `1 - 0.01672 cos(0.9856 (day - 4))` is off by up to 5e-4.
    """
    anomaly = math.radians(357.528 + 0.9856003 * _days(time))
    return 1.00014 - 0.01671 * math.cos(anomaly) - 0.00014 * math.cos(2 * anomaly)


def sun_position(time: np.datetime64, longitude: Array, latitude: Array) -> tuple[Float64Array, Float64Array]:
    """Where the sun stands.

    Parameters
    ----------
    time : datetime64
        UTC.
    longitude, latitude : ndarray
        Degrees, of one shape.

    Returns
    -------
    elevation, azimuth : ndarray, shape of `longitude`
        Degrees: above the horizon (without refraction, as in Landsat's metadata), and from north through east.
    """
    days = _days(time)
    anomaly = math.radians(357.528 + 0.9856003 * days)
    ecliptic = math.radians(280.460 + 0.9856474 * days + 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly))
    obliquity = math.radians(23.439 - 4e-7 * days)
    right_ascension = math.atan2(math.cos(obliquity) * math.sin(ecliptic), math.cos(ecliptic))
    declination = math.asin(math.sin(obliquity) * math.sin(ecliptic))
    sidereal = math.radians(15 * (18.697374558 + 24.06570982441908 * days))
    hour = sidereal - right_ascension + np.deg2rad(np.asarray(longitude, np.float64))
    north = np.deg2rad(np.asarray(latitude, np.float64))
    height = np.sin(north) * math.sin(declination) + np.cos(north) * math.cos(declination) * np.cos(hour)
    azimuth = np.arctan2(-np.sin(hour), math.tan(declination) * np.cos(north) - np.sin(north) * np.cos(hour))
    return np.rad2deg(np.arcsin(np.clip(height, -1, 1))), np.rad2deg(azimuth) % 360


def _days(time: np.datetime64) -> float:
    """Days since noon of 2000-01-01 (J2000)."""
    return float((time - np.datetime64("2000-01-01T12:00", "ns")) / np.timedelta64(1, "D"))
