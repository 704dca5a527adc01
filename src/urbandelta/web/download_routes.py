"""Routes that answer with files: what is shown, for other programs."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from rasterio.windows import Window
from starlette.background import BackgroundTask

from urbandelta.products import provenance_of
from urbandelta.types import FloatArray
from urbandelta.web.api_routes import event_info, history_at
from urbandelta.web.models import EventInfo, PixelHistory, Problem
from urbandelta.web.opened import Holder, Opened
from urbandelta.web.parameters import Box, Latitude, Longitude, Moment, MonthLabel, Name, OptionalBox, Wanted
from urbandelta.web.score_layers import GDAL_CACHE_BYTES
from urbandelta.web.workers import Workers

MOST_VALUES = 20_000_000
"""Values (pixels times bands) of one GeoTIFF."""
_STRIP = 256
_PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (404, 413, 422)}


def _file(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}}, **_PROBLEMS}


def download_router(holder: Holder, workers: Workers) -> APIRouter:
    """Routes below `/download`; `workers` decides how many files are made at once."""
    router = APIRouter(prefix="/download", tags=["files"])

    @router.get("/month/{month}.tif", response_class=FileResponse, responses=_file("image/tiff"))
    async def month_file(request: Request, month: MonthLabel, box: OptionalBox) -> FileResponse:
        """Scores of a month as a GeoTIFF on the area's grid, cut to a box if one is given."""

        def work() -> FileResponse:
            area = holder.get()
            pyramid = area.month_pyramid(month)
            tags = {"month": month, "description": f"highest score of the windows centred in {month}"}
            return _geotiff(area, box, f"score_{month}", 1, tags, lambda y, x: pyramid.values(0, y, x)[..., None])

        return await workers.run(request, work)

    @router.get("/map/{name}.tif", response_class=FileResponse, responses=_file("image/tiff"))
    async def map_file(request: Request, name: Name, box: OptionalBox) -> FileResponse:
        """A map over the whole time as a GeoTIFF, cut to a box if one is given."""

        def work() -> FileResponse:
            area = holder.get()
            found, pyramid = area.overall_pyramid(name)
            meanings = ", ".join(f"{each.value} {each.title.replace(', ', '_')}" for each in found.classes)
            tags = {
                "description": found.title,
                **({"units": "days since 1970-01-01"} if found.dates else {}),
                **({"meanings": meanings} if meanings else {}),
            }
            return _geotiff(area, box, name, 1, tags, lambda y, x: pyramid.values(0, y, x)[..., None])

        return await workers.run(request, work)

    @router.get("/image/{stream}/{moment}.tif", response_class=FileResponse, responses=_file("image/tiff"))
    async def image_file(request: Request, stream: Name, moment: Moment, box: OptionalBox) -> FileResponse:
        """The bands of an acquisition that are shown, in physical units, NaN where masked."""

        def work() -> FileResponse:
            area = holder.get()
            pyramid = area.image_pyramid(stream, moment)
            names = [pyramid.cube.bands(stream)[band] for band in pyramid.stretch.bands]
            tags = {"bands": ", ".join(names), "time": moment, "units": pyramid.cube.era.stream(stream).units}
            return _geotiff(area, box, f"{stream}_{moment}", len(names), tags, pyramid.values)

        return await workers.run(request, work)

    @router.get("/events.csv", response_class=Response, responses=_file("text/csv"))
    async def event_table(request: Request, wanted: Wanted) -> Response:
        """The events that a filter keeps, as a table."""

        def work() -> str:
            known = holder.get().events
            rows = [event_info(known, event).model_dump() for event in known.select(wanted)]
            return _table(_event_rows(rows))

        return _csv(await workers.run(request, work), "events")

    @router.get("/pixel.csv", response_class=Response, responses=_file("text/csv"))
    async def pixel_table(request: Request, longitude: Longitude, latitude: Latitude) -> Response:
        """History of a pixel as a table, one value a row."""
        history = await workers.run(request, lambda: history_at(holder.get(), longitude, latitude))
        return _csv(_table(_pixel_rows(history)), f"pixel_{history.row}_{history.column}")

    return router


def _geotiff(area: Opened, box: Box | None, name: str, bands: int, tags: dict[str, str], read: Any) -> FileResponse:
    """A tiled GeoTIFF of `read(y, x)` -> (y, x, band), strip by strip, in a file that goes once it is sent."""
    window = (slice(0, area.grid.height), slice(0, area.grid.width)) if box is None else area.tiles.window_of(*box)
    if window is None:
        raise HTTPException(404, "the box does not meet the area")
    y, x = window
    height, width = y.stop - y.start, x.stop - x.start
    if height * width * bands > MOST_VALUES:
        raise HTTPException(
            413,
            f"{height} x {width} px are more than {MOST_VALUES // bands} px a file; "
            "zoom in, or use `urbandelta export`",
        )
    a, _, c, _, e, f = area.grid.transform
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": "float32", "nodata": np.nan,
        "crs": area.grid.crs, "transform": rasterio.Affine(a, 0, c + a * x.start, 0, e, f + e * y.start),
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 3,
    }  # fmt: skip
    provenance = provenance_of(area.scores) if area.scores is not None else {}
    with tempfile.NamedTemporaryFile(prefix="urbandelta-", suffix=".tif", delete=False) as file:
        path = Path(file.name)
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), rasterio.open(path, "w", **profile) as target:
            target.update_tags(**provenance, **tags)
            for top in range(y.start, y.stop, _STRIP):
                rows = slice(top, min(top + _STRIP, y.stop))
                values: FloatArray = read(rows, x)
                place = Window(0, top - y.start, width, rows.stop - rows.start)
                target.write(np.moveaxis(values, -1, 0), window=place)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    clean = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(
        path, media_type="image/tiff", filename=f"{_plain(area.source.name)}_{name}.tif", background=clean
    )


def _event_rows(rows: list[dict[str, Any]]) -> Iterator[list[Any]]:
    fields = [name for name in EventInfo.model_fields if name != "bounds"]
    yield [*fields, "west", "south", "east", "north"]
    for row in rows:
        yield [*("" if row[name] is None else row[name] for name in fields), *row["bounds"]]


def _pixel_rows(history: PixelHistory) -> Iterator[list[Any]]:
    yield ["source", "quantity", "units", "start", "time", "end", "value", "valid", "remark"]
    score = history.score
    if score is not None:
        for k, value in enumerate(score.score):
            remark = "provisional" if score.provisional[k] else ""
            row = ["score", "score", "1", score.start[k], score.middle[k], score.end[k]]
            yield [*row, "" if value is None else value, value is not None, remark]
    for stream in history.streams:
        for band, values in stream.values.items():
            for k, value in enumerate(values):
                row = [stream.name, band, stream.units, "", stream.times[k], ""]
                yield [*row, "" if value is None else value, stream.valid[k], stream.reasons[k]]
    for index in history.indices:
        for time, value in zip(index.times, index.values, strict=True):
            yield ["index", index.name, "1", "", time, "", "" if value is None else value, value is not None, ""]


def _table(rows: Iterator[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_harmless(cell) for cell in row])
    return buffer.getvalue()


def _harmless(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula, as a text."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def _csv(text: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


def _plain(name: str) -> str:
    """A name that is safe in a header and as a file's."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name) or "area"
