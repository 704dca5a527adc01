"""Stacked tiles of the published pipeline (TFRecord) as acquisitions of a cube.

Such a folder holds one file a tile, `ROW_COLUMN.tfrecords`, and a `metadata.json`. A file has one record a step: the
step's time and, for each stream, what every pixel shows at it, which is its latest valid value or zeros before there
was one. All streams are repeated at every step. Here each stream is split out, and what did not change is left out: an
acquisition is stored at each step at which a pixel of the stream changed, and it is valid at those pixels. Carrying
them forward again gives the stacked images, bit by bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Era, Stream
from urbandelta.errors import SourceError
from urbandelta.grid import Grid
from urbandelta.sources.base import SceneInfo
from urbandelta.sources.placement import require_room
from urbandelta.tfexample import decode_example
from urbandelta.tfrecord import Limits, RecordReader
from urbandelta.types import Acquisition, Array, BoolArray, FloatArray, MaskReason, Progress

TIME_FEATURE = "Timestamp"
_FEATURES = {("sar", "ascending"): "SAR_ascending", ("sar", "descending"): "SAR_descending", ("optical", ""): "OPT"}
_TILE_NAME = re.compile(r"(?:.*_)?(\d{1,6})_(\d{1,6})\.tfrecords?")
_MOST_METADATA_BYTES = 2**20
_SIZES = ("tile_size_y", "tile_size_x", "deadzone_y", "deadzone_x")
_LATEST_SECONDS = 2**33  # the year 2242


@dataclass(frozen=True)
class TileStack:
    """A folder of stacked tiles: files by row and column, size and dead zone (y, x) of a tile in pixels."""

    folder: Path
    files: Mapping[tuple[int, int], Path]
    tile: tuple[int, int]
    deadzone: tuple[int, int]

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels from one tile to the next: neighbours overlap by two dead zones."""
        return self.tile[0] - 2 * self.deadzone[0], self.tile[1] - 2 * self.deadzone[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width in pixels that the tiles reach from the area's north-west corner."""
        last = (max(row for row, _ in self.files), max(column for _, column in self.files))
        return last[0] * self.stride[0] + self.tile[0], last[1] * self.stride[1] + self.tile[1]

    @property
    def missing(self) -> int:
        """Tiles that the lattice has and the folder does not."""
        rows, columns = (1 + max(place[axis] for place in self.files) for axis in (0, 1))
        return rows * columns - len(self.files)

    def place(self, row: int, column: int) -> tuple[slice, slice]:
        """Pixels of a tile."""
        top, left = row * self.stride[0], column * self.stride[1]
        return slice(top, top + self.tile[0]), slice(left, left + self.tile[1])


def find_stack(folder: Path) -> TileStack:
    """The tiles of a folder; no record is read.

    Raises
    ------
    SourceError
        If there are none, or `metadata.json` is missing or malformed.
    """
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "no such folder"
        raise SourceError(f"{folder}: {kind}; give the folder with the tiles and their metadata.json")
    files: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _TILE_NAME.fullmatch(path.name)
        if match is None:
            continue
        place = int(match[1]), int(match[2])
        if place in files:
            raise SourceError(
                f"{folder}: {files[place].name} and {path.name} are the same tile; keep one area a folder"
            )
        files[place] = path
    if not files:
        raise SourceError(f"{folder}: holds no tile; they are called ROW_COLUMN.tfrecords")
    tile_y, tile_x, dead_y, dead_x = _metadata(folder / "metadata.json")
    return TileStack(folder, files, (tile_y, tile_x), (dead_y, dead_x))


def _metadata(path: Path) -> tuple[int, ...]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MOST_METADATA_BYTES))
        sizes = tuple(document[name] for name in _SIZES)
    except FileNotFoundError:
        raise SourceError(
            f"{path}: no such file; it states the size and the dead zone of the tiles, so copy it with them "
            "(windows for training have none: `urbandelta train --tfrecords` reads those)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{path}: does not state {', '.join(_SIZES)} ({error!r})") from error
    if not all(type(size) is int and 0 <= size <= 100_000 for size in sizes):
        raise SourceError(f"{path}: {', '.join(_SIZES)} are {sizes}, which are no numbers of pixels")
    if min(sizes[0] - 2 * sizes[2], sizes[1] - 2 * sizes[3]) < 1:
        raise SourceError(f"{path}: tiles of {sizes[0]} x {sizes[1]} px with dead zones {sizes[2:]} leave no pixel")
    return sizes


