"""Routes that answer with tiles."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from urbandelta.web.cache import ByteCache
from urbandelta.web.drawing import class_palette, colour_webp, empty_png, empty_webp, indexed_png, palette
from urbandelta.web.models import Problem
from urbandelta.web.opened import Holder, Opened
from urbandelta.web.parameters import Colours, Fade, Moment, MonthLabel, Name, TileNumber, Version, Zoom
from urbandelta.web.pyramids import Bytes, Pyramid, sample
from urbandelta.web.workers import Workers

TILE_BYTES = 32 * 2**20


def _answers(kind: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}}}
    problem = {"model": Problem}
    return {200: {"content": content, "description": "A tile of 256 x 256 pixels"}, 404: problem, 422: problem}


def tile_router(holder: Holder, workers: Workers) -> APIRouter:
    """Routes of tiles in Web Mercator, numbered as z/x/y from the north-west."""
    router = APIRouter(prefix="/tiles", tags=["tiles"])
    tiles: ByteCache[bytes] = ByteCache(TILE_BYTES, len)

    async def answer(request: Request, kind: str, version: str | None, draw: Callable[[Opened], bytes]) -> Response:
        def work() -> tuple[bytes, str]:
            area = holder.get()
            return draw(area), area.version

        content, drawn = await workers.run(request, work)
        # An address that names the version of the data can be kept; without one it must be asked for again.
        keep = "private, max-age=86400, immutable" if version == drawn else "no-cache"
        return Response(content, media_type=kind, headers={"Cache-Control": keep})

    def index_tile(
        area: Opened,
        pyramid: Pyramid,
        zxy: tuple[int, int, int],
        style: Hashable,
        colours: Bytes,
        *,
        show_unknown: bool = True,
    ) -> bytes:
        """`style` is what chose `colours`: it tells drawn tiles apart."""

        def make() -> bytes:
            where = area.tiles.pixels(*zxy)
            if where is None:
                return empty_png()
            return indexed_png(sample(pyramid, holder.bricks, where), colours, show_unknown=show_unknown)

        return tiles.get((pyramid.key, zxy, style), make)

    def image_tile(area: Opened, pyramid: Pyramid, zxy: tuple[int, int, int]) -> bytes:
        def make() -> bytes:
            where = area.tiles.pixels(*zxy)
            if where is None:
                return empty_webp()
            drawn = sample(pyramid, holder.bricks, where)
            return colour_webp(drawn) if drawn.ndim == 3 else empty_webp()

        return tiles.get((pyramid.key, zxy), make)

    @router.get("/month/{month}/{z}/{x}/{y}.png", response_class=Response, responses=_answers("image/png"))
    async def month_tiles(
        request: Request,
        month: MonthLabel,
        z: Zoom,
        x: TileNumber,
        y: TileNumber,
        colours: Colours = "inferno",
        fade: Fade = "no",
        version: Version = None,
    ) -> Response:
        """Highest score of the windows whose middles lie in a month."""
        zxy = _tile(z, x, y)

        def draw(area: Opened) -> bytes:
            style = colours, fade == "yes"
            return index_tile(area, area.month_pyramid(month), zxy, style, palette(*style))

        return await answer(request, "image/png", version, draw)

    @router.get("/map/{name}/{z}/{x}/{y}.png", response_class=Response, responses=_answers("image/png"))
    async def map_tiles(
        request: Request,
        name: Name,
        z: Zoom,
        x: TileNumber,
        y: TileNumber,
        colours: Colours = "inferno",
        fade: Fade = "no",
        version: Version = None,
    ) -> Response:
        """A map over the whole time; `/api/area` lists them."""
        zxy = _tile(z, x, y)

        def draw(area: Opened) -> bytes:
            found, pyramid = area.overall_pyramid(name)
            if found.classes:
                return index_tile(area, pyramid, zxy, found.classes, class_palette(found.classes))
            style = colours, fade == "yes" and not found.dates
            # A pixel without a score is worth knowing; one without a date is most of the map.
            return index_tile(area, pyramid, zxy, style, palette(*style), show_unknown=found.name == "score")

        return await answer(request, "image/png", version, draw)

    @router.get("/image/{stream}/{moment}/{z}/{x}/{y}.webp", response_class=Response, responses=_answers("image/webp"))
    async def image_tiles(
        request: Request, stream: Name, moment: Moment, z: Zoom, x: TileNumber, y: TileNumber, version: Version = None
    ) -> Response:
        """An acquisition: true colour, or radar in decibels; masked pixels are hatched."""
        zxy = _tile(z, x, y)

        def draw(area: Opened) -> bytes:
            return image_tile(area, area.image_pyramid(stream, moment), zxy)

        return await answer(request, "image/webp", version, draw)

    return router


def _tile(z: int, x: int, y: int) -> tuple[int, int, int]:
    if x >= 2**z or y >= 2**z:
        raise HTTPException(404, f"no tile {x}, {y} at zoom {z}; both are 0 to {2**z - 1}")
    return z, x, y
