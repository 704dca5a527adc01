"""What a simulated scene of each era consists of: place, sensors, orbits. One row an era, as in `eras.ERAS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from urbandelta.errors import ConfigError
from urbandelta.simulate.optical import OpticalSensor
from urbandelta.simulate.radar import RadarSensor
from urbandelta.simulate.revisit import Orbit


@dataclass(frozen=True, kw_only=True)
class StreamRecipe:
    """One stream of a simulated scene."""

    sensor: OpticalSensor | RadarSensor
    orbits: tuple[Orbit, ...]
    processing_baseline: str = ""


@dataclass(frozen=True, kw_only=True)
class SceneRecipe:
    """One era's simulated scene."""

    crs: str
    origin: tuple[float, float]
    """West and north edge."""
    start: str
    parcel_px: float
    largest_building_px: float
    lost: tuple[str, float, float]
    """Platform that fails, and for which part of the series."""
    streams: Mapping[str, StreamRecipe]


_C_BAND_39_DEGREES = RadarSensor(columns=(0, 1), gain=1.0)
# ERS PRI intensity is the squared amplitude; its calibration constant of about 58 dB gives the scale.
_C_BAND_23_DEGREES = RadarSensor(columns=(2,), gain=6.5e5)
_MSI = OpticalSensor(
    wavelengths=tuple(range(13)),
    block_px=(6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 6, 2, 2),
    scale=1e-4,
    dtype="uint16",
    noise=0.0006,
    registration_px=0.2,
    cloud_px=150.0,
)
_TM = OpticalSensor(
    wavelengths=(1, 2, 3, 7, 11, None, 12),
    block_px=(1, 1, 1, 1, 1, 4, 1),
    scale=1 / 255,
    dtype="uint8",
    noise=0.0015,
    registration_px=0.25,
    cloud_px=60.0,
)

RECIPES: Mapping[str, SceneRecipe] = MappingProxyType(
    {
        "s12": SceneRecipe(
            crs="EPSG:32631",
            origin=(672_000.0, 5_616_000.0),
            start="2019-01-01",
            parcel_px=14.0,
            largest_building_px=26.0,
            lost=("S1B", 0.55, 0.8),
            streams=MappingProxyType(
                {
                    "s1_asc": StreamRecipe(
                        sensor=_C_BAND_39_DEGREES,
                        orbits=(
                            Orbit(platform="S1A", relative_orbit=88, repeat_days=12, phase_days=1, utc_hours=17.42),
                            Orbit(platform="S1B", relative_orbit=88, repeat_days=12, phase_days=7, utc_hours=17.41),
                        ),
                    ),
                    "s1_dsc": StreamRecipe(
                        sensor=_C_BAND_39_DEGREES,
                        orbits=(
                            Orbit(platform="S1A", relative_orbit=37, repeat_days=12, phase_days=4, utc_hours=5.84),
                            Orbit(platform="S1B", relative_orbit=37, repeat_days=12, phase_days=10, utc_hours=5.83),
                        ),
                    ),
                    "optical": StreamRecipe(
                        sensor=_MSI,
                        orbits=(
                            Orbit(platform="S2A", relative_orbit=8, repeat_days=10, phase_days=0, utc_hours=10.68),
                            Orbit(platform="S2B", relative_orbit=8, repeat_days=10, phase_days=5, utc_hours=10.68),
                        ),
                        processing_baseline="02.08",
                    ),
                }
            ),
        ),
        "ers12ls5": SceneRecipe(
            crs="EPSG:3035",
            origin=(3_988_110.0, 3_078_210.0),
            start="1995-05-01",
            parcel_px=7.0,
            largest_building_px=12.0,
            lost=("ERS2", 0.6, 0.7),
            streams=MappingProxyType(
                {
                    # ERS-1 flew one day ahead of ERS-2 in the tandem phase and was then put to rest.
                    "ers_asc": StreamRecipe(
                        sensor=_C_BAND_23_DEGREES,
                        orbits=(
                            Orbit(platform="ERS2", relative_orbit=301, repeat_days=35, phase_days=6, utc_hours=21.65),
                            Orbit(platform="ERS2", relative_orbit=30, repeat_days=35, phase_days=22, utc_hours=21.6),
                            Orbit(platform="ERS1", relative_orbit=301, repeat_days=35, phase_days=5, utc_hours=21.65,
                                  service=(0.0, 0.45)),
                        ),
                    ),
                    "ers_dsc": StreamRecipe(
                        sensor=_C_BAND_23_DEGREES,
                        orbits=(
                            Orbit(platform="ERS2", relative_orbit=423, repeat_days=35, phase_days=14, utc_hours=10.53),
                            Orbit(platform="ERS2", relative_orbit=151, repeat_days=35, phase_days=30, utc_hours=10.57),
                            Orbit(platform="ERS1", relative_orbit=423, repeat_days=35, phase_days=13, utc_hours=10.53,
                                  service=(0.0, 0.45)),
                        ),
                    ),
                    "optical": StreamRecipe(
                        sensor=_TM,
                        orbits=(
                            Orbit(platform="LS5", relative_orbit=198, repeat_days=16, phase_days=3, utc_hours=10.05,
                                  winter_loss=0.6),
                        ),
                    ),
                }
            ),
        ),
    }
)  # fmt: skip
"""Recipes by the name of their era."""


def recipe_for(era_name: str) -> SceneRecipe:
    """Row of `RECIPES`; raises `ConfigError` that lists the eras that can be simulated."""
    try:
        return RECIPES[era_name]
    except KeyError:
        raise ConfigError(f"no simulated scene for era {era_name!r}; there is one for {', '.join(RECIPES)}") from None
