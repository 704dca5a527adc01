"""Public archives as rows of data: where their catalogue is and what their collections hold.

A row says which collections serve a stream, which asset holds which band, at which processing level, in which encoding,
and how reading is permitted. `custom` in a monitor file makes a row for any other STAC API or static catalogue. What an
item itself declares (baseline, orbit, scale and offset) is read in `item_facts`; nothing here depends on a date.

Fields were taken from each archive's items and from reports of their users, which `docs/fetching.md` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from urbandelta.eras import Stream, StreamKind
from urbandelta.errors import ConfigError
from urbandelta.sources.calibrate import SCL_REASONS, MaskRule
from urbandelta.sources.choices import Resampling, ZeroRule

Signing: TypeAlias = Literal["none", "planetary-computer", "s3"]
OffsetRule: TypeAlias = Literal["sentinel-2", "declared"]
Clouds: TypeAlias = Literal["", "s2cloudless"]
OffsetCheck: TypeAlias = Literal["refuse", "warn"]

CUSTOM = "custom"
SCL = "SCL"


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What a monitor file asks of an archive for one stream; empty values leave the archive's row as it is.

    `assets` maps a band to the key of its asset, `KEY#2` being the second band of that file. `nodata` are stored values
    that are missing. `max_cloud` is the item's own percentage over the whole tile. `clouds` and `border_noise` look for
    what the archive does not mask.
    """

    collection: str = ""
    relative_orbits: tuple[int, ...] = ()
    platforms: tuple[str, ...] = ()
    max_cloud: float | None = None
    assets: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    level: str = ""
    coefficient: str = ""
    scale: float | None = None
    offset: float | None = None
    nodata: tuple[float, ...] = ()
    zero: ZeroRule | None = None
    mask_band: str = ""
    mask_values: str = ""
    merge_within: float | None = None
    resampling: Resampling = "nearest"
    clouds: Clouds = ""
    border_noise: bool = False
    offset_check: OffsetCheck = "refuse"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One collection of an archive: what its items hold and how their numbers are to be read.

    `assets` lists for each band the keys that its asset may have; the first that an item has is taken. `offset_rule`
    says whether scale and offset follow Sentinel-2's baselines or are what the item or the file declares.
    `stored_offset` is the offset that acquisitions are stored with, so that all baselines share one encoding.
    """

    id: str
    kind: StreamKind
    assets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    units: str = ""
    """Units of the streams that it can serve (`eras.Stream.units`); empty for any."""
    level: str = ""
    coefficient: str = ""
    offset_rule: OffsetRule = "declared"
    scale: float | None = None
    stored_offset: float | None = None
    nodata: tuple[float, ...] = ()
    zero: ZeroRule = "valid"
    masks: tuple[MaskRule, ...] = ()
    mask_assets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    merge_within: float = 120.0
    bytes_per_pixel: float = 2.0
    """Of one band, as transferred; for estimates where items do not declare sizes."""
    unreadable: str = ""
    """Why its files cannot be placed on a grid; empty if they can."""

    def serves(self, stream: Stream) -> bool:
        """Whether its assets can fill a stream; a collection without a list of assets serves any stream of its kind."""
        same = self.kind == stream.kind and self.units in ("", stream.units)
        return same and (not self.assets or any(band in self.assets for band in stream.bands))


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A STAC API (or static catalogue) and its collections, the preferred one of a kind first."""

    name: str
    title: str
    url: str
    collections: tuple[Collection, ...] = ()
    signing: Signing = "none"
    token_path: str = ""
    """Where a signature for a collection is asked for, relative to `url`; `{collection}` is replaced."""
    s3_endpoint: str = ""
    s3_region: str = ""
    requester_pays: bool = False
    credentials: tuple[str, ...] = ()
    """Environment variables that reading needs."""
    optional_credentials: tuple[str, ...] = ()
    page_size: int = 100

    def collection_for(self, stream: Stream, request: StreamRequest) -> Collection | None:
        """The collection that serves a stream, altered as the monitor file asks; None if the archive has none.

        Raises
        ------
        ConfigError
            If the monitor file names a collection that the archive's row does not have, or a band or mask is unclear.
        """
        if request.collection and self.name != CUSTOM:
            known = [row for row in self.collections if row.id == request.collection]
            if not known:
                raise ConfigError(
                    f"source.streams.{stream.name}.collection: {self.name} has no collection {request.collection!r} "
                    f"({', '.join(row.id for row in self.collections)}); use archive: custom for others"
                )
            if not known[0].serves(stream):
                raise ConfigError(
                    f"source.streams.{stream.name}.collection: {request.collection} holds {known[0].kind} data, which "
                    f"stream {stream.name} cannot take"
                )
            row = known[0]
        elif self.name == CUSTOM:
            if not request.collection:
                return None
            row = _unknown_collection(request.collection, stream)
        else:
            serving = [row for row in self.collections if row.serves(stream)]
            if not serving:
                return None
            row = next((row for row in serving if not row.unreadable), serving[0])
        return _as_asked(row, stream, request)


