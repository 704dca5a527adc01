"""Cubes: one area's streams of acquisitions on one grid, in one Icechunk repository.

With its helpers `repository`, `snapshots`, `cube_format`, `stream_index`, `chunks` and `scores` this is the only part
that imports Icechunk and Zarr. Each acquisition is one commit; a cube object reads the snapshot it was opened at, so
writers never disturb readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.abc.store import Store

from urbandelta.chunks import PixelChunks
from urbandelta.cube_format import (
    Frame,
    Layout,
    append_frame,
    check_layout,
    create_stream,
    prepare,
)
from urbandelta.eras import Era, era_named
from urbandelta.errors import ConfigError, StoreError
from urbandelta.grid import Grid
from urbandelta.repository import Repository, create_repository, icechunk_errors, open_repository, zarr_group
from urbandelta.scores import ScoreWriter, create_scores, open_scores, resume_scores
from urbandelta.snapshots import Commit
from urbandelta.stream_index import StreamIndex, StreamInfo, array_of
from urbandelta.types import Acquisition, Array, FloatArray, MaskArray, Progress, TimeArray

__all__ = [
    "AppendReport",
    "Commit",
    "Cube",
    "ScoreWriter",
    "StreamInfo",
    "create_cube",
    "create_scores",
    "open_cube",
    "open_scores",
    "resume_scores",
]


_BULK = 16


@dataclass(frozen=True)
class AppendReport:
    """What an append did: acquisitions added, skipped because they were there already, and the newest snapshot."""

    added: int
    skipped: int
    snapshot: str


class Cube:
    """A cube opened at one snapshot; made by `create_cube` and `open_cube`.

    Reading is safe from several threads. Times are sorted in all that is read, whatever the order of arrival.
    """

    def __init__(self, repository: Repository, *, snapshot: str, mode: Literal["r", "a"]) -> None:
        self._repository = repository
        self._mode = mode
        attributes = dict(zarr_group(repository, snapshot).attrs)
        try:
            self.era: Era = era_named(str(attributes["era"]))
            self.grid: Grid = Grid.from_json(str(attributes["grid"]))
        except KeyError as error:
            raise StoreError(f"{self.url}: its root lacks {error}; the cube is damaged, import it again") from None
        except ConfigError as error:
            raise StoreError(f"{self.url}: {error}; upgrade urbandelta or import the data again") from error
        self._see(snapshot)

    @property
    def url(self) -> str:
        """Where the cube is stored."""
        return self._repository.url

    @property
    def repository(self) -> Repository:
        """The repository, for what lies beside the cube on other branches, such as labels."""
        return self._repository

    @property
    def snapshot(self) -> str:
        """Id of the snapshot that this object reads."""
        return self._snapshot

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that hold something, in the era's order."""
        return tuple(name for name in self.era.stream_names if name in self._root)

    def times(self, name: str) -> TimeArray:
        """Acquisition times of a stream, sorted, without reading pixels; empty if it holds nothing."""
        if name not in self.streams:
            self.era.stream(name)
            return np.array([], dtype="datetime64[ns]")
        return self._index(name).times

    def bands(self, name: str) -> tuple[str, ...]:
        """Bands that a stream holds, in stored order."""
        return self._index(name).layout.bands

    def attributes(self, name: str) -> StreamInfo:
        """Encoding, units, and the distinct platforms, levels and coefficients of a stream, as stored."""
        return self._index(name).info(self.era.stream(name))

    def acquisitions(self, name: str) -> xr.Dataset:
        """Metadata of a stream's acquisitions, sorted by time, without pixels."""
        index = self._index(name)
        columns = {key: ("time", column[index.order]) for key, column in index.columns.items() if key != "time"}
        return xr.Dataset(columns, coords={"time": self.times(name)})

    def valid_fraction(self, name: str) -> npt.NDArray[np.float32]:
        """Share of valid pixels of each acquisition, in order of time."""
        index = self._index(name)
        return index.columns["valid_fraction"][index.order].astype(np.float32)

    def stream(self, name: str) -> xr.Dataset:
        """A stream as a lazy dataset, decoded and sorted by time.

        Variables are `values` (time, y, x, band), physical and not masked, and `mask` (time, y, x), 0 where valid.
        """
        self._index(name)
        data: xr.Dataset = xr.open_zarr(
            self._repository.reader(self._snapshot), group=name, consolidated=False, chunks=None
        )
        return data.sortby("time")

    def read(self, name: str, time: slice, y: slice, x: slice) -> tuple[FloatArray, MaskArray]:
        """Read a block of a stream.

        Parameters
        ----------
        name : str
        time : slice
            Positions among the stream's sorted times; `y`, `x`: pixels. Steps other than 1 are refused.

        Returns
        -------
        values : ndarray of float32, shape (time, y, x, band)
            Physical values, also where the mask says not to use them; bands lie apart in memory (channels first).
        mask : ndarray of uint8, shape (time, y, x)
            Bitfield of `MaskReason`; 0 is valid.
        """
        layout = self._index(name).layout
        return self._read(name, time, y, x, np.dtype(np.float32), lambda raw, out: _to_physical(raw, layout, out))

    def read_raw(self, name: str, time: slice, y: slice, x: slice) -> tuple[Array, MaskArray]:
        """As `read`, with the values as they are stored: often half the bytes. `physical` decodes them."""
        return self._read(
            name, time, y, x, np.dtype(self._index(name).layout.dtype), lambda raw, out: np.copyto(out, raw)
        )

    def read_mask(self, name: str, time: slice, y: slice, x: slice) -> MaskArray:
        """The mask that `read` gives, without the values: a small part of the bytes."""
        order = self._index(name).order
        stored = order[_unit(time, len(order))]
        rows, columns = _unit(y, self.grid.height), _unit(x, self.grid.width)
        mask = np.empty((len(stored), rows.stop - rows.start, columns.stop - columns.start), dtype=np.uint8)
        with icechunk_errors(self.url):
            self._read_mask_into(name, stored, rows, columns, mask)
        return mask

    def physical(self, name: str, raw: Array) -> FloatArray:
        """Raw values of a stream in physical units: the bits that `read` gives."""
        out = np.empty(raw.shape, np.float32)
        _to_physical(raw, self._index(name).layout, out)
        return out

    def _read(
        self, name: str, time: slice, y: slice, x: slice, dtype: np.dtype[Any], put: Callable[[Array, Array], None]
    ) -> tuple[Array, MaskArray]:
        layout, order = self._index(name).layout, self._index(name).order
        stored = order[_unit(time, len(order))]
        rows, columns = _unit(y, self.grid.height), _unit(x, self.grid.width)
        shape = (len(stored), rows.stop - rows.start, columns.stop - columns.start)
        planes = np.empty((shape[0], len(layout.bands), *shape[1:]), dtype=dtype)
        values, mask = planes.transpose(0, 2, 3, 1), np.empty(shape, dtype=np.uint8)

        def place_values(n: int, y: slice, x: slice, raw: Array) -> None:
            put(raw, values[n, y, x])

        with icechunk_errors(self.url):
            self._pixels(name, "values").read(stored, rows, columns, place_values)
            self._read_mask_into(name, stored, rows, columns, mask)
        return values, mask

    def _read_mask_into(self, name: str, stored: Array, rows: slice, columns: slice, mask: MaskArray) -> None:
        def place(n: int, y: slice, x: slice, raw: Array) -> None:
            mask[n, y, x] = raw

        self._pixels(name, "mask").read(stored, rows, columns, place)

    def append(
        self, name: str, acquisitions: Iterable[Acquisition], *, progress: Progress | None = None
    ) -> AppendReport:
        """Add acquisitions to a stream in any order, each as one commit.

        An acquisition that is stored already (same time, same content) is skipped. After an error or a kill, what was
        committed stays, and appending the same acquisitions again completes the stream. After 16 or more, a local cube
        is compacted.

        Raises
        ------
        DuplicateAcquisition
            If the stream holds another acquisition with the same time.
        ShapeError, GridError, StoreError
            If an acquisition does not fit the stream; nothing of it is written.
        """
        if self._mode != "a":
            raise StoreError(f"{self.url}: was opened for reading; open it with mode='a' to append")
        stream = self.era.stream(name)
        total = len(acquisitions) if isinstance(acquisitions, Sized) else 0
        added = skipped = 0
        self._see(self._repository.tip())
        for acquisition in acquisitions:
            frame = prepare(acquisition, stream=stream, grid=self.grid)
            if self._append_one(name, frame, number=added + 1):
                added += 1
            else:
                skipped += 1
            if progress is not None:
                progress(added + skipped, total, f"{name} {frame.moment}")
        # Skipped ones count: whoever repeats a killed import also repeats the compaction that it may not have reached.
        if added + skipped >= _BULK and self._repository.path is not None:
            self.compact()
        return AppendReport(added, skipped, self.snapshot)

    def compact(self) -> int:
        """Drop the snapshots between those at the ends of appends, and the files that nothing else needs.

        The snapshot at the end of each append stays for ever, as results name the one that they were made from. A
        reader in another process stays undisturbed, unless it was opened in the midst of an append. Being killed does
        no harm; call it again.

        Returns
        -------
        int
            Bytes deleted. On object stores, where other writers are not locked out, only what is older than a day.
        """
        if self._mode != "a":
            raise StoreError(f"{self.url}: was opened for reading; open it with mode='a' to compact it")
        return self._repository.compact()

    def history(self) -> list[Commit]:
        """Snapshots up to the one that this object reads, newest first, each with its time and message.

        Where an append was compacted, its last snapshot stands for all of it; metadata `appended` is their number.
        """
        return self._repository.history(self.snapshot)

    def bytes_stored(self) -> int | None:
        """Bytes on disk of a local cube with all its snapshots; None on an object store."""
        return self._repository.bytes_stored()

    def _append_one(self, name: str, frame: Frame, *, number: int) -> bool:
        def write(store: Store, snapshot: str) -> Mapping[str, Any] | None:
            if snapshot != self._snapshot:  # another process committed since
                self._see(snapshot)
            if name in self._indices or name in self._root:
                index = self._index(name)
                check_layout(frame, index.layout, stream=name)
                index.check_coefficient(frame, name)
                if index.holds(frame, name):
                    return None
            else:
                create_stream(store, stream=self.era.stream(name), grid=self.grid, layout=frame.layout)
                index = StreamIndex.empty(frame.layout)
            append_frame(store, frame, stream=name, columns=index.columns)
            return {"item_id": frame.record["item_id"], "appended": number}

        message = f"{name} {frame.moment} {frame.record['item_id']}".strip()
        snapshot = self._repository.commit(message if number == 1 else f"{message} ({number} appended)", write)
        if snapshot is None:
            return False
        known = self._indices
        self._see(snapshot)
        # What was just written is known: reading the coordinates back would make each commit dearer than the last.
        self._indices.update({key: index.with_frame(frame) if key == name else index for key, index in known.items()})
        return True

    def _see(self, snapshot: str) -> None:
        self._snapshot = snapshot
        self._opened: zarr.Group | None = None
        self._indices: dict[str, StreamIndex] = {}
        self._chunks: dict[tuple[str, str], PixelChunks] = {}

    @property
    def _root(self) -> zarr.Group:
        # Opened when first needed: an append of many acquisitions moves on before it reads anything.
        if self._opened is None:
            self._opened = zarr_group(self._repository, self._snapshot)
        return self._opened

    def _group(self, name: str) -> zarr.Group:
        self.era.stream(name)
        if name not in self._root:
            held = ", ".join(self.streams) or "nothing yet"
            raise StoreError(f"{self.url}: holds no acquisition of stream {name} ({held}); import some first")
        return cast(zarr.Group, self._root[name])

    def _pixels(self, name: str, array: str) -> PixelChunks:
        if (name, array) not in self._chunks:
            self._chunks[name, array] = PixelChunks(array_of(self._group(name), array))
        return self._chunks[name, array]

    def _index(self, name: str) -> StreamIndex:
        if name not in self._indices:
            with icechunk_errors(self.url):
                self._indices[name] = StreamIndex.load(self._group(name))
        return self._indices[name]