class StackSource:
    """One stream of stacked tiles as acquisitions on the grid of the area; a `sources.base.Source`.

    Parameters
    ----------
    stack : TileStack
    era : Era
    stream : Stream
        One of the era's.
    grid : Grid
        Of the area that was stacked: the first tile lies in its north-west corner.
    keep_steps : bool
        Also give an acquisition without a valid pixel for each step at which no stream changed, so that the steps, and
        with them windows and their counts, stay those of the stack. True for one stream of an import.
    """

    def __init__(
        self, stack: TileStack, *, era: Era, stream: Stream, grid: Grid, keep_steps: bool, limits: Limits | None = None
    ) -> None:
        require_room(stack.extent, grid, where=str(stack.folder))
        self.stack, self.stream, self.grid, self.keep_steps = stack, stream, grid, keep_steps
        self._streams = era.streams if keep_steps else (stream,)
        self._limits = limits

    def describe(self) -> Sequence[SceneInfo]:
        """What there is, in order of time. It takes a pass over the files: only pixels tell what changed."""
        return [
            SceneInfo(
                time=item.time,
                bands=item.bands,
                platform="",
                relative_orbit=-1,
                orbit_state=item.orbit_state,
                item_id=item.item_id,
            )
            for item in self.acquisitions()
        ]

    def acquisitions(self, progress: Progress | None = None) -> Iterator[Acquisition]:
        """The acquisitions, in order of time, one in memory at a time beside the stacked images of the last step."""
        for number, step in enumerate(read_steps(self.stack, self._streams, limits=self._limits)):
            if progress is not None:
                progress(number, 0, f"{self.stream.name} {np.datetime_as_string(step.time, 's')}Z")
            changed = step.changed[self.stream.name]
            still = not any(part.any() for part in step.changed.values())
            if changed.any() or (self.keep_steps and still):
                yield self._acquisition(number, step.time, step.images[self.stream.name], changed)

    def _acquisition(self, number: int, time: np.datetime64, image: FloatArray, changed: BoolArray) -> Acquisition:
        height, width = changed.shape
        values = np.zeros((*self.grid.shape, image.shape[-1]), np.float32)
        np.copyto(values[:height, :width], image, where=changed[..., None])
        mask = np.full(self.grid.shape, MaskReason.NODATA, np.uint8)
        mask[:height, :width][changed] = 0
        return Acquisition(
            time=time,
            values=values,
            mask=mask,
            bands=self.stream.bands,
            item_id=f"{self.stack.folder.name}#{number + 1}",
            orbit_state=self.stream.orbit_state,
            processing_level=self.stream.processing_level,
            backscatter_coefficient=self.stream.backscatter_coefficient,
            provenance={
                "source": str(self.stack.folder),
                "format": "stacked tiles (TFRecord)",
                "feature": feature_of(self.stream),
                "step": number,
                "tile_px": list(self.stack.tile),
                "deadzone_px": list(self.stack.deadzone),
                "time_is": "that of the step; the acquisition itself lies up to one step length before",
                "valid_is": "pixels whose value changed",
            },
        )


def feature_of(stream: Stream) -> str:
    """Name of a stream's feature in stacked tiles."""
    return _FEATURES[stream.kind, stream.orbit_state]


@dataclass(frozen=True, eq=False)
class StackedStep:
    """All tiles at one step: per stream the image (y, x, band) and which pixels (y, x) differ from the step before.

    Arrays are valid until the next step is read. Before the first step all pixels are zero.
    """

    time: np.datetime64
    images: Mapping[str, FloatArray]
    changed: Mapping[str, BoolArray]


