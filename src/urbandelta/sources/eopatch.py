"""EOPatch folders: one per date, or one with many dates; current and old layouts.

Arrays are `.npy` or `.npy.gz`. Parts pickled by old versions (`timestamp.pkl`, `bbox.pkl`, `meta_info.pkl`) are never
opened: the time then comes from the folder's name, the bounding box from the caller.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from urbandelta.eras import Stream
from urbandelta.errors import GridError, SourceError
from urbandelta.grid import Grid
from urbandelta.sources.base import Found, Layer, Part, Scene
from urbandelta.sources.calibrate import MaskRule
from urbandelta.sources.pattern import to_utc
from urbandelta.types import Array, BoolArray

DATA_FEATURES: Mapping[str, tuple[str, ...]] = {
    "sar": ("data/L1_GND", "data/Bands"),
    "optical": ("data/L1C_data", "data/Bands"),
}
"""Features that the published pipeline writes, by kind of stream; the first that exists is read."""

MASK_FEATURES = ("mask/dataMask", "mask/Mask")

VALID_MASK = "valid"
"""Name under which the validity feature is handed on, whatever it is called on disk."""

_FOLDER_TIME = re.compile(r"\d{8}T\d{6}")
_MAX_JSON_BYTES = 64 * 2**20
_MAX_IMAGE_BYTES = 16 * 2**30


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Which features are read; empty names take the published pipeline's. `bounds` and `crs` are for old patches."""

    feature: str = ""
    bands: tuple[str, ...] = ()
    valid_mask: str = ""
    masks: tuple[str, ...] = ()
    bounds: tuple[float, float, float, float] | None = None
    crs: str | None = None


@dataclass(frozen=True)
class Feature:
    """An array on disk, shape (time, y, x, channel) or (y, x, channel), with what its header says."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    header_bytes: int
    compressed: bool

    @property
    def channels(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    def window(self, time: int, rows: slice, columns: slice, channel: int) -> Array:
        """Numbers (y, x) of one channel at one time; for features without time, the same at all times."""
        image = self._image(time)
        return np.ascontiguousarray(image[rows, columns, channel])

    def _image(self, time: int) -> Array:
        if self.compressed:
            return _unpacked(self, time if len(self.shape) == 4 else 0)
        array = _mapped(self.path)
        return array if array.ndim == 3 else array[time]


@dataclass(frozen=True, eq=False)
class FeatureLayer:
    """One channel of a feature at one time."""

    feature: Feature
    time: int
    channel: int
    grid: Grid
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.feature.path)

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window; the file masks nothing by itself."""
        return self.feature.window(self.time, rows, columns, self.channel), None


def find(source: Path, stream: Stream, options: PatchOptions) -> Found:
    """Scenes of one patch, or of a folder of patches, with their validity mask.

    Level and backscatter coefficient of the published pipeline's own features are known; those of others are not.

    Raises
    ------
    SourceError
        If there is no patch, or one lacks a feature, its times or its bounding box, or shapes disagree.
    """
    if not source.is_dir():
        kind = "is a file, not an EOPatch folder" if source.exists() else "no such folder"
        raise SourceError(f"{source}: {kind}; a patch has folders such as data/ and mask/ with arrays in them")
    patches = [source] if (source / "data").is_dir() else sorted(p for p in source.iterdir() if (p / "data").is_dir())
    if not patches:
        raise SourceError(f"{source}: neither an EOPatch (no data/) nor a folder of EOPatches")
    return Found(
        [scene for patch in patches for scene in _patch_scenes(patch, stream, options)],
        masks=() if options.valid_mask == "none" else (MaskRule.valid(VALID_MASK),),
        level="" if options.feature else stream.processing_level,
        coefficient="" if options.feature else stream.backscatter_coefficient,
    )


def feature_names(stream: Stream, patch: Path, options: PatchOptions) -> tuple[str, str]:
    """Names of the data and validity features of a patch (the latter empty if there is to be none)."""
    data = options.feature or _first_existing(patch, DATA_FEATURES[stream.kind], "--feature")
    if options.valid_mask == "none":
        return data, ""
    valid = (
        _mask_name(options.valid_mask)
        if options.valid_mask
        else _first_existing(patch, MASK_FEATURES, "--valid-band, or none")
    )
    return data, valid


