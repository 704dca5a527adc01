"""Landsat Level-1 scenes: digital numbers corrected to the top of the atmosphere as they are read, with quality masks.

Bands go to the stream by their role (blue, nir, swir16, ...), so that Landsat 7, 8 and 9 fill the same bands as
Landsat 5. The thermal band is stored as radiance over the range of Landsat 5's band 6, 0..1 (see `THERMAL_RANGE`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from urbandelta.eras import Stream
from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.landsat_mtl import Line, Mtl
from urbandelta.landsat_qa import before_collections_reasons, collection1_reasons, collection2_reasons
from urbandelta.sources.base import Found, Layer, Part, Scene
from urbandelta.sources.calibrate import MaskRule
from urbandelta.sources.geotiff import open_raster
from urbandelta.sources.landsat_files import SceneFiles, find_scene_files
from urbandelta.sun_angles import ComputedSun, SceneSun, Sun, SunMode, ZenithBandSun
from urbandelta.toa import FILL, Correction, Rescaling, correct, find_correction, is_thermal
from urbandelta.types import Array, BoolArray, MaskArray, MaskReason

log = logging.getLogger(__name__)

Thermal: TypeAlias = Literal["scaled", "kelvin"]
"""What the thermal band becomes: radiance over `THERMAL_RANGE`, or brightness temperature in K."""
Quality: TypeAlias = Literal["auto", "none"]
"""Whether the quality bands that the metadata name are used."""

THERMAL_RANGE = (1.2378, 15.3032)
"""Radiance of Landsat 5's band 6 at digital numbers 1 and 255, W / (m2 sr um): what 0 and 1 mean in a cube.