def archive_named(name: str, *, url: str | None = None) -> Archive:
    """Row of `ARCHIVES`, or one for a catalogue that is not in the table.

    Raises
    ------
    ConfigError
        If the name is unknown, or `custom` lacks its URL.
    """
    if name == CUSTOM:
        if not url:
            raise ConfigError("source.archive: custom needs source.url, the address of a STAC API or of a catalog.json")
        return Archive(name=CUSTOM, title=url, url=url)
    if name not in ARCHIVES:
        raise ConfigError(f"source.archive: unknown archive {name!r}; known: {', '.join((*ARCHIVES, CUSTOM))}")
    # A URL beside a known name is a mirror of it: same collections, same rules.
    return replace(ARCHIVES[name], url=url) if url else ARCHIVES[name]


def _unknown_collection(name: str, stream: Stream) -> Collection:
    """A collection of which only the items can say what it holds."""
    sar = stream.kind == "sar"
    return Collection(
        id=name,
        kind=stream.kind,
        zero="nodata" if sar else "valid",
        bytes_per_pixel=4.0 if sar else 2.0,
        offset_rule="declared" if sar else "sentinel-2",
    )


def _as_asked(row: Collection, stream: Stream, request: StreamRequest) -> Collection:
    unknown = [band for band in (*request.assets, *request.only) if band not in (*stream.bands, request.mask_band)]
    if unknown:
        raise ConfigError(
            f"source.streams.{stream.name}: {', '.join(sorted(set(unknown)))}: stream {stream.name} has "
            f"{', '.join(stream.bands)}"
        )
    if bool(request.mask_band) != bool(request.mask_values):
        raise ConfigError(f"source.streams.{stream.name}: mask_band and mask_values go together")
    masks, mask_assets = row.masks, dict(row.mask_assets)
    if request.mask_band:
        masks = (*masks, MaskRule.parse(request.mask_band, request.mask_values))
        mask_assets[request.mask_band] = (request.assets.get(request.mask_band, request.mask_band),)
    assets = {**row.assets, **{band: (key,) for band, key in request.assets.items() if band in stream.bands}}
    return replace(
        row,
        assets=assets,
        masks=masks,
        mask_assets=mask_assets,
        level=request.level or row.level,
        coefficient=request.coefficient or row.coefficient,
        scale=row.scale if request.scale is None else request.scale,
        nodata=request.nodata or row.nodata,
        zero=request.zero or row.zero,
        merge_within=row.merge_within if request.merge_within is None else request.merge_within,
    )


_COMMON_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "B01": "coastal",
        "B02": "blue",
        "B03": "green",
        "B04": "red",
        "B05": "rededge1",
        "B06": "rededge2",
        "B07": "rededge3",
        "B08": "nir",
        "B8A": "nir08",
        "B09": "nir09",
        "B10": "cirrus",
        "B11": "swir16",
        "B12": "swir22",
    }
)
_NATIVE_M: Mapping[str, int] = MappingProxyType(
    {
        band: 10 if band in ("B02", "B03", "B04", "B08") else 60 if band in ("B01", "B09", "B10") else 20
        for band in _COMMON_NAMES
    }
)


