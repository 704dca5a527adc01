"""Sensors and eras, as data: one row of `ERAS` holds everything that varies between them.

Code asks a row for a role or a count; nothing in the package branches on an era's name.

References
----------
.. [1] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from urbandelta.errors import ConfigError
from urbandelta.types import OrbitState

StreamKind: TypeAlias = Literal["sar", "optical"]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One sensor seen from one orbit direction; one group in the store."""

    name: str
    kind: StreamKind
    bands: tuple[str, ...]
    """Bands in the order of the network's input."""
    orbit_state: OrbitState = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    """STAC common name -> band."""
    units: str
    processing_level: str
    backscatter_coefficient: str = ""

    def index(self, role: str) -> int:
        """Position on the band axis of the band that plays `role` (a STAC common name)."""
        return self.bands.index(self.roles[role])


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Parameters of the synthetic label (SAR omnibus test times index shift)."""

    looks: float
    significance: float
    polarisations: int
    gain: float


@dataclass(frozen=True, kw_only=True)
class Era:
    """A set of streams with the parameters that the published system uses for them."""

    name: str
    title: str
    streams: tuple[Stream, ...]
    """In the order of the network's input channels: SAR first, then optical."""
    pixel_m: float
    crs: str | None
    """Fixed CRS of the era's grids, or None for the UTM zone of the AOI."""
    span: tuple[str, str | None]
    step_seconds: int
    """Time-step bucket (the papers' delta)."""
    window_days: int
    """Window length (Delta)."""
    min_obs: int
    """Fewest steps of a window (omega)."""
    max_obs: int
    """Most steps of a window (Omega)."""
    stride_training: int
    stride_inference: int
    label: LabelRule
    sar_filters: int
    optical_filters: int
    transfer_increment: tuple[int, int]
    """Steps from one of a transfer's windows to the next, at least and at most."""
    transfer_first: tuple[int, int] = (0, 20)
    """First step of a transfer's first window, at least and at most."""
    head_filters: int = 8

    def stream(self, name: str) -> Stream:
        """The stream called `name`; raises `ConfigError` for a name that the era does not have."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise ConfigError(f"era {self.name} has no stream {name!r}; it has {', '.join(self.stream_names)}")

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Names of the streams in channel order."""
        return tuple(stream.name for stream in self.streams)

    @property
    def sar_streams(self) -> tuple[Stream, ...]:
        """The SAR streams, in channel order."""
        return tuple(stream for stream in self.streams if stream.kind == "sar")

    @property
    def optical_streams(self) -> tuple[Stream, ...]:
        """The optical streams, in channel order."""
        return tuple(stream for stream in self.streams if stream.kind == "optical")

    @property
    def sar_bands(self) -> int:
        """Number of SAR channels of the network's input."""
        return sum(len(stream.bands) for stream in self.sar_streams)

    @property
    def optical_bands(self) -> int:
        """Number of optical channels of the network's input."""
        return sum(len(stream.bands) for stream in self.optical_streams)

    @property
    def bands(self) -> int:
        """Number of channels of the network's input."""
        return self.sar_bands + self.optical_bands

    def channels(self, stream_name: str) -> slice:
        """Where a stream's bands lie on the channel axis of the network's input."""
        start = 0
        for stream in self.streams:
            if stream.name == stream_name:
                return slice(start, start + len(stream.bands))
            start += len(stream.bands)
        raise ConfigError(f"era {self.name} has no stream {stream_name!r}; it has {', '.join(self.stream_names)}")


def _sentinel1(name: str, orbit_state: OrbitState) -> Stream:
    return Stream(
        name=name,
        kind="sar",
        bands=("VV", "VH"),
        orbit_state=orbit_state,
        units="linear power",
        processing_level="GRD",
        backscatter_coefficient="gamma0",
    )


def _ers(name: str, orbit_state: OrbitState) -> Stream:
    return Stream(
        name=name,
        kind="sar",
        bands=("VV",),
        orbit_state=orbit_state,
        units="intensity",
        processing_level="PRI",
        backscatter_coefficient="intensity",
    )


_SENTINEL2 = Stream(
    name="optical",
    kind="optical",
    bands=("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"),
    roles=MappingProxyType(
        {
            "coastal": "B01",
            "blue": "B02",
            "green": "B03",
            "red": "B04",
            "rededge071": "B05",
            "rededge075": "B06",
            "rededge078": "B07",
            "nir": "B08",
            "nir08": "B8A",
            "nir09": "B09",
            "cirrus": "B10",
            "swir16": "B11",
            "swir22": "B12",
        }
    ),
    units="reflectance",
    processing_level="L1C",
)

_LANDSAT5 = Stream(
    name="optical",
    kind="optical",
    bands=("B1", "B2", "B3", "B4", "B5", "B6", "B7"),
    roles=MappingProxyType(
        {"blue": "B1", "green": "B2", "red": "B3", "nir": "B4", "swir16": "B5", "lwir": "B6", "swir22": "B7"}
    ),
    units="reflectance",
    processing_level="L1",
)

ERAS: Mapping[str, Era] = MappingProxyType(
    {
        "s12": Era(
            name="s12",
            title="Sentinel-1 and Sentinel-2, since 2017",
            streams=(_sentinel1("s1_asc", "ascending"), _sentinel1("s1_dsc", "descending"), _SENTINEL2),
            pixel_m=10.0,
            crs=None,
            span=("2017-01-01", None),
            step_seconds=2 * 86_400,
            window_days=182,
            min_obs=35,
            max_obs=92,
            stride_training=1,
            stride_inference=5,
            label=LabelRule(looks=4, significance=0.001, polarisations=2, gain=10.0),
            sar_filters=10,
            optical_filters=26,
            transfer_increment=(45, 55),
        ),
        "ers12ls5": Era(
            name="ers12ls5",
            title="ERS-1/2 and Landsat 5 TM, 1991-2011",
            streams=(_ers("ers_asc", "ascending"), _ers("ers_dsc", "descending"), _LANDSAT5),
            pixel_m=30.0,
            crs="EPSG:3035",
            span=("1991-01-01", "2012-01-01"),
            step_seconds=1,
            window_days=365,
            min_obs=25,
            max_obs=110,
            stride_training=1,
            stride_inference=5,
            label=LabelRule(looks=3, significance=0.1, polarisations=1, gain=30.0),
            sar_filters=4,
            optical_filters=20,
            transfer_increment=(40, 49),
        ),
    }
)
"""The eras by name. A new era is a row here plus a test."""


def era_named(name: str) -> Era:
    """Row of `ERAS`; raises `ConfigError` that lists the known names."""
    try:
        return ERAS[name]
    except KeyError:
        raise ConfigError(f"unknown era {name!r}; known eras: {', '.join(ERAS)}") from None
