"""Rasters at a distance (COG, GeoTIFF, JPEG 2000) as layers: only the blocks that a window needs are transferred.

GDAL decodes, but never waits: the blocks of a window are known from the header and are fetched at the same time before
it is asked for pixels. Bytes that it asks for beside them come through the same transport. GDAL takes a read that fails
for the end of a file or for a hole in it, so a failure is noted where it happens and raised when GDAL has come back,
whatever GDAL made of it.
"""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from urbandelta.errors import FetchError, GridError, SourceError
from urbandelta.grid import Grid
from urbandelta.range_file import RangeFile
from urbandelta.sources.geotiff import SUFFIXES, open_raster
from urbandelta.sources.jpeg2000 import Span, TileMap, read_tile_map
from urbandelta.transport import Transport
from urbandelta.types import Array, BoolArray

# Nothing beside the file itself is looked for, since each look is a request. And GDAL must not decode in threads of its
# own: those of JPEG 2000 (there by default) open the file again, cannot (rasterio 1.4 knows the opener only in the
# context that opened), and leave the pixels as they were in memory, without any error.
_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_NUM_THREADS": "1"}
_FETCHED_AT_ONCE = 32 * 2**20
_LARGEST_BLOCK = 512 * 2**20


@dataclass(frozen=True, eq=False)
class RemoteRaster:
    """One band (counted from 1) of a raster at a distance; for several threads."""

    origin: str
    band: int
    grid: Grid
    nodata: float | None
    scale: float
    offset: float
    has_mask: bool
    _pixels: _Pixels = field(repr=False)

    @classmethod
    def open(cls, transport: Transport, href: str, *, band: int = 1) -> RemoteRaster:
        """Read the header of a raster.

        Raises
        ------
        FetchError
            If its bytes cannot be had.
        SourceError
            If they are no raster, not georeferenced, rotated, have no such band, or unpack to blocks without measure.
        """
        pixels = _Pixels(transport.open(href), href, band)
        source, origin = pixels.source, pixels.origin
        try:
            if source.crs is None:
                raise SourceError(f"{origin}: lies in no CRS (radar geometry?); it cannot be placed on a grid")
            try:
                grid = Grid(source.crs.to_wkt(), tuple(source.transform)[:6], source.height, source.width)
            except GridError as error:
                raise SourceError(f"{origin}: {error}") from error
            index = band - 1
            nodata = source.nodatavals[index]
            return cls(
                origin=origin,
                band=band,
                grid=grid,
                nodata=None if nodata is None else float(nodata),
                scale=float(source.scales[index]),
                offset=float(source.offsets[index]),
                has_mask=any(
                    MaskFlags.per_dataset in flags or MaskFlags.alpha in flags for flags in source.mask_flag_enums
                ),
                _pixels=pixels,
            )
        except SourceError:
            pixels.close()
            raise

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window, and which of them the file's own mask or alpha band hides.

        Raises
        ------
        FetchError
            If any byte of it cannot be had.
        SourceError
            If the bytes are not what a raster is made of.
        """
        return self._pixels.read(rows, columns, masked=self.has_mask)


class _View(io.RawIOBase):
    """A file for GDAL, which takes no exceptions: the first is kept in `failures`, and all reads after it fail."""

    def __init__(self, file: RangeFile, failures: list[Exception]) -> None:
        super().__init__()
        self._file, self._failures = file, failures
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        if self._failures:
            return b""
        end = self._file.size if size is None or size < 0 else self._position + size
        try:
            data = self._file.read_range(self._position, end)
        except Exception as error:
            self._failures.append(error)
            return b""
        self._position += len(data)
        return data


class _Pixels:
    """An open file and GDAL's view of it, which is made anew after a failure."""

    def __init__(self, file: RangeFile, href: str, band: int) -> None:
        self._file, self._band = file, band
        self._name = _plain_name(href)
        self._failures: list[Exception] = []
        self._lock = threading.Lock()
        self._tiles: TileMap | None = None
        # rasterio keeps its books about openers in context variables: opening, reading and closing must see the same
        # ones, whichever threads they happen in.
        self._context = copy_context()
        self.source = self._open()
        self._tiff = self.source.driver == "GTiff"
        if self.source.driver.startswith("JP2"):
            self._tiles = read_tile_map(file.read_range, file.size)

    @property
    def origin(self) -> str:
        return self._file.origin

    def close(self) -> None:
        self._let_go()
        self._file.close()

    def _let_go(self) -> None:
        self._context.run(self.source.close)

    def read(self, rows: slice, columns: slice, *, masked: bool) -> tuple[Array, BoolArray | None]:
        with self._lock:
            if self.source.closed:
                self.source = self._open()
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            values = np.empty(shape, self.source.dtypes[self._band - 1])
            hidden = np.empty(shape, np.bool_) if masked else None
            for piece_rows, piece_columns, spans in self._pieces(rows, columns):
                self._file.prefetch(spans)
                window = RasterWindow.from_slices(piece_rows, piece_columns)
                inside = (
                    slice(piece_rows.start - rows.start, piece_rows.stop - rows.start),
                    slice(piece_columns.start - columns.start, piece_columns.stop - columns.start),
                )
                values[inside] = self._decoded(self.source.read, window)
                if hidden is not None:
                    hidden[inside] = self._decoded(self.source.read_masks, window) == 0
            self._file.prefetch(())
        return values, hidden

    def _decoded(self, read: Callable[..., Any], window: RasterWindow) -> Any:
        try:
            with rasterio.Env(**_OPTIONS):
                data = self._context.run(read, self._band, window=window)
        except (RasterioError, OSError) as error:
            failure = self._failure()
            # What GDAL has noted of a broken file is not to be trusted.
            self._let_go()
            if failure is not None:
                raise failure from None
            raise SourceError(
                f"{self.origin}: pixels cannot be read ({_first_line(error)}); the file is cut short or damaged"
            ) from error
        failure = self._failure()
        if failure is not None:
            self._let_go()
            raise failure
        return data

    def _open(self) -> DatasetReader:
        failures: list[Exception] = []
        self._failures = failures
        # Without `self`, which would make a circle, so that files were closed some time or other.
        file, name = self._file, self._name

        def opener(path: str, mode: str = "rb", **_: Any) -> _View:
            if PurePosixPath(path).name != name or "w" in mode or "+" in mode:
                raise FileNotFoundError(path)
            return _View(file, failures)

        try:
            with rasterio.Env(**_OPTIONS):
                source = self._context.run(open_raster, self._name, opener=opener)
        except (RasterioError, OSError) as error:
            failure = self._failure()
            if failure is not None:
                raise failure from None
            raise SourceError(
                f"{self.origin}: not a readable raster ({_first_line(error)}); is the address right?"
            ) from error
        failure = self._failure()
        problem = failure or self._problem(source)
        if problem is not None:
            self._context.run(source.close)
            raise problem
        # Python that ends would take the file's methods away before GDAL has closed it, which then crashes.
        weakref.finalize(self, self._context.run, source.close)
        return source

    def _problem(self, source: DatasetReader) -> SourceError | None:
        if not 1 <= self._band <= source.count:
            return SourceError(f"{self.origin}: has {source.count} bands, so none with number {self._band}")
        height, width = source.block_shapes[self._band - 1]
        together = source.count if source.profile.get("interleave") == "pixel" else 1
        size = height * width * together * np.dtype(source.dtypes[self._band - 1]).itemsize
        if size > _LARGEST_BLOCK:
            return SourceError(
                f"{self.origin}: unpacks {size} bytes at once, more than {_LARGEST_BLOCK}; convert it to a COG"
            )
        return None

    def _failure(self) -> Exception | None:
        if not self._failures:
            return None
        failure = self._failures[0]
        return failure if isinstance(failure, FetchError) else FetchError(f"{self.origin}: {type(failure).__name__}")

    def _pieces(self, rows: slice, columns: slice) -> list[tuple[slice, slice, list[Span]]]:
        """Windows that make up a window, each of few enough bytes to be held, and where those lie."""
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return []
        spans = self._spans(rows, columns)
        if sum(end - start for start, end in spans) <= _FETCHED_AT_ONCE:
            return [(rows, columns, spans)]
        height, width = self.source.block_shapes[self._band - 1]
        middle = _middle(rows, height)
        if middle is not None:
            halves = (slice(rows.start, middle), slice(middle, rows.stop))
            return [piece for half in halves for piece in self._pieces(half, columns)]
        middle = _middle(columns, width)
        if middle is not None:
            halves = (slice(columns.start, middle), slice(middle, columns.stop))
            return [piece for half in halves for piece in self._pieces(rows, half)]
        return [(rows, columns, spans)]

    def _spans(self, rows: slice, columns: slice) -> list[Span]:
        if self._tiles is not None:
            return self._tiles.spans(rows, columns)
        if not self._tiff:
            return []
        height, width = self.source.block_shapes[self._band - 1]
        spans = []
        for y in range(rows.start // height, (rows.stop - 1) // height + 1):
            for x in range(columns.start // width, (columns.stop - 1) // width + 1):
                offset = self.source.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=self._band)
                size = self.source.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=self._band)
                if offset and size:  # else a hole, which the file declares to be empty
                    spans.append((int(offset), int(offset) + int(size)))
        return spans


def _middle(span: slice, block: int) -> int | None:
    """Edge between blocks near the middle of a range of pixels; None if it lies in one block."""
    first, last = span.start // block, (span.stop - 1) // block
    return None if first == last else (first + last + 1) // 2 * block


def _plain_name(href: str) -> str:
    """A name that tells GDAL the format and says nothing else."""
    suffix = PurePosixPath(urlsplit(href).path).suffix.lower()
    return f"raster{suffix if suffix in SUFFIXES else ''}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