def _msi_assets(*, cirrus: bool, naming: Literal["bands", "common", "resolutions"]) -> dict[str, tuple[str, ...]]:
    """Asset keys of Sentinel-2's bands: `B02`, `blue`, or `B02_10m` (the native size first, then coarser ones)."""
    bands = [band for band in _COMMON_NAMES if cirrus or band != "B10"]
    if naming == "bands":
        return {band: (band,) for band in bands}
    if naming == "common":
        return {band: (_COMMON_NAMES[band], band) for band in bands}
    sizes = (10, 20, 60)
    return {
        band: (*(f"{band}_{size}m" for size in sizes if size >= _NATIVE_M[band]), band, _COMMON_NAMES[band])
        for band in bands
    }


def _msi(
    name: str, *, level: str, naming: Literal["bands", "common", "resolutions"], scl: tuple[str, ...] = ()
) -> Collection:
    return Collection(
        id=name,
        kind="optical",
        assets=_msi_assets(cirrus=level == "L1C", naming=naming),
        units="reflectance",
        level=level,
        offset_rule="sentinel-2",
        scale=1e-4,
        # Baseline 04.00's own: reflectances below 0 keep their numbers, and older baselines gain 1000 without loss.
        stored_offset=-0.1,
        nodata=(0.0,),
        masks=(MaskRule(band=SCL, reasons=SCL_REASONS),) if scl else (),
        mask_assets={SCL: scl} if scl else {},
        bytes_per_pixel=1.3,
    )


_RADAR_GEOMETRY = (
    "its files lie in radar geometry (ground control points, uncalibrated amplitudes) and need calibration and terrain "
    "correction first; take gamma0 from sentinel-1-rtc of planetary-computer or from source.kind sentinelhub, or "
    "process the products (docs/importing.md) and import them"
)


def _grd(name: str) -> Collection:
    return Collection(
        id=name,
        kind="sar",
        assets={"VV": ("vv", "VV"), "VH": ("vh", "VH")},
        units="linear power",
        level="GRD",
        zero="nodata",
        bytes_per_pixel=2.0,
        unreadable=_RADAR_GEOMETRY,
    )


ARCHIVES: Mapping[str, Archive] = MappingProxyType(
    {
        "planetary-computer": Archive(
            name="planetary-computer",
            title="Microsoft Planetary Computer",
            url="https://planetarycomputer.microsoft.com/api/stac/v1",
            signing="planetary-computer",
            token_path="../../sas/v1/token/{collection}",
            optional_credentials=("PC_SDK_SUBSCRIPTION_KEY",),
            collections=(
                Collection(
                    id="sentinel-1-rtc",
                    kind="sar",
                    assets={"VV": ("vv",), "VH": ("vh",)},
                    units="linear power",
                    level="RTC",
                    coefficient="gamma0",
                    nodata=(-32768.0,),
                    zero="nodata",
                    bytes_per_pixel=3.5,
                ),
                _grd("sentinel-1-grd"),
                _msi("sentinel-2-l2a", level="L2A", naming="bands", scl=("SCL",)),
            ),
        ),
        "earth-search": Archive(
            name="earth-search",
            title="Earth Search by Element 84",
            url="https://earth-search.aws.element84.com/v1",
            # L2A is open over HTTPS; the L1C and GRD buckets want an account that pays for the transfer.
            signing="s3",
            s3_endpoint="https://s3.{region}.amazonaws.com",
            s3_region="eu-central-1",
            requester_pays=True,
            optional_credentials=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"),
            collections=(
                _msi("sentinel-2-l1c", level="L1C", naming="common"),
                _msi("sentinel-2-c1-l2a", level="L2A", naming="common", scl=("scl", SCL)),
                _msi("sentinel-2-l2a", level="L2A", naming="common", scl=("scl", SCL)),
                _grd("sentinel-1-grd"),
            ),
        ),
        "copernicus": Archive(
            name="copernicus",
            title="Copernicus Data Space Ecosystem",
            url="https://stac.dataspace.copernicus.eu/v1",
            signing="s3",
            s3_endpoint="https://eodata.dataspace.copernicus.eu",
            s3_region="default",
            credentials=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            collections=(
                _msi("sentinel-2-l1c", level="L1C", naming="resolutions"),
                _msi("sentinel-2-l2a", level="L2A", naming="resolutions", scl=("SCL_20m", "SCL_60m", SCL)),
                _grd("sentinel-1-grd"),
            ),
        ),
    }
)
"""The archives by name. A new archive is a row here plus a marked test."""
