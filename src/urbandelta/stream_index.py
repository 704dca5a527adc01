"""What a stream of a cube holds, known without reading a pixel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.api.asynchronous import open_group
from zarr.core.sync import sync

from urbandelta.cube_format import NUMBERS, PER_TIME, Frame, Layout
from urbandelta.eras import Stream, StreamKind
from urbandelta.errors import DuplicateAcquisition, StoreError
from urbandelta.types import Array, TimeArray


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """What a stream holds, as stored: physical value = raw * scale + offset.

    The plural fields list the distinct values of all its acquisitions, sorted.
    """

    name: str
    kind: StreamKind
    bands: tuple[str, ...]
    dtype: str
    scale: float
    offset: float
    units: str
    count: int
    first: np.datetime64
    last: np.datetime64
    platforms: tuple[str, ...]
    orbit_states: tuple[str, ...]
    relative_orbits: tuple[int, ...]
    processing_baselines: tuple[str, ...]
    processing_levels: tuple[str, ...]
    backscatter_coefficients: tuple[str, ...]
    boa_offset_applied: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class StreamIndex:
    """A stream's per-acquisition coordinates in stored order, and the order that sorts them by time."""

    layout: Layout
    columns: Mapping[str, Array]
    order: npt.NDArray[np.intp]

    @classmethod
    def empty(cls, layout: Layout) -> StreamIndex:
        """Index of a stream that is about to be created."""
        columns = {name: np.array([], dtype=NUMBERS.get(name, object)) for name in PER_TIME}
        return cls(layout, columns, np.array([], dtype=np.intp))

    @classmethod
    def load(cls, group: zarr.Group) -> StreamIndex:
        """Index of a stored stream."""
        attributes, dtype, columns = sync(_load(group.store, group.path))
        bands = columns.pop("band")
        layout = Layout(
            bands=tuple(str(band) for band in bands),
            dtype=dtype,
            scale=float(attributes.get("scale_factor", 1.0)),
            offset=float(attributes.get("add_offset", 0.0)),
        )
        return cls(layout, columns, np.argsort(columns["time"], kind="stable"))

    def holds(self, frame: Frame, stream: str) -> bool:
        """Whether this very acquisition is stored; raises `DuplicateAcquisition` for another one of the same time."""
        at = np.flatnonzero(self.columns["time"] == frame.time)
        if at.size == 0:
            return False
        if self.columns["digest"][at[0]] == frame.record["digest"]:
            return True
        raise DuplicateAcquisition(
            f"{frame.label} at {frame.moment}: stream {stream} already holds "
            f"{self.columns['item_id'][at[0]] or 'another acquisition'} of this time with other content; "
            "drop one of them, or give them distinct times"
        )

    def distinct(self, name: str) -> tuple[Any, ...]:
        """The distinct values of a coordinate, sorted."""
        return tuple(sorted({value.item() if hasattr(value, "item") else str(value) for value in self.columns[name]}))

    def with_frame(self, frame: Frame) -> StreamIndex:
        """An index with one more acquisition at its end."""
        columns = {
            name: np.append(column, np.array([frame.record[name]], dtype=column.dtype))
            for name, column in self.columns.items()
        }
        return StreamIndex(self.layout, columns, np.argsort(columns["time"], kind="stable"))

    @property
    def times(self) -> TimeArray:
        """Acquisition times, sorted."""
        return self.columns["time"][self.order].astype("datetime64[ns]")

    def info(self, stream: Stream) -> StreamInfo:
        """Summary of what the stream holds."""
        times = self.times
        return StreamInfo(
            name=stream.name,
            kind=stream.kind,
            bands=self.layout.bands,
            dtype=self.layout.dtype,
            scale=self.layout.scale,
            offset=self.layout.offset,
            units=stream.units,
            count=len(times),
            first=times[0],
            last=times[-1],
            platforms=self.distinct("platform"),
            orbit_states=self.distinct("orbit_state"),
            relative_orbits=self.distinct("relative_orbit"),
            processing_baselines=self.distinct("processing_baseline"),
            processing_levels=self.distinct("processing_level"),
            backscatter_coefficients=self.distinct("backscatter_coefficient"),
            boa_offset_applied=self.distinct("boa_offset_applied"),
        )

    def check_coefficient(self, frame: Frame, stream: str) -> None:
        """Raise `StoreError` if a frame has another backscatter coefficient than what is stored."""
        new = frame.record["backscatter_coefficient"]
        stored = [value for value in self.distinct("backscatter_coefficient") if value]
        if new and stored and new not in stored:
            raise StoreError(
                f"{frame.label}: is {new}, stream {stream} holds "
                f"{', '.join(stored)}; convert it, backscatter coefficients are never mixed"
            )


async def _load(store: Store, path: str) -> tuple[Mapping[str, Any], str, dict[str, Array]]:
    """Attributes and type of the values, and the coordinates, in one crossing to Zarr's event loop, not forty."""
    group = await open_group(store=store, path=path, mode="r", zarr_format=3, use_consolidated=False)
    arrays = {name: array async for name, array in group.members() if isinstance(array, AsyncArray)}
    # Cubes from before `provenance` was a coordinate lack it; they are read and appended to without it.
    held = [name for name in (*PER_TIME, "band") if name in arrays]
    loaded = await asyncio.gather(*(arrays[name].getitem(slice(None)) for name in held))
    columns = {
        name: np.asarray(column, dtype=NUMBERS.get(name, object)) for name, column in zip(held, loaded, strict=True)
    }
    return arrays["values"].attrs, np.dtype(arrays["values"].dtype).name, columns


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group, as an array."""
    return cast("zarr.Array[Any]", group[name])
