"""Options that all `urbandelta import` commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from urbandelta.cli.progress import AsJson
from urbandelta.errors import ConfigError
from urbandelta.sources.choices import Conversion, Resampling, ZeroRule

if TYPE_CHECKING:
    from urbandelta.eras import Stream
    from urbandelta.masking import MaskingRules
    from urbandelta.sources.base import Found
    from urbandelta.sources.calibrate import Encoding, MaskRule
    from urbandelta.sources.importing import ImportJob

Bounds: TypeAlias = tuple[float, float, float, float]
OrbitName: TypeAlias = Literal["ascending", "descending", "unknown"]


def option(name: str, text: str, panel: str) -> Any:
    """A typer option shown in a titled panel of the help."""
    return typer.Option(name, help=text, rich_help_panel=panel)


_CUBE, _VALUES, _MASKS, _META = "The cube", "What the numbers mean", "Masks", "What the files do not say"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of all import commands."""

    into: Annotated[str, typer.Option(help="Cube to add to; created if --era and a grid are given.")]
    stream: Annotated[str, typer.Option(help="Stream of the cube, such as s1_asc or optical.")]
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be imported, write nothing.")] = False
    json: AsJson = False
    era: Annotated[str, option("--era", "Era of a new cube: s12 or ers12ls5.", _CUBE)] = ""
    grid: Annotated[
        Literal["native"] | None, option("--grid", "Grid of a new cube: the first acquisition's pixels.", _CUBE)
    ] = None
    grid_from: Annotated[Path | None, option("--grid-from", "Grid of a new cube: that of this raster.", _CUBE)] = None
    bbox: Annotated[Bounds | None, option("--bbox", "Anchored grid over WEST SOUTH EAST NORTH in degrees.", _CUBE)] = (
        None
    )
    aoi: Annotated[Path | None, option("--aoi", "Anchored grid over the polygons of this file.", _CUBE)] = None
    pixel_m: Annotated[float | None, option("--pixel-m", "Pixel of an anchored grid, metres [the era's].", _CUBE)] = (
        None
    )
    crs: Annotated[str | None, option("--crs", "CRS of an anchored grid [UTM zone of the area].", _CUBE)] = None
    resampling: Annotated[
        Resampling, option("--resampling", "Onto the cube's grid; masks are always nearest.", _CUBE)
    ] = "nearest"
    only: Annotated[str, option("--only", "Import these bands of the stream only, BAND,BAND.", _CUBE)] = ""
    merge_within: Annotated[
        float | None, option("--merge-within", "Merge scenes of one pass that are this many seconds apart.", _CUBE)
    ] = None
    scale: Annotated[float | None, option("--scale", "physical = raw * scale + offset [as declared].", _VALUES)] = None
    offset: Annotated[float | None, option("--offset", "See --scale.", _VALUES)] = None
    db: Annotated[bool, option("--db", "Values are decibels after scale and offset; store power.", _VALUES)] = False
    amplitude: Annotated[
        bool, option("--amplitude", "Values are amplitudes after scale and offset; store power.", _VALUES)
    ] = False
    nodata: Annotated[str, option("--nodata", "Stored values that are missing, N,N.", _VALUES)] = ""
    zero: Annotated[
        ZeroRule | None, option("--zero", "What a stored 0 means [radar: nodata, optical: valid].", _VALUES)
    ] = None
    keep_bits: Annotated[
        int | None, option("--keep-bits", "Round floats to this many mantissa bits (12: 0.0005 dB) [none].", _VALUES)
    ] = None
    match: Annotated[
        str, option("--match", "Radar of one band: one gain for all, to the mean that these weights expect.", _VALUES)
    ] = ""
    view_as: Annotated[
        str | None, option("--view-as", "Integer type that the bits really hold, such as uint16.", _VALUES)
    ] = None
    valid_band: Annotated[str, option("--valid-band", "Band that is 1 where pixels are valid.", _MASKS)] = ""
    cloud_mask: Annotated[str, option("--cloud-mask", "Band that is 0 where there is no cloud.", _MASKS)] = ""
    mask_band: Annotated[str, option("--mask-band", "Band of classes, such as SCL.", _MASKS)] = ""
    mask_values: Annotated[
        str, option("--mask-values", "Classes that hide the ground: 3=cloud_shadow,8=cloud,... or scl.", _MASKS)
    ] = ""
    clouds: Annotated[
        Literal["s2cloudless"] | None, option("--clouds", "Optical: find clouds in L1C reflectance [no].", _MASKS)
    ] = None
    border: Annotated[
        int,
        option("--border", "Radar: clean the fringe at the swath's border and this many pixels more [0: no].", _MASKS),
    ] = 0
    level: Annotated[str, option("--level", "Processing level: L1C, L2A, GRD, RTC, ... or unknown.", _META)] = ""
    coefficient: Annotated[str, option("--coefficient", "Radar: gamma0, sigma0, ... or unknown.", _META)] = ""
    orbit: Annotated[OrbitName | None, option("--orbit", "Radar: orbit direction.", _META)] = None
    platform: Annotated[str, option("--platform", "Satellite, such as S1A.", _META)] = ""
    track: Annotated[int, option("--track", "Relative orbit number.", _META)] = -1
    baseline: Annotated[str, option("--baseline", "Processing baseline, such as 05.10.", _META)] = ""
    boa_offset_applied: Annotated[
        bool, option("--boa-offset-applied", "The offset of baseline 04.00 was subtracted already.", _META)
    ] = False
    source_crs: Annotated[str | None, option("--source-crs", "CRS of files that have none.", _META)] = None

    @property
    def valid_rules(self) -> tuple[MaskRule, ...]:
        """Rule of the valid band, if one is named."""
        from urbandelta.sources.calibrate import MaskRule

        return (MaskRule.valid(self.valid_band),) if self.valid_band else ()

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Mask bands besides the valid band."""
        return tuple(name for name in (self.cloud_mask, self.mask_band) if name)

    def job(self, source: Path, find: Callable[[Stream], Found]) -> ImportJob:
        """The import as the library understands it."""
        from urbandelta.sources.base import Declared
        from urbandelta.sources.importing import ImportJob, NewCube

        return ImportJob(
            into=self.into,
            stream=self.stream,
            find=find,
            where=str(source),
            new_cube=NewCube(
                era=self.era,
                native=self.grid == "native",
                grid_from=self.grid_from,
                bbox=self.bbox,
                aoi=self.aoi,
                pixel_m=self.pixel_m,
                crs=self.crs,
            ),
            encoding=self._encoding(),
            zero=self.zero,
            declared=Declared(
                level=self.level,
                coefficient=self.coefficient,
                platform=self.platform,
                relative_orbit=self.track,
                baseline=self.baseline,
                boa_offset_applied=self.boa_offset_applied,
            ),
            orbit=self.orbit or "",
            resampling=self.resampling,
            only=names_in(self.only),
            merge_within=self.merge_within,
            keep_bits=self.keep_bits,
            match=self.match,
            masking=self._masking(),
        )

    def _masking(self) -> MaskingRules | None:
        from urbandelta.masking import MaskingRules

        return MaskingRules.of(clouds=self.clouds, border=self.border)

    def _encoding(self) -> Encoding:
        from urbandelta.sources.calibrate import Encoding, parse_numbers

        if self.db and self.amplitude:
            raise ConfigError("--db and --amplitude exclude each other; values are one or the other")
        conversion: Conversion = "db" if self.db else "amplitude" if self.amplitude else "none"
        return Encoding(
            scale=self.scale,
            offset=self.offset,
            conversion=conversion,
            nodata=parse_numbers(self.nodata, option="--nodata"),
            view_as=self.view_as,
            masks=self._mask_rules(),
        )

    def _mask_rules(self) -> tuple[MaskRule, ...]:
        from urbandelta.sources.calibrate import MaskRule

        if bool(self.mask_band) != bool(self.mask_values):
            raise ConfigError("--mask-band and --mask-values go together")
        rules = []
        if self.cloud_mask:
            rules.append(MaskRule.cloud(self.cloud_mask))
        if self.mask_band:
            rules.append(MaskRule.parse(self.mask_band, self.mask_values))
        return tuple(rules)


def names_in(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def pairs_in(text: str) -> dict[str, str]:
    """`OLD=NEW` pairs separated by commas; raises `ConfigError` for anything else."""
    pairs = {}
    for entry in names_in(text):
        old, equals, new = entry.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"--rename {entry!r}: expected OLD=NEW")
        pairs[old.strip()] = new.strip()
    return pairs