def read_feature(path: Path) -> Feature:
    """Header of a `.npy` or `.npy.gz` file; objects are refused.

    Raises
    ------
    SourceError
        If it is no numpy array, holds objects, or is shorter than its header promises.
    """
    compressed = path.suffix == ".gz"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            shape, fortran, dtype, start = _npy_header(stream)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceError(f"{path}: not a readable numpy array ({error})") from error
    if dtype.hasobject:
        raise SourceError(f"{path}: holds pickled objects, which are never opened; export plain numbers")
    if fortran and compressed:
        raise SourceError(f"{path}: is in Fortran order; save it again with np.ascontiguousarray")
    if len(shape) not in (3, 4) or 0 in shape:
        raise SourceError(f"{path}: has shape {shape}; expected (time, y, x, channel)")
    if not compressed and path.stat().st_size < start + math.prod(shape) * dtype.itemsize:
        raise SourceError(f"{path}: is shorter than its header promises; the file is cut short, fetch it again")
    return Feature(path, shape, dtype, start, compressed)


def _patch_scenes(patch: Path, stream: Stream, options: PatchOptions) -> list[Scene]:
    data_name, valid_name = feature_names(stream, patch, options)
    data = read_feature(_feature_path(patch, data_name))
    names = options.bands or stream.bands
    if data.channels != len(names):
        raise SourceError(
            f"{data.path}: has {data.channels} channels where {len(names)} were expected ({', '.join(names)}); "
            f"choose another with --feature, or name its channels, as bands of stream {stream.name}, with --bands"
        )
    channels = {name: (data, index) for index, name in enumerate(names) if name != "-"}
    if valid_name:
        channels[VALID_MASK] = (read_feature(_feature_path(patch, valid_name)), 0)
    for mask_name in options.masks:
        channels[mask_name] = (read_feature(_feature_path(patch, _mask_name(mask_name))), 0)
    _check_shapes(data, channels)
    times = _times(patch, data)
    grid = _grid(patch, data.shape[-3:-1], options)
    return [
        Scene(time=time, parts=(Part(_layers(channels, index, grid), _item_id(patch, index, len(times))),))
        for index, time in enumerate(times)
    ]


def _layers(channels: Mapping[str, tuple[Feature, int]], time: int, grid: Grid) -> dict[str, Layer]:
    return {name: FeatureLayer(feature, time, channel, grid) for name, (feature, channel) in channels.items()}


def _item_id(patch: Path, index: int, count: int) -> str:
    return patch.name if count == 1 else f"{patch.name}#{index + 1}"


def _mask_name(name: str) -> str:
    return name if "/" in name else f"mask/{name}"


def _first_existing(patch: Path, names: Sequence[str], option: str) -> str:
    for name in names:
        if _candidates(patch, name):
            return name
    found = sorted(
        f"{path.parent.name}/{path.name.split('.')[0]}"
        for path in patch.glob("*/*")
        if path.parent.name.startswith(("data", "mask"))
    )
    raise SourceError(
        f"{patch}: has no {' or '.join(names)}; it holds {', '.join(found) or 'no arrays'}; name one with {option}"
    )


def _candidates(patch: Path, name: str) -> list[Path]:
    return [path for suffix in (".npy", ".npy.gz") if (path := patch / f"{name}{suffix}").is_file()]


def _feature_path(patch: Path, name: str) -> Path:
    found = _candidates(patch, name)
    if found:
        return found[0]
    if (patch / f"{name}.zarr").exists():
        raise SourceError(f"{patch / name}.zarr: features in Zarr are not read; save the patch as .npy")
    if (patch / f"{name}.pkl").exists() or (patch / f"{name}.pkl.gz").exists():
        raise SourceError(f"{patch / name}: is pickled, which is never opened; save it as .npy")
    raise SourceError(f"{patch}: has no feature {name}")


def _npy_header(stream: BufferedIOBase | gzip.GzipFile | Any) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return shape, fortran, dtype, stream.tell()


