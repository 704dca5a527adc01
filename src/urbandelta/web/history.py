"""One pixel through time: its scores, what each stream measured there, and the built-up index."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from urbandelta.composites import title_of
from urbandelta.indices import ROLES, endisi_of
from urbandelta.types import BoolArray, FloatArray, MaskArray, MaskReason
from urbandelta.web.models import IndexHistory, PixelHistory, ScoreHistory, StreamHistory
from urbandelta.web.opened import Opened

_INDEX_SHIFT = 0.25
"""The papers' alpha for most places (`indices.endisi`)."""
_NDVI_ROLES = ("red", "nir")
_DIGITS = 5


def pixel_history(area: Opened, row: int, column: int) -> PixelHistory:
    """All that is known of a pixel of the grid."""
    tiles = area.tiles
    a, _, c, _, e, f = area.grid.transform
    x, y = c + a * (column + 0.5), f + e * (row + 0.5)
    longitude, latitude = tiles.to_degrees(x, y)
    streams, indices = [], []
    for name in area.cube.streams if area.cube is not None else ():
        one = _read(area, name, row, column)
        streams.append(_stream(one))
        indices += _indices(area, one)
    return PixelHistory(
        row=row,
        column=column,
        longitude=longitude,
        latitude=latitude,
        x=x,
        y=y,
        crs=area.grid.crs,
        corners=tiles.pixel_corners(row, column),
        score=_scores(area, row, column),
        streams=streams,
        indices=indices,
        events=area.events.at(row, column),
    )


@dataclass(frozen=True, eq=False)
class _Series:
    """One pixel in one stream, masked acquisitions included."""

    area: Opened
    name: str
    times: list[str]
    values: FloatArray
    """(time, band)."""
    mask: MaskArray
    """(time,)."""
    bands: tuple[str, ...]
    known: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", np.isfinite(self.values).all(axis=1) & ((self.mask & MaskReason.NODATA) == 0))


def _read(area: Opened, name: str, row: int, column: int) -> _Series:
    assert area.cube is not None  # its streams are being gone through
    values, mask = area.cube.read(name, slice(None), slice(row, row + 1), slice(column, column + 1))
    times = [f"{time}Z" for time in np.datetime_as_string(area.cube.times(name), unit="s")]
    return _Series(area, name, times, values[:, 0, 0], mask[:, 0, 0], area.cube.bands(name))


def _stream(one: _Series) -> StreamHistory:
    cube = one.area.cube
    assert cube is not None
    stream = cube.era.stream(one.name)
    values: FloatArray = np.where(one.known[:, None], one.values, np.nan).astype(np.float32)
    units = stream.units
    if stream.kind == "sar":
        units = "dB"
        values = (10 * np.log10(np.where(values > 0, values, np.nan))).astype(np.float32)
    columns = {band: _numbers(values[:, k]) for k, band in enumerate(one.bands)}
    return StreamHistory(
        name=one.name,
        title=title_of(stream),
        kind=stream.kind,
        units=units,
        times=one.times,
        platforms=[str(platform) for platform in cube.acquisitions(one.name)["platform"].values],
        values=columns,
        valid=[bool(v) for v in one.mask == 0],
        reasons=[reasons_of(int(v)) for v in one.mask],
    )


def _indices(area: Opened, one: _Series) -> list[IndexHistory]:
    """The built-up index and the vegetation index of an optical stream, where its bands allow."""
    assert area.cube is not None
    stream = area.cube.era.stream(one.name)
    position = {role: one.bands.index(band) for role, band in stream.roles.items() if band in one.bands}
    seen = (one.mask == 0) & one.known
    times = [time for time, valid in zip(one.times, seen, strict=True) if valid]
    found = []
    if area.beta is not None and set(ROLES) <= set(position):
        bands = [one.values[seen, position[role]] for role in ROLES]
        values = endisi_of(bands[0], bands[1], bands[2], bands[3], area.beta, shift=_INDEX_SHIFT, mode="corrected")
        found.append(IndexHistory(name="ENDISI", title="Built-up index (ENDISI)", times=times, values=_numbers(values)))
    if set(_NDVI_ROLES) <= set(position):
        red, nir = (one.values[seen, position[role]] for role in _NDVI_ROLES)
        total = nir + red
        values = (nir - red) / np.where(total > 0, total, np.nan)
        found.append(IndexHistory(name="NDVI", title="Vegetation index (NDVI)", times=times, values=_numbers(values)))
    return found


def _scores(area: Opened, row: int, column: int) -> ScoreHistory | None:
    scores = area.scores
    if scores is None:
        return None
    starts, ends, middles = (
        [str(day) for day in scores[name].values.astype("datetime64[D]")]
        for name in ("window_start", "window_end", "time")
    )
    count = len(starts)
    provisional = [bool(v) for v in scores["provisional"].values] if "provisional" in scores else [False] * count
    return ScoreHistory(
        start=starts,
        end=ends,
        middle=middles,
        score=_numbers(scores["score"][:, row, column].values),
        spread=_numbers(scores["spread"][:, row, column].values) if "spread" in scores else None,
        n_obs=[int(n) for n in scores["n_obs"].values],
        provisional=provisional,
    )


def reasons_of(bits: int) -> str:
    """Why a pixel of an acquisition is masked, in words; empty if it is not."""
    names = [reason.name for reason in MaskReason if reason and bits & reason and reason.name]
    return ", ".join(name.lower().replace("_", " ") for name in names)


def _numbers(values: npt.NDArray[np.floating]) -> list[float | None]:
    return [round(float(v), _DIGITS) if np.isfinite(v) else None for v in values]