The published weights' first optical batch norm has seen a mean of about 0.43 to 0.46 in this band (docs/landsat.md),
which is a digital number near 115, some 290 K. Kelvins would be far outside."""

QUALITY = "QA"
"""Name of the mask layer of a scene."""

_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir16", "6": "lwir", "7": "swir22"}
_ETM = {name: role for name, role in _TM.items() if name != "6"} | {"6_VCID_1": "lwir"}
_OLI = {"1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir16", "7": "swir22"}
_OLI |= {"9": "cirrus", "10": "lwir"}
ROLES: Mapping[int, Mapping[str, str]] = MappingProxyType({4: _TM, 5: _TM, 7: _ETM, 8: _OLI, 9: _OLI})
"""Role of each band by spacecraft, where a stream may have one. ETM+'s low gain has the wider range, as TM's."""
_NARROW = {"nir": "nir08"}  # OLI's band 5 is Sentinel-2's B8A, not its wide B08


@dataclass(frozen=True, kw_only=True)
class LandsatOptions:
    """How scenes are corrected and masked."""

    sun: SunMode = "scene"
    thermal: Thermal = "scaled"
    rescaling: Rescaling = "declared"
    quality: Quality = "auto"
    dilated_cloud: bool = True


@dataclass(frozen=True, kw_only=True)
class ReasonsRule(MaskRule):
    """A mask layer that holds the bitfield of reasons already."""

    reasons: tuple[tuple[int, MaskReason], ...] = ()
    text: str = ""

    def apply(self, codes: Array) -> MaskArray:
        """The bits as they are."""
        return codes.astype(np.uint8)

    def as_text(self) -> str:
        """One line for the provenance."""
        return f"{self.band}: {self.text}"


def find(source: Path, stream: Stream, options: LandsatOptions) -> Found:
    """Scenes of a folder, an archive, or a folder of many, for the bands of a stream.

    Raises
    ------
    SourceError
        If there is no scene, a file is missing or unreadable, or the metadata do not suffice.
    """
    scenes = [_scene(files, stream, options) for files in find_scene_files(source)]
    margin = "with" if options.dilated_cloud else "without"
    text = f"quality bands ({options.quality}), {margin} the margin around clouds; fill, dropped, saturated"
    return Found(scenes, masks=(ReasonsRule(band=QUALITY, text=text),), level="L1")


def _scene(files: SceneFiles, stream: Stream, options: LandsatOptions) -> Scene:
    mtl = files.mtl
    chosen = {target: band for band in mtl.bands if (target := _target(mtl, band, stream)) is not None}
    layers: dict[str, Layer] = {}
    corrections: list[dict[str, Any]] = []
    sun = choose_sun(files, options.sun)
    for target in sorted(chosen):
        band = chosen[target]
        raw = raw_layer(files, mtl.bands[band].file)
        if raw is None:
            log.warning("%s: the file of band %s is missing, it is left out", mtl.where, band)
            continue
        correction = _correction(mtl, band, options)
        corrections.append(correction.as_dict())
        layers[target] = CorrectedLayer(raw, correction, sun)
    if not layers:
        raise SourceError(f"{mtl.where}: none of the band files that it names lies beside it; fetch the scene whole")
    raws = tuple(layer.raw for layer in layers.values() if isinstance(layer, CorrectedLayer))
    layers[QUALITY] = quality_layer(files, options, raws)
    return Scene(
        time=mtl.time,
        parts=(Part(layers, mtl.scene_id),),
        platform=f"landsat-{mtl.spacecraft}",
        relative_orbit=mtl.path,
        processing_baseline=f"C{mtl.collection}" if mtl.collection else "pre-collection",
        provenance={"correction": corrections, "sun": sun.origin, "metadata": mtl.where},
    )


def _target(mtl: Mtl, band: str, stream: Stream) -> str | None:
    role = ROLES[mtl.spacecraft].get(band)
    if role is None:
        return None
    if mtl.spacecraft >= 8 and _NARROW.get(role) in stream.roles:
        role = _NARROW[role]
    return stream.roles.get(role)


def _correction(mtl: Mtl, band: str, options: LandsatOptions) -> Correction:
    if options.thermal == "kelvin" or not is_thermal(mtl, band):
        return find_correction(mtl, band, rescaling=options.rescaling)
    radiance = find_correction(mtl, band, kind="radiance", rescaling=options.rescaling)
    low, high = THERMAL_RANGE
    line = Line(radiance.line.mult / (high - low), (radiance.line.add - low) / (high - low))
    return replace(radiance, line=line, origin=f"{radiance.origin}; 0..1 is {low:g}..{high:g} W/(m2 sr um)")


def choose_sun(files: SceneFiles, mode: SunMode) -> Sun:
    """The sun's elevation for a scene: stated, from the solar zenith band if it is there, else computed."""
    mtl = files.mtl
    if mode == "scene":
        if mtl.sun_elevation <= 0:
            raise SourceError(
                f"{mtl.where}: the sun stood {mtl.sun_elevation:g} degrees high; a night scene has no TOA"
            )
        return SceneSun(mtl.sun_elevation)
    zenith = raw_layer(files, mtl.solar_zenith_file) if mtl.solar_zenith_file else None
    return ComputedSun(mtl.time) if zenith is None else ZenithBandSun(zenith)


@dataclass(frozen=True, eq=False)
class RawLayer:
    """Digital numbers of one file of a scene, opened when they are read."""

    files: SceneFiles
    name: str
    grid: Grid
    nodata: float | None
    scale: float = 1.0
    offset: float = 0.0

    @property
    def origin(self) -> str:
        """The file, and the archive that it comes from."""
        return f"{self.files.mtl.where} {self.name}"

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Digital numbers of a window, and which of them are declared as missing."""
        path = self.files.raster(self.name)
        if path is None:
            raise SourceError(f"{self.origin}: has gone; put it back or fetch the scene again")
        try:
            with rasterio.Env():
                values = _kept_open(path, _modified_ns(path)).read(1, window=RasterWindow.from_slices(rows, columns))
        except (RasterioError, OSError) as error:
            cause = str(error).strip().splitlines()[0]
            raise SourceError(f"{self.origin}: pixels cannot be read ({cause}); fetch it again") from error
        return values, None if self.nodata is None else values == self.nodata


def raw_layer(files: SceneFiles, name: str) -> RawLayer | None:
    """A file of a scene with its header read; None if it is not there."""
    path = files.raster(name) if name else None
    if path is None:
        return None
    where = f"{files.mtl.where} {name}"
    try:
        with open_raster(path) as source:
            if source.crs is None:
                raise SourceError(f"{where}: has no CRS; fetch it again")
            grid = Grid(source.crs.to_wkt(), tuple(source.transform)[:6], source.height, source.width)
            if source.dtypes[0] not in ("uint8", "uint16", "int16"):
                raise SourceError(f"{where}: holds {source.dtypes[0]}, not digital numbers; is it Level-1?")
            return RawLayer(files, name, grid, source.nodatavals[0])
    except RasterioError as error:
        cause = str(error).strip().splitlines()[0]
        raise SourceError(f"{where}: not a readable raster ({cause}); fetch it again") from error


@lru_cache(maxsize=16)  # all bands of a scene and its quality bands
def _kept_open(path: str, modified_ns: int) -> DatasetReader:
    log.debug("opening %s as of %d", path, modified_ns)
    return open_raster(path)


def _modified_ns(path: str) -> int:
    """When the file, or the archive that it is a part of, was written."""
    return Path(path.partition(",")[2] if path.startswith("/vsisubfile/") else path).stat().st_mtime_ns


@dataclass(frozen=True, eq=False)
class CorrectedLayer:
    """One band, corrected as it is read."""

    raw: RawLayer
    correction: Correction
    sun: Sun
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return self.raw.grid

    @property
    def origin(self) -> str:
        """The file."""
        return self.raw.origin

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Corrected float32 values of a window, NaN and masked where there are none."""
        dn, missing = self.raw.read(rows, columns)
        values = correct(dn, self.correction, sun_elevation=self.sun.elevation(self.grid, rows, columns))
        if missing is not None:
            values[missing] = np.nan
        return values, ~np.isfinite(values)


