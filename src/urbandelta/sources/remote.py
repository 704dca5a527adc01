"""Rasters at a distance (COG, GeoTIFF, JPEG 2000) as layers: only the blocks that a window needs are transferred."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass, field

import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from urbandelta.errors import FetchError, GridError, SourceError
from urbandelta.grid import Grid
from urbandelta.sources.item_facts import without_query
from urbandelta.transport import RangeFile, Transport
from urbandelta.types import Array, BoolArray


class _Watched(io.RawIOBase):
    """A file for GDAL, which takes no exceptions: they are kept, and raised once GDAL has come back."""

    def __init__(self, file: RangeFile) -> None:
        super().__init__()
        self._file = file
        self.error: FetchError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except FetchError as error:
            self.error = error
            return b""


@dataclass(frozen=True, eq=False)
class RemoteRaster:
    """One band (counted from 1) of a raster at a distance."""

    origin: str
    band: int
    grid: Grid
    nodata: float | None
    scale: float
    offset: float
    has_mask: bool
    _file: _Watched
    _source: DatasetReader
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, transport: Transport, href: str, *, band: int = 1) -> RemoteRaster:
        """Read the header of a raster.

        Raises
        ------
        FetchError
            If its bytes cannot be had.
        SourceError
            If they are no raster, not georeferenced, or have no such band.
        """
        origin = without_query(href) if "://" in href else href
        file = _Watched(transport.open(href))
        try:
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
                source = _open(file)
        except RasterioError as error:
            if file.error is not None:
                raise file.error from None
            raise SourceError(f"{origin}: not a readable raster ({_line(error)})") from error
        if file.error is not None:
            raise file.error
        if not 1 <= band <= source.count:
            raise SourceError(f"{origin}: has {source.count} bands, not {band}")
        if source.crs is None:
            raise SourceError(f"{origin}: lies in no CRS (radar geometry?); it cannot be placed on a grid")
        try:
            grid = Grid(source.crs.to_wkt(), tuple(source.transform)[:6], source.height, source.width)
        except GridError as error:
            raise SourceError(f"{origin}: {error}") from error
        index = band - 1
        nodata = source.nodatavals[index]
        flags = source.mask_flag_enums[index]
        return cls(
            origin=origin,
            band=band,
            grid=grid,
            nodata=None if nodata is None else float(nodata),
            scale=float(source.scales[index]),
            offset=float(source.offsets[index]),
            has_mask=MaskFlags.per_dataset in flags or MaskFlags.alpha in flags,
            _file=file,
            _source=source,
        )

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window, and which of them the file's own mask hides."""
        window = RasterWindow.from_slices(rows, columns)
        with self._lock:
            try:
                with rasterio.Env():
                    values = self._source.read(self.band, window=window)
                    masked = self._source.read_masks(self.band, window=window) == 0 if self.has_mask else None
            except RasterioError as error:
                if self._file.error is not None:
                    raise self._file.error from None
                raise SourceError(f"{self.origin}: pixels cannot be read ({_line(error)}); it is damaged") from error
            # GDAL may take a short read for the end of a sparse file.
            if self._file.error is not None:
                raise self._file.error
        return values, masked


def _open(file: _Watched) -> DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(file)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