def read_steps(stack: TileStack, streams: Sequence[Stream], *, limits: Limits | None = None) -> Iterator[StackedStep]:
    """Read all tiles side by side, step by step.

    Raises
    ------
    SourceError
        If a file is damaged, holds something else, or does not go with the others in times or overlaps.
    """
    readers = {place: RecordReader(path, limits=limits) for place, path in stack.files.items()}
    images = {item.name: np.zeros((*stack.extent, len(item.bands)), np.float32) for item in streams}
    written = np.zeros(stack.extent, np.bool_)
    last: np.datetime64 | None = None
    while (first := _next_record(readers, streams)) is not None:
        path, record = first
        time = _moment(record, path)
        if last is not None and time <= last:
            raise SourceError(f"{path}: its steps do not ascend: {time} follows {last}")
        changed = {item.name: np.zeros(stack.extent, np.bool_) for item in streams}
        written[...] = False
        for place, reader in readers.items():
            if reader.path != path:
                record = _record_of(reader, streams)
            if _moment(record, reader.path) != time:
                raise SourceError(f"{reader.path}: step {reader.number} has another time than that of {path.name}")
            pixels = stack.place(*place)
            for item in streams:
                image = _image_of(record, item, stack.tile, reader.path)
                # Bits, not values: NaN equals itself, and -0 is not 0.
                differs = (image.view(np.uint32) != images[item.name][pixels].view(np.uint32)).any(axis=-1)
                if (differs & written[pixels]).any():
                    raise SourceError(
                        f"{reader.path}: differs from its neighbours where they overlap; the tiles are not of one stack"
                    )
                images[item.name][pixels] = image
                changed[item.name][pixels] |= differs
            written[pixels] = True
        last = time
        yield StackedStep(time, images, changed)
    if last is None:
        raise SourceError(f"{stack.folder}: its files hold no step")


_Record = dict[str, Array]


def _next_record(
    readers: Mapping[tuple[int, int], RecordReader], streams: Sequence[Stream]
) -> tuple[Path, _Record] | None:
    """Path and record of the first tile, or None if all files end here."""
    first, *others = readers.values()
    content = first.read()
    if content is None:
        for other in others:
            if other.skip():
                raise SourceError(f"{first.path}: ends after {first.number} steps, {other.path.name} goes on")
        return None
    return first.path, _decoded(content, streams, first)


def _record_of(reader: RecordReader, streams: Sequence[Stream]) -> _Record:
    content = reader.read()
    if content is None:
        raise SourceError(f"{reader.path}: ends after {reader.number} steps, other tiles go on; fetch it again")
    return _decoded(content, streams, reader)


def _decoded(content: bytearray, streams: Sequence[Stream], reader: RecordReader) -> _Record:
    try:
        return decode_example(content, (TIME_FEATURE, *(feature_of(item) for item in streams)))
    except SourceError as error:
        raise SourceError(f"{reader.path}: record {reader.number}: {error}") from error


def _image_of(record: _Record, stream: Stream, tile: tuple[int, int], path: Path) -> FloatArray:
    image = record[feature_of(stream)]
    wanted = (*tile, len(stream.bands))
    if image.shape != wanted or image.dtype != np.float32:
        raise SourceError(
            f"{path}: {feature_of(stream)} is {image.dtype} {image.shape}; stream {stream.name} and metadata.json ask "
            f"for float32 {wanted}; is it of another era?"
        )
    return np.ascontiguousarray(image)


def _moment(record: _Record, path: Path) -> np.datetime64:
    """Time of a step. Stacks hold seconds since 1970 as float64, which is good to a microsecond."""
    stamp = record[TIME_FEATURE]
    seconds = float(stamp.reshape(-1)[0]) if stamp.size == 1 and stamp.dtype.kind == "f" else np.nan
    if not 0 <= seconds < _LATEST_SECONDS:
        raise SourceError(f"{path}: {TIME_FEATURE} is no number of seconds since 1970")
    whole = int(seconds)
    microseconds = whole * 1_000_000 + round((seconds - whole) * 1_000_000)
    return np.datetime64(microseconds * 1000, "ns")


def steps_kept_by(times: npt.NDArray[np.datetime64], step_seconds: int) -> np.datetime64 | None:
    """A midnight from which the steps of a stack fall into one time step each, or None if there is none.

    Steps are buckets counted from a start that TFRecords do not hold. From another start, two of them can share a
    bucket, and the earlier one would be dropped.
    """
    day, step = np.timedelta64(1, "D"), np.timedelta64(step_seconds, "s")
    for back in range(max(1, -(-step_seconds // 86_400))):
        start = times[0].astype("datetime64[D]").astype("datetime64[ns]") - back * day
        buckets = (times - start) // step
        if all(later > earlier for earlier, later in pairwise(buckets.tolist())):
            return np.datetime64(start)
    return None


def stack_facts(stack: TileStack) -> dict[str, Any]:
    """What a summary of an import says of a stack."""
    return {
        "tiles": len(stack.files),
        "missing_tiles": stack.missing,
        "tile_px": list(stack.tile),
        "deadzone_px": list(stack.deadzone),
        "extent_px": list(stack.extent),
    }
