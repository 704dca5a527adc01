"""Training windows of the published scripts: what a folder of TFRecords holds, and one window as a sample.

A file is called `SITE_ROW_COLUMN.tfrecords` and holds windows of one tile. Each has a `Feature` (step, y, x, band), the
streams' bands side by side, and a `Label` (y, x). Steps in which everything is -1 are padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urbandelta.eras import ERAS, Era
from urbandelta.errors import SourceError, TrainingError
from urbandelta.network import NetworkConfig
from urbandelta.network import Path as NetworkPath
from urbandelta.samples import Piece, Sample, turned
from urbandelta.tfexample import decode_example
from urbandelta.tfrecord import Limits, RecordReader, read_records
from urbandelta.types import Array, FloatArray, Progress

FEATURE, LABEL = "Feature", "Label"
PADDING = -1.0
_NAME = re.compile(r"(?:(.+)_)?(\d{1,6})_(\d{1,6})\.tfrecords?")


@dataclass(frozen=True)
class WindowFile:
    """A file of windows: its site and tile, how many it holds, and size and time by which a change is seen."""

    path: Path
    site: str
    row: int
    column: int
    records: int
    size: int
    modified_ns: int


@dataclass(frozen=True)
class WindowFiles:
    """Files of one era with tiles of one size; `sample_bytes` is what the largest first window of a file takes."""

    era: Era
    tile: int
    files: tuple[WindowFile, ...]
    sample_bytes: int

    @property
    def records(self) -> int:
        """Windows in all files."""
        return sum(file.records for file in self.files)

    def chosen(self, files: Sequence[WindowFile]) -> WindowFiles:
        """Only these files."""
        return WindowFiles(self.era, self.tile, tuple(files), self.sample_bytes)


def index_windows(
    folders: Sequence[Path],
    *,
    known: Mapping[str, Any] | None = None,
    threads: int = 1,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> WindowFiles:
    """Find the files of some folders and count their windows, checking every record.

    Parameters
    ----------
    folders : sequence of Path
        Not searched below.
    known : mapping, optional
        `counts_of` an earlier index: files that did not change since are not read again.
    threads : int
        Files read at once.

    Raises
    ------
    SourceError
        If a file is damaged, or holds no windows of a known era.
    TrainingError
        If there is no file, or they differ in era or tile.
    """
    found = [path for folder in folders for path in _files_of(folder)]
    if not found:
        raise TrainingError(
            f"{', '.join(map(str, folders))}: no windows; their files are called SITE_ROW_COLUMN.tfrecords"
        )
    earlier = known or {}

    def count(path: Path) -> int:
        stat = path.stat()
        entry = earlier.get(str(path))
        if entry is not None and list(entry[:2]) == [stat.st_size, stat.st_mtime_ns]:
            return int(entry[2])
        return sum(1 for _ in read_records(path, limits=limits))

    with ThreadPoolExecutor(max(1, threads)) as pool:
        counts = []
        for number, records in enumerate(pool.map(count, found)):
            counts.append(records)
            if progress is not None:
                progress(number + 1, len(found), found[number].name)
    shapes = {path: _shape(path, limits) for path, records in zip(found, counts, strict=True) if records}
    if not shapes:
        raise TrainingError(f"{', '.join(map(str, folders))}: all files are empty")
    kinds: dict[tuple[int, int], Path] = {}
    for path, (_, height, width, bands) in shapes.items():
        if height != width:
            raise TrainingError(f"{path}: tiles of {height} x {width} px are not square")
        kinds.setdefault((height, bands), path)
    if len(kinds) > 1:
        listed = "; ".join(f"{path.name} {tile} px, {bands} bands" for (tile, bands), path in kinds.items())
        raise TrainingError(f"windows of different tiles or eras do not train together: {listed}")
    ((tile, bands),) = kinds
    era = next((row for row in ERAS.values() if row.bands == bands), None)
    if era is None:
        known_bands = ", ".join(f"{row.name} {row.bands}" for row in ERAS.values())
        raise TrainingError(f"{found[0]}: windows of {bands} bands are of no known era ({known_bands})")
    files = tuple(_described(path, records) for path, records in zip(found, counts, strict=True))
    return WindowFiles(era, tile, files, max(4 * int(np.prod(shape)) for shape in shapes.values()))


def counts_of(files: WindowFiles) -> dict[str, list[int]]:
    """Size, time and number of windows of each file, as JSON values."""
    return {str(file.path): [file.size, file.modified_ns, file.records] for file in files.files}


def read_window(content: bytes | bytearray, files: WindowFiles, where: str) -> tuple[FloatArray, FloatArray]:
    """A record as images (step, y, x, band) without padding, and truth (y, x).

    Raises
    ------
    SourceError
        If it is no window of these files' era and tile.
    """
    try:
        record = decode_example(content, (FEATURE, LABEL))
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from error
    images, truth = record[FEATURE], record[LABEL]
    side = (files.tile, files.tile)
    if images.ndim != 4 or images.shape[1:] != (*side, files.era.bands) or images.dtype != np.float32:
        raise SourceError(
            f"{where}: {FEATURE} is {images.dtype} {images.shape}, not float32 (step, {side[0]}, {side[1]}, "
            f"{files.era.bands}) as in the other windows"
        )
    if truth.shape not in (side, (*side, 1)) or truth.dtype.kind != "f":
        raise SourceError(f"{where}: {LABEL} is {truth.dtype} {truth.shape}, not numbers of {side}")
    truth = truth.reshape(side).astype(np.float32)
    if ((truth < 0) | (truth > 1)).any():
        raise SourceError(f"{where}: {LABEL} holds {truth.min():g} to {truth.max():g}, not shares from 0 to 1")
    real = (images != PADDING).any(axis=(1, 2, 3))
    if not real.any():
        raise SourceError(f"{where}: holds padding only")
    return np.ascontiguousarray(images[real]), truth


def sample_piece(
    images: FloatArray,
    truth: FloatArray,
    sample: Sample,
    *,
    era: Era,
    config: NetworkConfig,
    steps: npt.NDArray[np.int64],
) -> Piece:
    """A window at some of its steps as a sample: each path's distinct images once, turned."""
    frames, index = {}, {}
    for path in config.paths:
        seen = images[steps][..., _channels(era, path)]
        changed = (seen[1:].view(np.uint32) != seen[:-1].view(np.uint32)).any(axis=(1, 2, 3))
        index[path] = np.insert(np.cumsum(changed), 0, 0).astype(np.int64)
        firsts = np.insert(np.flatnonzero(changed) + 1, 0, 0)
        frames[path] = turned(np.ascontiguousarray(seen[firsts].transpose(0, 3, 1, 2)), sample.turn)
    return Piece(frames, index, turned(truth, sample.turn).copy(), sample)


def _channels(era: Era, path: NetworkPath) -> slice:
    return slice(0, era.sar_bands) if path == "sar" else slice(era.sar_bands, era.bands)


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "no such folder"
        raise TrainingError(f"{folder}: {kind}; give the folder with the windows")
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _shape(path: Path, limits: Limits | None) -> tuple[int, ...]:
    content = RecordReader(path, limits=limits).read()
    assert content is not None
    try:
        shape: tuple[int, ...] = _decoded_shape(decode_example(content, (FEATURE, LABEL))[FEATURE])
    except SourceError as error:
        hint = "; stacked tiles are no windows, import them with `urbandelta import tfrecord`"
        raise SourceError(f"{path}: record 1: {error}{hint}") from error
    return shape


def _decoded_shape(images: Array) -> tuple[int, ...]:
    if images.ndim != 4 or not images.size:
        raise SourceError(f"{FEATURE} has shape {images.shape}, not (step, y, x, band)")
    return images.shape


def _described(path: Path, records: int) -> WindowFile:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    stat = path.stat()
    site = match[1] or path.parent.name
    return WindowFile(path, site, int(match[2]), int(match[3]), records, stat.st_size, stat.st_mtime_ns)
