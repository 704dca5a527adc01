"""NetCDF time series: variables with dimensions (time, y, x), in one file or several, each on its own coordinates.

Numbers are read as stored; scale, offset, fill value and unsigned flag are taken from the attributes by this module,
so that integers stay integers. Variables of several files are joined where their times agree exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from urbandelta.errors import GridError, SourceError
from urbandelta.grid import Grid, normal_crs
from urbandelta.sources.base import Layer, Part, Scene
from urbandelta.types import Array, BoolArray, TimeArray

_X_NAMES = ("x", "lon", "longitude", "easting")
_Y_NAMES = ("y", "lat", "latitude", "northing")
_TIME_NAMES = ("time", "t", "timestamp", "date")
# Coordinates are often written as float32 or in rounded degrees.
_SPACING_TOLERANCE = 1e-3
_RUN_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class NetcdfOptions:
    """Which files and variables are read, and under which band names; `crs` is for files that have none."""

    files: str = "*.nc"
    rename: Mapping[str, str] = field(default_factory=dict)
    crs: str | None = None


class SteadyReader:
    """Reads one variable a run of dates at a time.

    Series are often compressed in chunks of many dates, and each read has a fixed cost: reading date by date would
    unpack the same chunk again and again.
    """

    def __init__(self, path: Path, variable: xr.DataArray) -> None:
        self.variable = variable
        self._path = path
        image_bytes = variable.dtype.itemsize * int(np.prod(variable.shape[1:]))
        self._run = max(1, _RUN_BYTES // image_bytes)
        self._held: tuple[int, slice, slice] | None = None
        self._values: Array = np.empty((0, 0, 0))

    def read(self, step: int, rows: slice, columns: slice) -> Array:
        """Stored numbers (y, x) of a window at one date; at most 8 MiB, or one date, are held for the next."""
        first = step - step % self._run
        if self._held != (first, rows, columns):
            try:
                self._values = self.variable[first : first + self._run, rows, columns].values
            except (OSError, RuntimeError, ValueError) as error:
                raise SourceError(
                    f"{self._path}: variable {self.variable.name} cannot be read ({error}); fetch the file again"
                ) from error
            self._held = (first, rows, columns)
        image: Array = self._values[step - first]
        return image


@dataclass(frozen=True, eq=False)
class VariableLayer:
    """One variable at one time."""

    path: Path
    reader: SteadyReader
    step: int
    grid: Grid
    flipped: bool

    @property
    def variable(self) -> xr.DataArray:
        """The variable with its attributes, undecoded."""
        return self.reader.variable

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.path)

    @cached_property
    def nodata(self) -> float | None:
        """`_FillValue` or `missing_value`, as the stored type understands it."""
        attributes = self.variable.attrs
        value = attributes.get("_FillValue", attributes.get("missing_value"))
        if value is None:
            return None
        number = np.asarray(value).reshape(-1)[:1]
        return float(self._unsigned(number)[0]) if number.dtype == self.variable.dtype else float(number[0])

    @property
    def scale(self) -> float:
        """`scale_factor`."""
        return float(np.asarray(self.variable.attrs.get("scale_factor", 1.0)).reshape(-1)[0])

    @property
    def offset(self) -> float:
        """`add_offset`."""
        return float(np.asarray(self.variable.attrs.get("add_offset", 0.0)).reshape(-1)[0])

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window; the file masks nothing but its fill value."""
        height = self.grid.height
        if self.flipped:
            rows = slice(height - rows.stop, height - rows.start)
        values = self.reader.read(self.step, rows, columns)
        return self._unsigned(values[::-1] if self.flipped else values), None

    def _unsigned(self, values: Array) -> Array:
        if str(self.variable.attrs.get("_Unsigned", "")).lower() != "true" or values.dtype.kind != "i":
            return values
        return np.ascontiguousarray(values).view(f"{values.dtype.byteorder}u{values.dtype.itemsize}")


def find_scenes(source: Path, options: NetcdfOptions) -> list[Scene]:
    """Scenes of one file, or of the files of a folder that match `options.files`.

    Raises
    ------
    SourceError
        If no file matches, one is unreadable, holds no variable over (time, y, x), or has no usable time or CRS, or
        two files hold the same variable at the same time.
    """
    layers: dict[np.datetime64, dict[str, Layer]] = {}
    names: dict[np.datetime64, list[str]] = {}
    for path in _files(source, options.files):
        for variable, times in _variables(path):
            grid, flipped = _grid(path, variable, options.crs)
            reader = SteadyReader(path, variable)
            name = options.rename.get(str(variable.name), str(variable.name))
            for step, time in enumerate(times):
                at_time = layers.setdefault(time, {})
                if name in at_time:
                    raise SourceError(f"{path}: {name} at {time} is also in {at_time[name].origin}; narrow --files")
                at_time[name] = VariableLayer(path, reader, step, grid, flipped)
                if path.stem not in names.setdefault(time, []):
                    names[time].append(path.stem)
    return [
        Scene(time=time, parts=(Part(found, f"{'+'.join(names[time])}@{np.datetime_as_string(time, 's')}"),))
        for time, found in sorted(layers.items())
    ]