@lru_cache(maxsize=1)  # the channels of one image are asked for one after the other
def _unpacked(feature: Feature, time: int) -> Array:
    shape = feature.shape[-3:]
    size = math.prod(shape) * feature.dtype.itemsize
    if size > _MAX_IMAGE_BYTES:
        raise SourceError(f"{feature.path}: one date unpacks to {size:,} bytes, which is no plausible image")
    start = feature.header_bytes + size * time
    try:
        with gzip.open(feature.path) as stream:
            # Seeking unpacks what lies before in small pieces: memory does not grow with the series.
            stream.seek(start)
            content = stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{feature.path}: cannot be unpacked ({error}); fetch it again") from error
    if len(content) != size:
        raise SourceError(f"{feature.path}: ends after {start + len(content)} bytes; the file is cut short")
    return np.frombuffer(content, feature.dtype).reshape(shape)


def _mapped(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); fetch it again") from error
    return array


def _check_shapes(data: Feature, channels: Mapping[str, tuple[Feature, int]]) -> None:
    for feature, _ in channels.values():
        same_time = len(feature.shape) == 3 or len(data.shape) == 3 or feature.shape[0] == data.shape[0]
        if feature.shape[-3:-1] != data.shape[-3:-1] or not same_time:
            raise SourceError(f"{feature.path}: shape {feature.shape} does not fit {data.path.name} {data.shape}")


def _times(patch: Path, data: Feature) -> list[np.datetime64]:
    count = data.shape[0] if len(data.shape) == 4 else 1
    listed = _read_json(patch, ("timestamps", "timestamp"))
    if listed is None:
        return _time_of_folder(patch, count)
    path, entries = listed
    try:
        times = [to_utc(datetime.fromisoformat(entry)) for entry in entries]
    except (TypeError, ValueError) as error:
        raise SourceError(f"{path}: is not a list of ISO 8601 times ({error})") from error
    if len(times) != count:
        raise SourceError(f"{path}: lists {len(times)} times, {data.path.name} has {count}")
    return times


def _time_of_folder(patch: Path, count: int) -> list[np.datetime64]:
    if count != 1 or _FOLDER_TIME.fullmatch(patch.name) is None:
        raise SourceError(
            f"{patch}: has no timestamps.json and {count} dates; pickled timestamps are never opened, so write a "
            "timestamps.json with a list of ISO 8601 times, or name a folder of one date YYYYmmddTHHMMSS"
        )
    try:
        return [to_utc(datetime.strptime(patch.name, "%Y%m%dT%H%M%S"))]
    except ValueError as error:
        raise SourceError(f"{patch}: its name is no time of the form YYYYmmddTHHMMSS") from error


def _grid(patch: Path, shape: tuple[int, ...], options: PatchOptions) -> Grid:
    height, width = shape
    try:
        if options.bounds is not None:
            if options.crs is None:
                raise SourceError("--source-bounds also needs --source-crs")
            return Grid.from_bounds(options.bounds, options.crs, (height, width))
        bounds, crs = _bounding_box(patch)
        return Grid.from_bounds(bounds, options.crs or crs, (height, width))
    except GridError as error:
        raise SourceError(f"{patch}: {error}") from error


def _bounding_box(patch: Path) -> tuple[tuple[float, float, float, float], str]:
    found = _read_json(patch, ("bbox",), suffix=".geojson")
    if found is None:
        raise SourceError(
            f"{patch}: has no bbox.geojson; pickled boxes are never opened, so give --source-bounds and --source-crs"
        )
    path, box = found
    try:
        points = np.asarray(box["coordinates"][0], np.float64)
        (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
        # GeoJSON without `crs` is in longitude and latitude (RFC 7946).
        crs = str(box["crs"]["properties"]["name"]) if "crs" in box else "EPSG:4326"
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: is not a GeoJSON polygon with a CRS name") from error
    return (float(west), float(south), float(east), float(north)), crs


def _read_json(patch: Path, names: Sequence[str], suffix: str = ".json") -> tuple[Path, Any] | None:
    for path in (patch / f"{name}{suffix}{packed}" for name in names for packed in ("", ".gz")):
        if not path.is_file():
            continue
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
                content = stream.read(_MAX_JSON_BYTES + 1)
            if len(content) > _MAX_JSON_BYTES:
                raise SourceError(f"{path}: is larger than any list of dates or bounding box")
            return path, json.loads(content)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise SourceError(f"{path}: is not readable JSON ({error})") from error
    return None
