"""Everything that the report says and shows, gathered as plain values under the names that the template uses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from urbandelta import composites, figures, narrative, report_events, report_quality
from urbandelta.accuracy import Agreement, agreement
from urbandelta.cartography import MapFrame
from urbandelta.composites import Acquisitions, Pair, shrink
from urbandelta.errors import GridError
from urbandelta.events import Event
from urbandelta.grid import Grid
from urbandelta.patches import Patch, find_patches
from urbandelta.products import NO_DATE, DaysArray, ScoreMaps, grid_of, period_maxima, provenance_of, score_maps
from urbandelta.types import BoolArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["gather"]

MAP_PX = 640
SERIES_PX = 320
MOST_PERIODS = 36
"""A longer series of months is shown by quarters or years, so that the page stays light."""
TABLE_ROWS = 12
WIDE, NARROW = 1040, 350
"""Widths in CSS pixels for which charts are drawn: a desktop column and a phone."""
CHARTS = (("wide", WIDE), ("narrow", NARROW))


def gather(
    scores: xr.Dataset,
    cube: Cube | None,
    truth: DaysArray | None,
    *,
    title: str,
    threshold: float = 0.5,
    command: str | None = None,
    events: Sequence[Event] = (),
) -> dict[str, Any]:
    """Everything that the page says and shows, by the names that the template uses."""
    grid = grid_of(scores)
    if cube is not None and (cube.grid.shape != grid.shape or cube.grid.crs != grid.crs):
        raise GridError(f"the scores lie on {grid}, the cube on {cube.grid}; pass the cube that they were made from")
    frame = MapFrame(grid)
    maps = score_maps(scores, threshold=threshold, cube=cube)
    patches = find_patches(maps, frame.row_area_ha)
    start, end = scores["window_start"].values.min(), scores["window_end"].values.max()
    match = agreement(maps, truth, start=start, end=end) if truth is not None else None
    acquisitions = composites.acquisitions_of(cube) if cube is not None else []
    rows_changed = (np.nan_to_num(maps.maximum) >= threshold).sum(axis=1)
    changed_ha = float(rows_changed @ frame.row_area_ha)
    scored_ha = float(np.isfinite(maps.maximum).sum(axis=1) @ frame.row_area_ha)
    first, second = narrative.headline(patches, changed_ha, scored_ha, frame, threshold)
    if patches or events:
        second = f"{second} {report_events.event_sentence(events)}"
    attributes = {**provenance_of(scores), **({"report command": command} if command else {})}
    return {
        "title": title,
        "headline": first,
        "subline": second,
        "era": cube.era.title if cube is not None else str(scores.attrs.get("era", "")),
        "start": narrative.plain_date(start),
        "end": narrative.plain_date(end),
        "period": narrative.period_text(start, end),
        "position": narrative.position_text(frame.lonlat((grid.height - 1) / 2, (grid.width - 1) / 2)),
        "weights": narrative.weights_used(scores.attrs),
        "threshold": threshold,
        "windows": scores.sizes["window"],
        "changed_ha": changed_ha,
        "scored_ha": scored_ha,
        "changed_text": narrative.area_text(changed_ha),
        "patch_count": len(patches),
        "events": report_events.event_view(events, frame, charts=CHARTS, span=(start, end)),
        "red": figures.red_image(shrink(maps.maximum, _factor(grid, MAP_PX), how="max")),
        "data_quality": report_quality.quality_view(cube, acquisitions, charts=CHARTS) if cube is not None else None,
        "grid": grid,
        "frame": frame,
        "pair": _pair_view(cube, grid, start, end),
        "has_cube": cube is not None,
        "maps": _map_view(maps, truth, patches, grid),
        "palette": ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in figures.palette().tolist()],
        "date_palette": ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in figures.palette("viridis", 9).tolist()],
        "patches": [_patch_view(number, patch, frame) for number, patch in enumerate(patches[:TABLE_ROWS], start=1)],
        "series": _series_view(scores, frame, threshold),
        "history": _history_view(scores, cube, maps, truth, patches, frame),
        "acquisitions": _acquisition_view(acquisitions),
        "match": match,
        "match_image": _match_image(match, grid) if match is not None else None,
        "agreement_colours": figures.AGREEMENT,
        "notes": narrative.notes(
            scores, maps, acquisitions, snapshot=cube.snapshot if cube is not None else None, match=match
        ),
        "limits": narrative.LIMITS,
        "provenance": {name.replace("_", " "): narrative.plain_value(value) for name, value in attributes.items()},
        "probe": json.dumps(_probe(frame, patches)),
    }


def _factor(grid: Grid, limit: int) -> int:
    return -(-max(grid.shape) // limit)


def _pair_view(cube: Cube | None, grid: Grid, start: np.datetime64, end: np.datetime64) -> dict[str, Any] | None:
    pair: Pair | None = None
    if cube is not None:
        pair = composites.before_and_after(cube, start, end, factor=_factor(grid, MAP_PX))
    if pair is None:
        return None
    images = composites.stretch(pair)
    return {
        "title": _pair_title(pair),
        "sides": [
            {
                "name": name,
                "image": figures.rgba_image(image),
                "start": narrative.plain_date(side.start),
                "end": narrative.plain_date(side.end),
                "acquisitions": side.acquisitions,
            }
            for name, image, side in zip(("Before", "After"), images, (pair.before, pair.after), strict=True)
        ],
    }


def _pair_title(pair: Pair) -> str:
    if pair.kind == "radar":
        return f"Backscatter in decibels as grey ({composites.title_of(pair.stream).lower()})"
    return pair.kind.capitalize()


def _map_view(maps: ScoreMaps, truth: DaysArray | None, patches: Sequence[Patch], grid: Grid) -> dict[str, Any]:
    factor = _factor(grid, MAP_PX)
    maximum = shrink(maps.maximum, factor, how="max")
    dated = np.where(maps.change_date == NO_DATE, np.nan, maps.change_date).astype(np.float32)
    days = np.nan_to_num(shrink(dated, factor, how="max"), nan=NO_DATE).astype(np.int32)
    known = days[days != NO_DATE]
    first, last = (int(known.min()), int(known.max())) if known.size else (0, 0)
    happened = truth is not None and bool((truth != NO_DATE).any())
    return {
        "score": figures.score_image(maximum),
        "dates": figures.date_image(days, first, last) if known.size else None,
        "first": narrative.plain_date(np.datetime64(first, "D")),
        "last": narrative.plain_date(np.datetime64(last, "D")),
        "truth": figures.outline(_shrunk_mask(truth != NO_DATE, factor)) if truth is not None and happened else None,
        "height": maximum.shape[0],
        "width": maximum.shape[1],
        "labels": [
            {"number": number, "x": 100 * (p.column + 0.5) / grid.width, "y": 100 * (p.row + 0.5) / grid.height}
            for number, p in enumerate(patches[:6], start=1)
        ],
    }


def _shrunk_mask(mask: BoolArray, factor: int) -> BoolArray:
    return np.asarray(shrink(mask.astype(np.float32), factor, how="max") > 0)


def _patch_view(number: int, patch: Patch, frame: MapFrame) -> dict[str, Any]:
    lon, lat = frame.lonlat(patch.row, patch.column)
    return {
        "number": number,
        "area": narrative.area_text(patch.area_ha),
        "pixels": patch.pixels,
        "lat": f"{lat:.5f}",
        "lon": f"{lon:.5f}",
        "where": frame.place(patch.row, patch.column),
        "date": narrative.plain_date(patch.change_date),
        "peak": f"{patch.peak_score:.2f}",
    }


def _series_view(scores: xr.Dataset, frame: MapFrame, threshold: float) -> dict[str, Any]:
    """The maps of months (or quarters, or years) as pictures, with a line of figures each."""
    middles = scores["time"].values.astype("datetime64[M]").astype(np.int64)
    span = int(middles.max() - middles.min()) + 1
    months = next((m for m in (1, 3, 6, 12, 24, 60) if span / m <= MOST_PERIODS), 120)
    factor = _factor(frame.grid, SERIES_PX)
    periods = []
    for period in period_maxima(scores, months=months):
        above = float((np.nan_to_num(period.maximum) >= threshold).sum(axis=1) @ frame.row_area_ha)
        peak = float(np.nanmax(period.maximum)) if np.isfinite(period.maximum).any() else None
        year, month = str(period.start).split("-")[:2]
        label = {1: f"{figures.MONTHS[int(month) - 1]} {year}", 3: f"{year} Q{(int(month) + 2) // 3}", 12: year}
        periods.append(
            {
                "label": label.get(months, f"from {figures.MONTHS[int(month) - 1]} {year}"),
                "image": figures.score_image(shrink(period.maximum, factor, how="max")),
                "windows": period.windows,
                "peak": None if peak is None else f"{peak:.2f}",
                "area": narrative.area_text(above),
            }
        )
    unit = {1: "month", 3: "quarter", 6: "half year", 12: "year"}.get(months, f"{months // 12} years")
    return {"periods": periods, "unit": unit, "factor": factor}


def _history_view(
    scores: xr.Dataset,
    cube: Cube | None,
    maps: ScoreMaps,
    truth: DaysArray | None,
    patches: Sequence[Patch],
    frame: MapFrame,
) -> dict[str, Any] | None:
    """Charts of the strongest changed pixel and a typical unchanged one."""
    places = _two_pixels(maps, truth, patches)
    pixels = []
    for label, row, column in places:
        day = int(truth[row, column]) if truth is not None else NO_DATE
        pixels.append(
            figures.PixelHistory(
                label=label,
                score=np.asarray(scores["score"].transpose("window", "y", "x")[:, row, column].values, np.float32),
                series=composites.pixel_series(cube, row, column) if cube is not None else [],
                true_date=None if day == NO_DATE else np.datetime64(day, "D"),
            )
        )
    if not pixels:
        return None
    times = (scores["window_start"].values, scores["window_end"].values, scores["time"].values)
    charts = {
        name: figures.history_chart(pixels, *times, threshold=maps.threshold, width=width, name=f"history-{name}")
        for name, width in CHARTS
    }
    described = [
        {
            "label": label,
            "position": narrative.position_text(frame.lonlat(row, column)),
            "score": f"{maps.maximum[row, column]:.2f}",
            "true": narrative.plain_date(pixel.true_date) if pixel.true_date is not None else None,
            "x": 100 * (column + 0.5) / frame.grid.width,
            "y": 100 * (row + 0.5) / frame.grid.height,
        }
        for (label, row, column), pixel in zip(places, pixels, strict=True)
    ]
    return {"charts": charts, "pixels": described}


def _two_pixels(maps: ScoreMaps, truth: DaysArray | None, patches: Sequence[Patch]) -> list[tuple[str, int, int]]:
    """The peak of the strongest patch (or the highest score at all), and the unchanged pixel with the median score."""
    scored = np.isfinite(maps.maximum)
    if not scored.any():
        return []
    if patches:
        peak = (patches[0].peak_row, patches[0].peak_column)
    else:
        row, column = np.unravel_index(int(np.nanargmax(maps.maximum)), maps.maximum.shape)
        peak = (int(row), int(column))
    places = [("changed pixel" if patches else "pixel with the highest score", *peak)]
    steady = scored & (np.nan_to_num(maps.maximum) < maps.threshold)
    if truth is not None:
        steady &= truth == NO_DATE
    steady[peak] = False
    rows, columns = np.nonzero(steady)
    if rows.size:
        middle = np.argsort(maps.maximum[rows, columns], kind="stable")[rows.size // 2]
        places.append(("unchanged pixel", int(rows[middle]), int(columns[middle])))
    return places


def _acquisition_view(acquisitions: Sequence[Acquisitions]) -> dict[str, Any] | None:
    seen = [stream for stream in acquisitions if stream.times.size]
    if not seen:
        return None
    platforms = sorted({platform for stream in seen for platform in stream.platforms})
    rows = []
    for stream in seen:
        names = np.array(stream.platforms)
        for platform in sorted(set(stream.platforms)):
            mine = names == platform
            rows.append(
                {
                    "stream": composites.title_of(stream.stream),
                    "platform": platform,
                    "count": int(mine.sum()),
                    "first": narrative.plain_date(stream.times[mine][0]),
                    "last": narrative.plain_date(stream.times[mine][-1]),
                    "valid": f"{100 * float(stream.valid_fraction[mine].mean()):.0f} %",
                }
            )
    return {
        "rows": rows,
        "total": sum(stream.times.size for stream in seen),
        "platforms": list(zip(platforms, [f"satellite-{k % 5 + 1}" for k in range(len(platforms))], strict=True)),
        "months": _month_counts(seen),
        "charts": {
            name: figures.acquisition_chart(seen, platforms, width=width, name=f"acquisitions-{name}")
            for name, width in CHARTS
        },
    }


def _month_counts(acquisitions: Sequence[Acquisitions]) -> dict[str, Any]:
    """Acquisitions a month and stream, with their mean valid fraction; months without any are listed too."""
    months = [stream.times.astype("datetime64[M]") for stream in acquisitions]
    calendar = np.arange(min(m.min() for m in months), max(m.max() for m in months) + 1)
    lines = []
    for month in calendar:
        cells = []
        for stream, of in zip(acquisitions, months, strict=True):
            mine = of == month
            cells.append(f"{mine.sum()} ({100 * stream.valid_fraction[mine].mean():.0f} %)" if mine.any() else "none")
        lines.append({"month": str(month), "cells": cells})
    return {"streams": [composites.title_of(stream.stream) for stream in acquisitions], "lines": lines}


def _match_image(match: Agreement, grid: Grid) -> str:
    factor = _factor(grid, MAP_PX)
    return figures.agreement_image(*(_shrunk_mask(m, factor) for m in (match.hits, match.misses, match.false_alarms)))


def _probe(frame: MapFrame, patches: Sequence[Patch]) -> dict[str, Any]:
    """What the page's script needs to name a pixel: the degrees of the corners, to be interpolated, and a first one."""
    height, width = frame.grid.shape
    corners = [frame.lonlat(row, column) for row in (0, height - 1) for column in (0, width - 1)]
    start = (patches[0].peak_row, patches[0].peak_column) if patches else (height // 2, width // 2)
    return {"height": height, "width": width, "corners": corners, "start": start}
