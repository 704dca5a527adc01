"""A cube with some of its acquisitions hidden: read like a cube, nothing is written or copied."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.errors import StoreError
from urbandelta.snapshots import Commit
from urbandelta.store import Cube
from urbandelta.stream_index import StreamInfo
from urbandelta.types import FloatArray, MaskArray, TimeArray

__all__ = ["CubeView"]


class CubeView(Cube):
    """A read-only view of a cube that shows only chosen acquisitions of chosen streams.

    Parameters
    ----------
    cube : Cube
    kept : mapping
        Ascending positions among the sorted times of each stream that is shown; other streams are hidden.
    """

    def __init__(self, cube: Cube, kept: Mapping[str, npt.NDArray[np.intp]]) -> None:
        self._cube = cube
        self._kept = {name: np.asarray(positions, np.intp) for name, positions in kept.items() if len(positions)}
        self._mode = "r"
        self.era, self.grid = cube.era, cube.grid
        digest = hashlib.sha256()
        for name in sorted(self._kept):
            digest.update(name.encode() + self._kept[name].astype("<i8").tobytes())
        self._view = digest.hexdigest()[:12]

    @property
    def url(self) -> str:
        """Where the cube behind the view is stored."""
        return self._cube.url

    @property
    def snapshot(self) -> str:
        """The cube's snapshot and what is shown of it, so that results of two views never pass for each other."""
        return f"{self._cube.snapshot}-{self._view}"

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that are shown, in the era's order."""
        return tuple(name for name in self._cube.streams if name in self._kept)

    def times(self, name: str) -> TimeArray:
        """Times of the acquisitions that are shown."""
        if name not in self._kept:
            self.era.stream(name)
            return np.array([], dtype="datetime64[ns]")
        return self._cube.times(name)[self._kept[name]]

    def bands(self, name: str) -> tuple[str, ...]:
        """Bands of a stream, as stored."""
        return self._cube.bands(name)

    def attributes(self, name: str) -> StreamInfo:
        """What the whole stream holds, hidden acquisitions included."""
        return self._cube.attributes(name)

    def acquisitions(self, name: str) -> xr.Dataset:
        """Metadata of the acquisitions that are shown."""
        return self._cube.acquisitions(name).isel(time=self._kept[name])

    def valid_fraction(self, name: str) -> npt.NDArray[np.float32]:
        """Share of valid pixels of each acquisition that is shown."""
        return self._cube.valid_fraction(name)[self._kept[name]]

    def stream(self, name: str) -> xr.Dataset:
        """A stream as a lazy dataset of what is shown."""
        return self._cube.stream(name).isel(time=self._kept[name])

    def read(self, name: str, time: slice, y: slice, x: slice) -> tuple[FloatArray, MaskArray]:
        """Read a block of what is shown; see `Cube.read`."""
        start, stop, step = time.indices(len(self._kept[name]))
        if step != 1:
            raise StoreError(f"cannot read {time}: only runs without a step are read")
        positions = self._kept[name][start:stop]
        if not positions.size:
            return self._cube.read(name, slice(0, 0), y, x)
        # Runs of neighbours are read at once; what is hidden between them is not read at all.
        runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
        if len(runs) == 1:
            return self._cube.read(name, slice(int(positions[0]), int(positions[-1]) + 1), y, x)
        parts = [self._cube.read(name, slice(int(run[0]), int(run[-1]) + 1), y, x) for run in runs]
        # Bands lie apart in memory, as in what a cube gives.
        planes = np.concatenate([values.transpose(0, 3, 1, 2) for values, _ in parts])
        return planes.transpose(0, 2, 3, 1), np.concatenate([mask for _, mask in parts])

    def history(self) -> list[Commit]:
        """Snapshots of the cube behind the view."""
        return self._cube.history()

    def bytes_stored(self) -> int | None:
        """Bytes on disk of the cube behind the view."""
        return self._cube.bytes_stored()

    def compact(self) -> int:
        """Refused: a view writes nothing."""
        raise StoreError(f"{self.url}: this is a view; compact the cube itself")