def create_cube(url: str, *, era: str, grid: Grid, overwrite: bool = False) -> Cube:
    """Create an empty cube and open it for appending.

    Parameters
    ----------
    url : str
        A path, or `file://`, `s3://`, `gs://`, `az://`; credentials come from the environment.
    era : str
        Name of a row of `ERAS`.
    grid : Grid
    overwrite : bool
        Replace a cube that is there already; anything else that is there is never touched.

    Raises
    ------
    StoreError
        If something is stored there and `overwrite` is false, or it is not a store of urbandelta.
    ConfigError
        If the era is unknown.
    """
    attributes = {"era": era_named(era).name, "grid": grid.to_json(), "created_by": f"urbandelta {_version()}"}
    repository = create_repository(str(url), attributes, kind="cube", overwrite=overwrite)
    return Cube(repository, snapshot=repository.tip(), mode="a")


def open_cube(url: str, mode: Literal["r", "a"] = "r", *, snapshot: str | None = None) -> Cube:
    """Open a cube at its newest snapshot, or at an older one for reading.

    Raises
    ------
    StoreError
        If there is no cube, it is of a newer format, or the snapshot is unknown.
    """
    if mode not in ("r", "a"):
        raise ConfigError(f"mode {mode!r} is unknown; a cube is opened with 'r' (read) or 'a' (append)")
    if snapshot is not None and mode == "a":
        raise StoreError(f"{url}: acquisitions are added to the newest snapshot only; leave snapshot out to append")
    repository = open_repository(str(url), kind="cube")
    seen = repository.tip() if snapshot is None else repository.require(snapshot)
    return Cube(repository, snapshot=seen, mode=mode)


def _version() -> str:
    try:
        return version("urbandelta")
    except PackageNotFoundError:
        return "unknown"


def _unit(part: slice, size: int) -> slice:
    start, stop, step = part.indices(size)
    if step != 1:
        raise StoreError(f"cannot read {part}: only runs without a step are read")
    return slice(start, max(stop, start))


def _to_physical(raw: Array, layout: Layout, out: FloatArray) -> None:
    """Decode raw values into `out`; with scale 1 and offset 0 native float32 stays as it is, bit by bit."""
    if layout.scale == 1.0:
        out[...] = raw
    else:
        np.multiply(raw, np.float32(layout.scale), out=out, casting="unsafe")
    if layout.offset != 0.0:
        out += np.float32(layout.offset)
