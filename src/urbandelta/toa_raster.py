"""`urbandelta toa`: a Landsat scene's digital numbers as a corrected GeoTIFF, block by block.

Memory depends on the block, never on the scene: one block of one band is read, corrected and written at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from urbandelta import __version__
from urbandelta.errors import ConfigError, ProductError, SourceError
from urbandelta.grid import Grid
from urbandelta.landsat_mtl import Mtl
from urbandelta.sources.base import Layer
from urbandelta.sources.geotiff import RasterInfo, read_info
from urbandelta.sources.landsat import LandsatOptions, QualityLayer, RawLayer, choose_sun, quality_layer, raw_layer
from urbandelta.sources.landsat_files import SceneFiles, find_scene_files
from urbandelta.sun_angles import Sun, SunMode
from urbandelta.toa import PANCHROMATIC, Correction, Kind, Rescaling, correct, find_correction, is_thermal, rounding
from urbandelta.types import Array, FloatArray, Progress

TemperatureUnit: TypeAlias = Literal["K", "C", "F"]
StoredType: TypeAlias = Literal["float32", "float64", "uint8", "uint16", "int16"]

BLOCK = 512
_UNITS = {"reflectance": "1", "radiance": "W m-2 sr-1 um-1"}
# A factor that is wrong by more than this is worth a word.
_ROUNDED = 1e-3


@dataclass(frozen=True, kw_only=True)
class ToaOptions:
    """What to make of the digital numbers, and how to store it.

    `scale` and `thermal_scale` are units per stored step: stored = (value - offset) / scale, the offset not for
    temperatures. They need not be given for floats.
    `quality` hides what the scene's quality bands call cloud, shadow, snow, saturated or dropped.
    """

    bands: tuple[str, ...] = ()
    kind: Kind = "toa"
    sun: SunMode = "scene"
    rescaling: Rescaling = "declared"
    temperature: TemperatureUnit = "K"
    dtype: StoredType = "float32"
    scale: float | None = None
    offset: float = 0.0
    thermal_scale: float | None = None
    quality: bool = False
    creation: tuple[tuple[str, str], ...] = ()
    """Options of GDAL's GeoTIFF driver, over those chosen here."""


@dataclass(frozen=True, kw_only=True)
class ToaReport:
    """What was done: bands in the file's order, with their corrections, and what the reader should know."""

    out: Path
    kept: bool
    scene: str
    time: str
    bands: tuple[str, ...]
    corrections: tuple[dict[str, Any], ...]
    sun: str
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    valid_fraction: float | None = None
    clipped: int = 0


