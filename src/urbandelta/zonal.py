"""Statistics per district: changed area a month, events, observations, built-up area, land consumption rate.

Areas are geodesic sums of pixels whose centre lies in the district. A pixel is credited once, to the month of its
estimated first date, so that the months of a district add up to its changed area.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from urbandelta.builtup import INDEX_THRESHOLD, BuiltUp, built_up
from urbandelta.cartography import MapFrame
from urbandelta.cog import write_whole
from urbandelta.dating import NO_DATE, date_maps
from urbandelta.districts import District, Patch, burn, read_districts
from urbandelta.errors import ConfigError, GridError, ProductError
from urbandelta.events import Event, EventOptions, find_events
from urbandelta.grid import Grid
from urbandelta.products import grid_of, score_maps
from urbandelta.types import FloatArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["DistrictRow", "ZonalTable", "land_consumption_rate", "write_zonal", "zonal_table"]

SAMPLED_ACQUISITIONS = 60
"""Masks are read of at most so many acquisitions of each stream, spread evenly over time."""


@dataclass(frozen=True, kw_only=True)
class DistrictRow:
    """One line of the table; None where it cannot be told."""

    district: str
    area_ha: float
    """Of its pixels, whether scored or not."""
    scored_ha: float
    changed_ha: float
    changed_percent: float | None
    """Of the scored area."""
    events: int
    """Events that have a pixel here; one on a border counts on both sides."""
    confirmed_events: int
    """Of these, confirmed or finished ones."""
    event_ha: float
    """Area of confirmed and finished events, only what lies here."""
    window_observations: float | None
    """Mean over its pixels of the observations of the window that scores highest."""
    observations: float | None
    """Valid acquisitions of all streams a pixel, from a sample of the masks."""
    built_up_start_percent: float | None
    built_up_end_percent: float | None
    land_consumption_percent_per_year: float | None
    """SDG 11.3.1: (end - start) / start / years, in per cent."""


@dataclass(frozen=True, kw_only=True)
class ZonalTable:
    """Statistics of all districts, and what they rest on."""

    rows: tuple[DistrictRow, ...]
    months: npt.NDArray[np.datetime64]
    changed_ha: npt.NDArray[np.float64]
    """(district, month)."""
    notes: tuple[str, ...]
    """How built-up area was found and what to be careful about."""


def land_consumption_rate(start_area: float, end_area: float, years: float) -> float | None:
    """Land consumption rate of SDG 11.3.1, per year: `(end - start) / start / years`.

    In the words of the metadata, (V_present - V_past) / V_past * 1/T, since its revision of March 2021 [1]_. Before, it
    was ln(Urb_present / Urb_past) / years, which is lower. None where there was no built-up area to begin with.

    References
    ----------
    .. [1] UN-Habitat, SDG indicator metadata, 11.3.1: Ratio of land consumption rate to population growth rate,
       section 4.c, method of computation. unstats.un.org/sdgs/metadata/files/Metadata-11-03-01.pdf
    """
    if not (start_area > 0 and years > 0 and math.isfinite(end_area)):
        return None
    return (end_area - start_area) / start_area / years


def zonal_table(
    scores: xr.Dataset,
    districts: Sequence[District],
    *,
    cube: Cube | None = None,
    events: Sequence[Event] | None = None,
    options: EventOptions | None = None,
    index_threshold: float = INDEX_THRESHOLD,
    built_up_field: str | None = None,
) -> ZonalTable:
    """Statistics of scores per district.

    Parameters
    ----------
    scores : xarray.Dataset
        As `open_scores` gives it.
    districts : sequence of District
        On the grid's CRS, as `read_districts` gives them.
    cube : Cube, optional
        Of the scores; for dates, observations and the built-up share.
    events : sequence of Event, optional
        Those of these scores and options; found here if not given.
    options : EventOptions, optional
    index_threshold : float
        Ground whose optical index exceeds this counts as built-up.
    built_up_field : str, optional
        Field of the districts with their built-up share (0..1) at the beginning, to use in place of the index. The end
        is then that plus the area of confirmed and finished events.

    Raises
    ------
    ConfigError
        If the field is missing or does not hold shares, or a threshold is out of range.
    GridError
        If scores and cube lie on different grids.
    """
    options = options or EventOptions()
    if not 0 <= index_threshold < 1:
        raise ConfigError(f"index threshold {index_threshold:g} is out of range; the index lies in 0..1, try 0.1")
    grid = grid_of(scores)
    if cube is not None and (cube.grid.shape != grid.shape or cube.grid.crs != grid.crs):
        raise GridError(f"the scores lie on {grid}, the cube on {cube.grid}; pass the cube that they were made from")
    found = find_events(scores, options, grid=grid, cube=cube) if events is None else events
    maps = score_maps(scores, threshold=options.threshold)
    dates = date_maps(scores, threshold=options.threshold, low=options.low, cube=cube)
    pixel_ha = np.broadcast_to(MapFrame(grid).row_area_ha[:, None], grid.shape)
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    years = float((end - start) / np.timedelta64(1, "s")) / (365.25 * 86_400)
    index = built_up(cube, start, end) if cube is not None and built_up_field is None else None
    patches = [district.patch(grid) for district in districts]
    observed = _observations(cube, patches) if cube is not None else [None] * len(patches)
    changed = dates.first != NO_DATE
    months = _months(dates.first[changed], start, end)
    in_month = np.where(changed, dates.first, 0).astype("datetime64[D]").astype("datetime64[M]")
    window_obs = scores["n_obs"].values.astype(np.float64)[np.maximum(maps.window_of_maximum, 0)]
    rows, monthly = [], []
    for district, patch, seen in zip(districts, patches, observed, strict=True):
        area, scored = patch.of(pixel_ha), np.isfinite(patch.of(maps.maximum))
        flagged = patch.of(changed)
        mine, confirmed, event_ha = _events_in(district, patch, found, pixel_ha, grid)
        built = _share_of_user(district, built_up_field, area, event_ha, years) if built_up_field else None
        if built is None and index is not None:
            built = _share_of_index(index, patch, area, index_threshold)
        before, after, rate = built or (None, None, None)
        monthly.append([float(area[flagged & (patch.of(in_month) == month)].sum()) for month in months])
        scored_ha, changed_ha = float(area[scored].sum()), float(area[flagged].sum())
        rows.append(
            DistrictRow(
                district=district.name,
                area_ha=round(float(area.sum()), 4),
                scored_ha=round(scored_ha, 4),
                changed_ha=round(changed_ha, 4),
                changed_percent=_percent(changed_ha, scored_ha),
                events=mine,
                confirmed_events=confirmed,
                event_ha=round(event_ha, 4),
                window_observations=round(float(patch.of(window_obs)[scored].mean()), 1) if scored.any() else None,
                observations=None if seen is None else round(seen, 1),
                built_up_start_percent=before,
                built_up_end_percent=after,
                land_consumption_percent_per_year=rate,
            )
        )
    notes = _notes(index, built_up_field, index_threshold, years, cube is not None)
    return ZonalTable(rows=tuple(rows), months=months, changed_ha=np.array(monthly), notes=notes)


def _months(first_days: npt.NDArray[np.int32], start: np.datetime64, end: np.datetime64) -> npt.NDArray[np.datetime64]:
    """Calendar months of the scores, wider where an estimated date lies outside."""
    edges = [start.astype("datetime64[M]"), end.astype("datetime64[M]")]
    if first_days.size:
        known = first_days.astype("datetime64[D]").astype("datetime64[M]")
        edges += [known.min(), known.max()]
    return np.arange(min(edges), max(edges) + 1)


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 3) if whole > 0 else None


def _events_in(
    district: District, patch: Patch, events: Sequence[Event], pixel_ha: npt.NDArray[np.float64], grid: Grid
) -> tuple[int, int, float]:
    """Number of events with a pixel in a district, how many are confirmed or finished, and the area of these there."""
    covered = np.zeros_like(patch.inside)
    count = confirmed = 0
    for event in events:
        if not patch.inside.size or not event.geometry.intersects(district.geometry):
            continue
        mine = burn(event.geometry, grid, patch.rows, patch.columns) & patch.inside
        if mine.any():
            count += 1
            if event.stage in ("confirmed", "finished"):
                confirmed += 1
                covered |= mine
    return count, confirmed, float(pixel_ha[patch.rows, patch.columns][covered].sum())


def _observations(cube: Cube, patches: Sequence[Patch]) -> list[float | None]:
    """Valid acquisitions a pixel of each district, over all streams: their number times the valid share of a sample."""
    totals: list[float] = [0.0] * len(patches)
    for name in cube.streams:
        count = len(cube.times(name))
        if not count:
            continue
        sample = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_ACQUISITIONS)).round().astype(int))
        for number, patch in enumerate(patches):
            if patch.inside.any():
                valid = [
                    (cube.read_mask(name, slice(k, k + 1), patch.rows, patch.columns)[0][patch.inside] == 0).mean()
                    for k in sample.tolist()
                ]
                totals[number] += count * float(np.mean(valid))
    return [total if patch.inside.any() else None for total, patch in zip(totals, patches, strict=True)]


def _share_of_index(
    index: BuiltUp, patch: Patch, area: npt.NDArray[np.float64], threshold: float
) -> tuple[float | None, float | None, float | None]:
    """Built-up share in per cent at the beginning and at the end, and the land consumption rate in per cent a year."""
    known = patch.of(index.known)
    whole = float(area[known].sum())
    areas = [float(area[known & (np.nan_to_num(patch.of(image)) > threshold)].sum()) for image in _images(index)]
    rate = land_consumption_rate(areas[0], areas[1], index.years)
    return (_percent(areas[0], whole), _percent(areas[1], whole), None if rate is None else round(100 * rate, 3))


def _images(index: BuiltUp) -> tuple[FloatArray, FloatArray]:
    return index.before, index.after


def _share_of_user(
    district: District, field: str, area: npt.NDArray[np.float64], event_ha: float, years: float
) -> tuple[float | None, float | None, float | None]:
    if field not in district.values:
        raise ConfigError(f"the districts have no field {field!r}; they have {', '.join(district.values) or 'none'}")
    try:
        share = float(district.values[field])
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(
            f"district {district.name}: {field} is {district.values[field]!r}; give the built-up share from 0 to 1"
        )
    whole = float(area.sum())
    before = share * whole
    after = min(before + event_ha, whole)
    rate = land_consumption_rate(before, after, years)
    return _percent(before, whole), _percent(after, whole), None if rate is None else round(100 * rate, 3)


def _notes(index: BuiltUp | None, field: str | None, threshold: float, years: float, has_cube: bool) -> tuple[str, ...]:
    formula = "land consumption rate = (built-up at the end - at the beginning) / at the beginning / years (SDG 11.3.1)"
    counted = (
        "changed area is counted pixel by pixel and not corrected for the map's errors; a pixel counts once, in the "
        "month of its estimated first date"
    )
    if field is not None:
        return (
            counted,
            f"{formula}; years: {years:.2f}",
            f"built-up at the beginning: field {field}; at the end: that plus the area of confirmed and finished "
            "events, as if none of it had been built-up before, hence an upper bound",
        )
    if index is None:
        why = "the cube lacks the index's bands or acquisitions" if has_cube else "no cube was given"
        return counted, f"no built-up share and no land consumption rate: {why}"
    spans = [
        " to ".join(str(moment.astype("datetime64[D]")) for moment in span)
        for span in (index.before_span, index.after_span)
    ]
    notes = [
        counted,
        f"{formula}; years: {index.years:.2f}",
        f"built-up: optical index ENDISI of the median image above {threshold:g}, {spans[0]} ({index.acquisitions[0]} "
        f"acquisitions) and {spans[1]} ({index.acquisitions[1]} acquisitions)",
        "the index marks bright mineral surfaces: it misses dark roofs and tarmac and may take bare soil for built-up, "
        "so its area is an indication; for reporting give the built-up share of a settlement map",
    ]
    if index.years < 0.9:
        notes.append("less than two years: the two dates lie in different seasons, which alone changes the index")
    return tuple(notes)


# ---------------------------------------------------------------- files


def write_zonal(
    scores: xr.Dataset,
    districts: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name_field: str | None = None,
    cube: Cube | None = None,
    events: Sequence[Event] | None = None,
    options: EventOptions | None = None,
    index_threshold: float = INDEX_THRESHOLD,
    built_up_field: str | None = None,
) -> tuple[ZonalTable, list[Path]]:
    """Write `districts.csv`, `districts_months.csv`, `districts.json` (with the notes) and `districts.png`.

    Parameters are those of `zonal_table` and `districts.read_districts`; the folder is made if absent, files of these
    names are replaced.

    Raises
    ------
    AoiError
        If the districts cannot be read.
    ProductError
        If a file cannot be written.
    """
    from urbandelta.zonal_plot import draw_zonal

    areas = read_districts(districts, grid_of(scores), name_field=name_field)
    table = zonal_table(
        scores,
        areas,
        cube=cube,
        events=events,
        options=options,
        index_threshold=index_threshold,
        built_up_field=built_up_field,
    )
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProductError(f"{folder}: cannot make this folder ({error.strerror}); choose another") from error
    names = list(DistrictRow.__dataclass_fields__)
    rows = [asdict(row) for row in table.rows]
    long = [
        (row.district, str(month), f"{value:.4f}")
        for row, values in zip(table.rows, table.changed_ha, strict=True)
        for month, value in zip(table.months, values, strict=True)
    ]
    contents = {
        "districts.csv": _csv(names, [["" if row[name] is None else row[name] for name in names] for row in rows]),
        "districts_months.csv": _csv(["district", "month", "changed_ha"], long),
        "districts.json": (json.dumps({"districts": rows, "notes": table.notes}, indent=2) + "\n").encode(),
        "districts.png": draw_zonal(table),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    return table, [folder / name for name in contents]


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()
