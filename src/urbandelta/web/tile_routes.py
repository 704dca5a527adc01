"""Routes that answer with tiles."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from urbandelta.web.cache import ByteCache
from urbandelta.web.drawing import ColourMap, colour_webp, empty_png, empty_webp, indexed_png
from urbandelta.web.mercator import TilePixels
from urbandelta.web.models import Problem
from urbandelta.web.opened import Holder, Opened
from urbandelta.web.parameters import Colours, Fade, Moment, MonthLabel, Name, TileNumber, Version, Zoom
from urbandelta.web.pyramids import Pyramid, sample
from urbandelta.web.workers import Workers

TILE_BYTES = 32 * 2**20
_FOREVER = "private, max-age=86400, immutable"


def _answers(kind: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}}}
    problem = {"model": Problem}
    return {200: {"content": content, "description": "A tile of 256 x 256 pixels"}, 404: problem, 422: problem}


def tile_router(holder: Holder, workers: Workers) -> APIRouter:
    """Routes of tiles in Web Mercator, numbered as z/x/y from the north-west."""
    router = APIRouter(prefix="/tiles", tags=["tiles"])
    tiles: ByteCache[bytes] = ByteCache(TILE_BYTES, len)

    def index_tile(
        area: Opened,
        pyramid: Pyramid,
        zxy: tuple[int, int, int],
        colours: ColourMap,
        fade: bool,
        *,
        show_unknown: bool = True,
    ) -> bytes:
        def make() -> bytes:
            where = _pixels(area, zxy)
            if where is None:
                return empty_png()
            return indexed_png(sample(pyramid, holder.bricks, where), colours, fade, show_unknown=show_unknown)

        return tiles.get((pyramid.key, zxy, colours, fade), make)

    def month_tile(month: str, zxy: tuple[int, int, int], colours: ColourMap, fade: bool) -> tuple[bytes, Opened]:
        area = holder.get()
        return index_tile(area, area.month_pyramid(month), zxy, colours, fade), area

    def map_tile(name: str, zxy: tuple[int, int, int], colours: ColourMap, fade: bool) -> tuple[bytes, Opened]:
        area = holder.get()
        found, pyramid = area.overall_pyramid(name)
        # A pixel without a score is worth knowing; one without a date is most of the map.
        score = found.name == "score"
        return index_tile(area, pyramid, zxy, colours, fade and not found.dates, show_unknown=score), area

    def image_tile(stream: str, moment: str, zxy: tuple[int, int, int]) -> tuple[bytes, Opened]:
        area = holder.get()
        pyramid = area.image_pyramid(stream, moment)

        def make() -> bytes:
            where = _pixels(area, zxy)
            if where is None:
                return empty_webp()
            drawn = sample(pyramid, holder.bricks, where)
            return colour_webp(drawn) if drawn.ndim == 3 else empty_webp()

        return tiles.get((pyramid.key, zxy), make), area

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
        content, area = await workers.run(request, month_tile, month, _tile(z, x, y), colours, fade == "yes")
        return _answer(content, "image/png", area, version)

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
        content, area = await workers.run(request, map_tile, name, _tile(z, x, y), colours, fade == "yes")
        return _answer(content, "image/png", area, version)

    @router.get("/image/{stream}/{moment}/{z}/{x}/{y}.webp", response_class=Response, responses=_answers("image/webp"))
    async def image_tiles(
        request: Request, stream: Name, moment: Moment, z: Zoom, x: TileNumber, y: TileNumber, version: Version = None
    ) -> Response:
        """An acquisition: true colour, or radar in decibels; masked pixels are hatched."""
        content, area = await workers.run(request, image_tile, stream, moment, _tile(z, x, y))
        return _answer(content, "image/webp", area, version)

    return router


def _tile(z: int, x: int, y: int) -> tuple[int, int, int]:
    if x >= 2**z or y >= 2**z:
        raise HTTPException(404, f"no tile {x}, {y} at zoom {z}; both are 0 to {2**z - 1}")
    return z, x, y


def _pixels(area: Opened, zxy: tuple[int, int, int]) -> TilePixels | None:
    return area.tiles.pixels(*zxy)


def _answer(content: bytes, kind: str, area: Opened, version: str | None) -> Response:
    # An address that names the version of the data can be kept; without one it must be asked for again.
    keep = _FOREVER if version == area.version else "no-cache"
    return Response(content, media_type=kind, headers={"Cache-Control": keep})
