"""The application: routes, errors, static files, and what guards them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from urbandelta import __version__
from urbandelta.errors import UrbandeltaError
from urbandelta.web.api_routes import api_router
from urbandelta.web.download_routes import download_router
from urbandelta.web.models import Problem
from urbandelta.web.opened import SCRATCH_BYTES, Holder, NothingThere
from urbandelta.web.preparing import prepare
from urbandelta.web.security import Guard
from urbandelta.web.source import WebSource
from urbandelta.web.tile_routes import tile_router
from urbandelta.web.workers import Workers

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
TILE_THREADS = 4
DATA_THREADS = 2
FILE_THREADS = 1


def create_app(source: WebSource, *, allowed_hosts: Iterable[str] = (), scratch_bytes: int = SCRATCH_BYTES) -> FastAPI:
    """The web application of one area.

    Parameters
    ----------
    source : WebSource
        From `find_source`. Nothing of it is ever written.
    allowed_hosts : iterable of str
        Names, beside `localhost` and literal addresses, that the server answers to.

    scratch_bytes : int
        Most bytes of the temporary file of what is made from a score store without rasters; 0 for none.

    Raises
    ------
    StoreError
        If a store cannot be opened.
    """
    holder = Holder(source, scratch_bytes=scratch_bytes)
    tiles = Workers(TILE_THREADS, name="tiles")

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        preparing = asyncio.create_task(prepare(holder, tiles))
        yield
        holder.close()
        preparing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await preparing

    app = FastAPI(
        lifespan=lifespan,
        title="urbandelta",
        version=__version__,
        description="Urban change of one area: scores, events, images, and each pixel's history. Read-only.",
        # The usual pages for these load their scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses={400: {"model": Problem}, 421: {"model": Problem}},
    )
    app.include_router(api_router(holder, Workers(DATA_THREADS, name="data")))
    app.include_router(tile_router(holder, tiles))
    app.include_router(download_router(holder, Workers(FILE_THREADS, name="files")))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(NothingThere, _missing)
    app.add_exception_handler(UrbandeltaError, _unavailable)
    app.add_middleware(Guard, allowed_hosts=tuple(allowed_hosts))
    return app


async def _unfit(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [f"{'.'.join(str(step) for step in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
    return JSONResponse({"detail": "; ".join(parts)[:1000]}, status_code=422)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": str(error.detail)}, status_code=error.status_code, headers=error.headers)


async def _missing(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=404)


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    # A store that an update is replacing right now, or a damaged file: the next look may find it whole.
    log.warning("%s", error)
    return JSONResponse(
        {"detail": f"the data cannot be read now: {error}"[:1000]}, status_code=503, headers={"Retry-After": "5"}
    )