def _files(source: Path, pattern: str) -> list[Path]:
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder")
    found = [source] if source.is_file() else sorted(source.rglob(pattern))
    if not found:
        raise SourceError(f"{source}: no file matches {pattern!r}; correct --files")
    return found


def _variables(path: Path) -> list[tuple[xr.DataArray, TimeArray]]:
    dataset = _open(path)
    found = [
        variable
        for variable in dataset.data_vars.values()
        if len(variable.dims) == 3
        and str(variable.dims[0]).lower() in _TIME_NAMES
        and str(variable.dims[1]).lower() in _Y_NAMES
        and str(variable.dims[2]).lower() in _X_NAMES
    ]
    if not found:
        shapes = ", ".join(f"{name}{variable.dims}" for name, variable in dataset.data_vars.items())
        raise SourceError(f"{path}: no variable has dimensions (time, y, x); found {shapes or 'none'}")
    times = {name: _times(path, dataset, name) for name in {str(variable.dims[0]) for variable in found}}
    return [(_with_crs(variable, dataset), times[str(variable.dims[0])]) for variable in found]


def _open(path: Path) -> xr.Dataset:
    try:
        with path.open("rb") as stream:
            classic = stream.read(3) == b"CDF"
        # decode_cf would turn packed integers into floats.
        engine: Any = "scipy" if classic else "h5netcdf"
        return xr.open_dataset(path, engine=engine, decode_cf=False, cache=False)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: not a readable NetCDF file ({error}); fetch it again") from error
    except ValueError as error:
        if classic:
            raise SourceError(
                f"{path}: is NetCDF 3 ({error}); install scipy, or convert it with nccopy -k nc4"
            ) from error
        raise SourceError(f"{path}: not a readable NetCDF file ({error})") from error


def _times(path: Path, dataset: xr.Dataset, name: str) -> TimeArray:
    if name not in dataset.variables or "units" not in dataset[name].attrs:
        raise SourceError(f"{path}: dimension {name} has no times (a variable with units such as 'days since ...')")
    try:
        decoded = xr.decode_cf(dataset[[name]])[name].values
    except ValueError as error:
        raise SourceError(f"{path}: times of {name} cannot be decoded ({error})") from error
    if decoded.dtype.kind != "M":
        raise SourceError(f"{path}: times of {name} are not dates of the standard calendar")
    times: TimeArray = decoded.astype("datetime64[ns]")
    if len(np.unique(times)) != len(times):
        raise SourceError(f"{path}: {name} holds the same time more than once")
    return times


def _with_crs(variable: xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
    """The variable with the CRS that the file gives it as attribute `crs_wkt`, if it gives one."""
    mapping = variable.attrs.get("grid_mapping", dataset.attrs.get("grid_mapping"))
    attributes: Mapping[str, Any] = dataset[mapping].attrs if mapping in dataset.variables else {}
    wkt = attributes.get("crs_wkt", attributes.get("spatial_ref"))
    epsg = variable.attrs.get("epsg", dataset.attrs.get("epsg"))
    crs = wkt if wkt is not None else None if epsg is None else f"EPSG:{epsg}"
    return variable if crs is None else variable.assign_attrs(crs_wkt=str(crs))


def _grid(path: Path, variable: xr.DataArray, crs: str | None) -> tuple[Grid, bool]:
    own = variable.attrs.get("crs_wkt")
    if own is None and crs is None:
        raise SourceError(f"{path}: variable {variable.name} has no CRS; declare it with --source-crs EPSG:...")
    try:
        if own is not None and crs is not None and normal_crs(own) != normal_crs(crs):
            raise SourceError(f"{path}: is in {normal_crs(own)[:60]}, not in the declared {crs}; omit --source-crs")
        y_name, x_name = variable.dims[1:]
        west, a = _origin_and_step(path, variable, str(x_name))
        north, e = _origin_and_step(path, variable, str(y_name))
        height, width = variable.shape[1:]
        if a < 0:
            raise SourceError(f"{path}: coordinate {x_name} runs from east to west; store it from west to east")
        flipped = e > 0
        top = north + e * height if flipped else north
        return Grid(own or str(crs), (a, 0.0, west, 0.0, -abs(e), top), height, width), flipped
    except GridError as error:
        raise SourceError(f"{path}: {error}") from error


def _origin_and_step(path: Path, variable: xr.DataArray, name: str) -> tuple[float, float]:
    """Outer edge of the first pixel and signed pixel size, from coordinates of pixel centres."""
    if name not in variable.coords:
        raise SourceError(f"{path}: dimension {name} has no coordinates")
    centres = variable.coords[name].values.astype(np.float64)
    if centres.size < 2:
        raise SourceError(f"{path}: coordinate {name} has a single value, from which no pixel size follows")
    step = float(centres[-1] - centres[0]) / (centres.size - 1)
    even = centres[0] + step * np.arange(centres.size)
    if step == 0 or not np.allclose(centres, even, rtol=0, atol=abs(step) * _SPACING_TOLERANCE * centres.size**0.5):
        raise SourceError(f"{path}: coordinate {name} is not evenly spaced; resample the file to a regular grid first")
    return float(centres[0]) - step / 2, step