@dataclass(frozen=True, eq=False)
class QualityLayer:
    """Reasons not to use a pixel, from the quality bands that there are, else from the digital numbers."""

    pixel: RawLayer | None
    saturation: RawLayer | None
    bands: tuple[RawLayer, ...]
    options: LandsatOptions = field(default_factory=LandsatOptions)
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return (self.pixel or self.bands[0]).grid

    @property
    def origin(self) -> str:
        """The file that says most."""
        return (self.pixel or self.bands[0]).origin

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Bits of `MaskReason` of a window."""
        if self.pixel is None:
            return self._from_numbers(rows, columns), None
        mtl = self.pixel.files.mtl
        quality, _ = self.pixel.read(rows, columns)
        if mtl.collection == 0:
            return before_collections_reasons(quality), None
        if mtl.collection == 1:
            return collection1_reasons(quality, spacecraft=mtl.spacecraft), None
        saturation = None if self.saturation is None else self.saturation.read(rows, columns)[0]
        return collection2_reasons(
            quality, saturation, spacecraft=mtl.spacecraft, dilated_cloud=self.options.dilated_cloud
        ), None

    def _from_numbers(self, rows: slice, columns: slice) -> MaskArray:
        """Before collections there was no quality band: a number at the end of its range is saturated, 0 is fill."""
        reasons = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        for band in self.bands:
            if band.grid != self.grid:
                continue
            dn, _ = band.read(rows, columns)
            reasons[dn == FILL] |= int(MaskReason.NODATA)
            reasons[dn == np.iinfo(dn.dtype).max] |= int(MaskReason.SATURATED)
        return reasons


def quality_layer(files: SceneFiles, options: LandsatOptions, bands: tuple[RawLayer, ...]) -> QualityLayer:
    """The mask layer of a scene.

    Raises
    ------
    SourceError
        If a quality band that the metadata name is missing: without it clouds would count as ground.
    """
    named = [name for name in (files.mtl.quality_file, files.mtl.saturation_file) if name]
    if options.quality == "none" or not named:
        return QualityLayer(None, None, bands, options)
    found = {name: raw_layer(files, name) for name in named}
    for name, layer in found.items():
        if layer is None:
            raise SourceError(f"{files.mtl.where}: its quality band {name} is missing; fetch it, or use --quality none")
    pixel = found.get(files.mtl.quality_file)
    saturation = found.get(files.mtl.saturation_file)
    if pixel is None:
        raise SourceError(f"{files.mtl.where}: names no quality band of pixels; use --quality none")
    if saturation is not None and saturation.grid != pixel.grid:
        raise SourceError(f"{saturation.origin}: lies on another grid than {pixel.name}; fetch the scene again")
    return QualityLayer(pixel, saturation, bands, options)