@dataclass(frozen=True, eq=False)
class _Job:
    mtl: Mtl
    container: Path
    grid: Grid
    layers: Mapping[str, Layer]
    corrections: Mapping[str, Correction]
    sun: Sun
    quality: QualityLayer | None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def write_toa(
    source: Path,
    out: Path,
    options: ToaOptions,
    *,
    dn: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ToaReport:
    """Correct a scene and write it as a GeoTIFF.

    Parameters
    ----------
    source : path
        MTL file, scene folder or archive.
    out : path
        GeoTIFF to write; one that holds the same already is left alone.
    options : ToaOptions
    dn : path, optional
        A raster with the digital numbers; by default the band files that the metadata name.
    overwrite : bool
        Replace a file that holds something else.

    Raises
    ------
    SourceError
        If a file is missing, unreadable or does not fit the metadata.
    ConfigError
        If bands cannot be told, or cannot be had as asked.
    ProductError
        If `out` holds something else, or cannot be written.
    """
    files = _one_scene(source)
    job = _job(files, options, dn)
    tags = _tags(job, options, dn)
    kept = _holds(out, tags["urbandelta_inputs"], overwrite)
    valid, clipped = (None, 0) if kept else _write(out, job, options, tags, progress)
    return ToaReport(
        out=out,
        kept=kept,
        scene=job.mtl.scene_id,
        time=f"{np.datetime_as_string(job.mtl.time, 'ms')}Z",
        bands=tuple(job.corrections),
        corrections=tuple(correction.as_dict() for correction in job.corrections.values()),
        sun=job.sun.origin,
        missing=job.missing,
        notes=job.notes,
        valid_fraction=valid,
        clipped=clipped,
    )


def _one_scene(source: Path) -> SceneFiles:
    scenes = find_scene_files(source)
    if len(scenes) > 1:
        raise ConfigError(f"{source}: holds {len(scenes)} scenes; name the MTL file of one")
    return scenes[0]


def _job(files: SceneFiles, options: ToaOptions, dn: Path | None) -> _Job:
    mtl = files.mtl
    notes: list[str] = []
    missing: list[str] = []
    for band in options.bands:
        find_correction(mtl, band, kind=options.kind, rescaling=options.rescaling)
    layers: dict[str, Layer]
    if dn is None:
        layers = _band_files(files, options, missing)
    else:
        info = read_info(dn)
        names, note = bands_of_raster(info, mtl, options.bands)
        notes += [note] if note else []
        layers = {name: info.layer(index) for index, name in enumerate(names, start=1)}
        layers = {name: layer for name, layer in layers.items() if _wanted(mtl, name, options.kind)}
    if not layers:
        raise ConfigError(f"{mtl.where}: no band can be had as {options.kind}; choose another kind")
    grid = next(iter(layers.values())).grid
    for layer in layers.values():
        if layer.grid != grid:
            raise ConfigError(
                f"{layer.origin}: lies on {layer.grid}, other bands on {grid}; write them apart with --bands"
            )
    corrections = {name: find_correction(mtl, name, kind=options.kind, rescaling=options.rescaling) for name in layers}
    if options.rescaling == "declared":
        notes += [
            f"band {name}: its declared factor is rounded, {rounding(mtl, name):+.2%} against its declared range; "
            "--rescaling range is more exact"
            for name in layers
            if abs(rounding(mtl, name)) > _ROUNDED
        ]
    quality = _quality(files, layers, grid) if options.quality else None
    sun = choose_sun(files, options.sun)
    if any(correction.quantity == "reflectance" for correction in corrections.values()):
        sun.elevation(grid, slice(0, 1), slice(0, 1))  # an angle band on another grid is refused before anything else
    return _Job(mtl, files.container, grid, layers, corrections, sun, quality, tuple(missing), tuple(notes))


def _band_files(files: SceneFiles, options: ToaOptions, missing: list[str]) -> dict[str, Layer]:
    mtl = files.mtl
    wanted = options.bands or [band for band in mtl.bands if band != PANCHROMATIC and _wanted(mtl, band, options.kind)]
    found: dict[str, Layer] = {}
    for band in wanted:
        layer = raw_layer(files, mtl.bands[band].file)
        if layer is not None:
            found[band] = layer
        elif options.bands:
            name = mtl.bands[band].file
            raise SourceError(
                f"{mtl.where}: the file {name or 'of'} band {band} is not there; fetch it or leave it out"
            )
        else:
            missing.append(band)
    if not found:
        raise SourceError(f"{mtl.where}: none of the band files that it names is there; give the raster with --dn")
    return found


def _wanted(mtl: Mtl, band: str, kind: Kind) -> bool:
    """Whether a kind exists for a band, so that bands without it are left out unless named."""
    return kind in ("toa", "radiance") or is_thermal(mtl, band) == (kind == "temperature")


def bands_of_raster(info: RasterInfo, mtl: Mtl, named: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Which bands of the scene a raster holds, in its order, and a note where that was inferred.

    Named ones count; then the raster's own band descriptions; then its file name, if the metadata name it; then the
    number of its bands, where only one set of the sensor's bands has that many.

    Raises
    ------
    ConfigError
        If it cannot be told.
    """
    if named:
        if len(named) != info.count:
            raise ConfigError(f"{info.path}: has {info.count} bands, --bands names {len(named)}")
        return tuple(named), ""
    described = tuple(_band_name(text, mtl) for text in info.descriptions)
    if all(described) and len(set(described)) == len(described):
        return described, ""
    by_file = [band.name for band in mtl.bands.values() if band.file and band.file.lower() == info.path.name.lower()]
    if info.count == 1 and by_file:
        return (by_file[0],), ""
    for names in _usual_sets(mtl):
        if len(names) == info.count:
            return names, f"{info.path.name}: its {info.count} bands are taken as {', '.join(names)}; else give --bands"
    raise ConfigError(
        f"{info.path}: which of {', '.join(mtl.bands)} are its {info.count} bands? Name them in order with --bands"
    )


def _band_name(text: str, mtl: Mtl) -> str:
    name = text.strip().upper()
    for prefix in ("BAND_", "BAND ", "BAND", "B"):
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    name = name.lstrip("0")
    return name if name in mtl.bands else ""


def _usual_sets(mtl: Mtl) -> list[tuple[str, ...]]:
    """Sets of bands that rasters usually hold, no two of one size: all of one resolution, all, all reflective."""
    whole = tuple(mtl.bands)
    stacked = tuple(band for band in whole if band != PANCHROMATIC)
    reflective = tuple(band for band in stacked if not is_thermal(mtl, band))
    sets = [stacked, whole]
    if mtl.spacecraft < 8:  # OLI has cirrus besides: its seven and eight bands can be several sets
        sets.append(reflective)
    unique: dict[int, tuple[str, ...]] = {}
    for names in sets:
        unique.setdefault(len(names), names)
    return list(unique.values())


def _quality(files: SceneFiles, layers: Mapping[str, Layer], grid: Grid) -> QualityLayer:
    raws = tuple(layer for layer in layers.values() if isinstance(layer, RawLayer))
    quality = quality_layer(files, LandsatOptions(), raws)
    if quality.pixel is None:
        raise SourceError(f"{files.mtl.where}: names no quality band; leave --qa out")
    if quality.grid != grid:
        raise SourceError(f"{quality.origin}: lies on {quality.grid}, the bands on {grid}; leave --qa out")
    return quality


def _tags(job: _Job, options: ToaOptions, dn: Path | None) -> dict[str, str]:
    """What the file says of itself; `urbandelta_inputs` is a digest of all that decides its content."""
    correction = [correction.as_dict() for correction in job.corrections.values()]
    document = {
        "scene": job.mtl.scene_id,
        "time": f"{np.datetime_as_string(job.mtl.time, 'ms')}Z",
        "corrections": json.dumps(correction),
        "sun": job.sun.origin,
        "sun_elevation": repr(job.mtl.sun_elevation),
        "kind": options.kind,
        "quality": str(options.quality),
        "software": f"urbandelta {__version__}",
    }
    decides = [document, job.grid.to_json(), repr(options), [_identity(path) for path in _input_paths(job, dn)]]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    return document | {"urbandelta_inputs": digest}


def _input_paths(job: _Job, dn: Path | None) -> list[Path]:
    paths = {job.container} | ({dn} if dn is not None else set())
    for layer in job.layers.values():
        if isinstance(layer, RawLayer):
            paths.add(job.container.parent / layer.name)
    return sorted(path for path in paths if path.is_file())


def _identity(path: Path) -> list[object]:
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns]


def _holds(out: Path, digest: str, overwrite: bool) -> bool:
    if not out.exists():
        return False
    try:
        with rasterio.open(out) as existing:
            known = existing.tags().get("urbandelta_inputs")
    except RasterioError:
        known = None
    if known == digest:
        return True
    if not overwrite:
        raise ProductError(f"{out} exists and holds something else; choose another name or add --overwrite")
    return False


@dataclass(frozen=True)
class _Storage:
    """How one band's values are stored: `stored = (value - offset) / scale`."""

    scale: float
    offset: float
    unit: str
    limits: tuple[float, float] | None
    nodata: float


def _storage(correction: Correction, options: ToaOptions) -> _Storage:
    thermal = correction.quantity == "temperature"
    scale = options.thermal_scale if thermal else options.scale
    offset = 0.0 if thermal else options.offset
    dtype = np.dtype(options.dtype)
    unit = options.temperature if thermal else _UNITS[correction.quantity]
    if dtype.kind == "f":
        return _Storage(1.0 if scale is None else scale, offset, unit, None, float("nan"))
    if scale is None:
        option = "--thermal-scale" if thermal else "--scale"
        raise ConfigError(f"--dtype {options.dtype} needs {option}, the units per step (0.0001 for reflectance)")
    info = np.iinfo(dtype)
    # The lowest code is kept for pixels without a value: 0 for unsigned types, -32768 for int16.
    return _Storage(scale, offset, unit, (info.min + 1, info.max), info.min)


def _write(
    out: Path, job: _Job, options: ToaOptions, tags: Mapping[str, str], progress: Progress | None
) -> tuple[float, int]:
    if options.dtype not in get_args(StoredType):
        raise ConfigError(f"unknown type {options.dtype!r}; known: {', '.join(get_args(StoredType))}")
    for scale in (options.scale, options.thermal_scale):
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise ConfigError(f"a scale of {scale} is not a positive number of units per step")
    storage = {name: _storage(correction, options) for name, correction in job.corrections.items()}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with (
            rasterio.Env(GDAL_PAM_ENABLED="NO"),
            rasterio.open(temporary, "w", **_profile(job, storage, options)) as to,
        ):
            to.update_tags(**tags)
            for index, (name, store) in enumerate(storage.items(), start=1):
                to.set_band_description(index, f"B{name}")
                to.set_band_unit(index, store.unit)
            to.scales = [store.scale for store in storage.values()]
            to.offsets = [store.offset for store in storage.values()]
            valid, clipped = _fill(to, job, options, storage, progress)
        os.replace(temporary, out)
    except (RasterioError, OSError) as error:
        cause = str(error).strip().splitlines()[0]
        raise ProductError(f"{out}: cannot be written ({cause}); check its folder and the free space") from error
    finally:
        temporary.unlink(missing_ok=True)
    return valid, clipped


def _profile(job: _Job, storage: Mapping[str, _Storage], options: ToaOptions) -> dict[str, Any]:
    grid = job.grid
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": grid.height, "width": grid.width, "count": len(storage), "dtype": options.dtype,
        "crs": grid.crs, "transform": grid.affine, "nodata": next(iter(storage.values())).nodata,
        "compress": "deflate", "predictor": 3 if np.dtype(options.dtype).kind == "f" else 2, "bigtiff": "if_safer",
        "interleave": "band",
    }  # fmt: skip
    if min(grid.height, grid.width) >= BLOCK:
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    return profile | {name.lower(): value for name, value in options.creation}


def _fill(
    target: Any, job: _Job, options: ToaOptions, storage: Mapping[str, _Storage], progress: Progress | None
) -> tuple[float, int]:
    windows = [
        (slice(top, min(top + BLOCK, job.grid.height)), slice(left, min(left + BLOCK, job.grid.width)))
        for top in range(0, job.grid.height, BLOCK)
        for left in range(0, job.grid.width, BLOCK)
    ]
    valid = clipped = 0
    for done, (rows, columns) in enumerate(windows):
        if progress is not None:
            progress(done, len(windows), "")
        elevation = job.sun.elevation(job.grid, rows, columns)
        hidden = None if job.quality is None else job.quality.read(rows, columns)[0] != 0
        for index, (name, store) in enumerate(storage.items(), start=1):
            values = _corrected(job, name, rows, columns, elevation)
            if hidden is not None:
                values[hidden] = np.nan
            valid += int(np.count_nonzero(np.isfinite(values)))
            stored, outside = _stored(_in_unit(values, store.unit), store, options.dtype)
            clipped += outside
            target.write(stored, index, window=RasterWindow.from_slices(rows, columns))
    if progress is not None:
        progress(len(windows), len(windows), "")
    return valid / (job.grid.height * job.grid.width * len(storage)), clipped


def _corrected(job: _Job, name: str, rows: slice, columns: slice, elevation: float | Array) -> FloatArray:
    dn, masked = job.layers[name].read(rows, columns)
    if dn.dtype.kind not in "iu":
        raise SourceError(f"{job.layers[name].origin}: holds {dn.dtype}, not digital numbers; is it corrected already?")
    nodata = job.layers[name].nodata
    values = correct(dn, job.corrections[name], sun_elevation=elevation)
    if nodata is not None:
        values[dn == nodata] = np.nan
    if masked is not None:
        values[masked] = np.nan
    return values


def _in_unit(values: FloatArray, unit: str) -> Array:
    if unit == "C":
        return values.astype(np.float64) - 273.15
    if unit == "F":
        return values.astype(np.float64) * 1.8 - 459.67
    return values


def _stored(values: Array, store: _Storage, dtype: str) -> tuple[Array, int]:
    plain = (store.scale, store.offset) == (1.0, 0.0)
    numbers = values if plain else (values.astype(np.float64) - store.offset) / store.scale
    if store.limits is None:
        return numbers.astype(dtype), 0
    low, high = store.limits
    numbers = np.rint(numbers)
    with np.errstate(invalid="ignore"):
        outside = int(np.count_nonzero((numbers < low) | (numbers > high)))
    return np.where(np.isfinite(numbers), np.clip(numbers, low, high), store.nodata).astype(dtype), outside


def parse_bands(text: str) -> tuple[str, ...]:
    """Band names from `1,2,B3,6_VCID_1`; raises `ConfigError` if one is empty or named twice."""
    names = tuple(part.strip().upper().removeprefix("B") for part in text.split(",")) if text.strip() else ()
    if not all(names) or len(set(names)) != len(names):
        raise ConfigError(f"--bands {text!r}: expected different band names separated by commas, such as 1,2,3")
    return names
