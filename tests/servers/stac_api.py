"""A STAC API for tests: stac-fastapi with the items of a test in memory, served by uvicorn on the loopback.

It serves the items' files as well, with range requests, and can fail on purpose (`Contents.fault`).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import attr
import shapely
import uvicorn
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_request_model
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from stac_fastapi.types.rfc3339 import str_to_interval
from stac_fastapi.types.search import BaseSearchGetRequest, BaseSearchPostRequest
from starlette.staticfiles import StaticFiles

Item = dict[str, Any]
Fault = Callable[[str, int], str]
"""What goes wrong with a request, by path and how often it was asked before: "", 429, 500, cut, short, hang, 403."""


@dataclass
class Contents:
    """Items by collection; tests add and change them while the server runs."""

    items: list[Item] = field(default_factory=list)
    page: int | None = None
    """Most items of a page, whatever the client asks for."""
    searches: int = 0
    folder: Path | None = None
    """Files to serve under `/files`."""
    fault: Fault | None = None
    pause: Callable[[int], float] | None = None
    """Seconds to wait before a body of so many bytes, as if the server were far away."""
    token: str | None = None
    """What `?sig=` must be to read a file; the token endpoint hands it out."""
    tokens_given: int = 0
    prefix: str = ""
    """Path that the API lies under, beside its root."""
    asked: dict[str, int] = field(default_factory=dict)

    def matching(self, collections: Any, bbox: Any, datetime_text: Any) -> list[Item]:
        low, high = _interval(datetime_text)
        box = shapely.box(*bbox) if bbox else None
        return [
            item
            for item in sorted(self.items, key=lambda item: item["id"], reverse=True)
            if (not collections or item["collection"] in collections)
            and (box is None or shapely.geometry.shape(item["geometry"]).intersects(box))
            and low <= _moment(item) <= high
        ]


@attr.s
class MemoryClient(BaseCoreClient):
    """The few queries that a client of this project makes; newest items first, as archives answer."""

    contents: Contents = attr.ib(factory=Contents)

    def get_search(self, collections=None, ids=None, bbox=None, intersects=None, datetime=None, limit=10, **kwargs):
        request = kwargs["request"]
        self.contents.searches += 1
        query = dict(parse_qsl(urlsplit(str(request.url)).query))
        first = int(query.get("token") or 0)
        limit = min(limit or 10, self.contents.page or 10_000)
        found = self.contents.matching(collections, bbox, datetime)
        page = found[first : first + limit]
        links = [{"rel": "self", "type": "application/geo+json", "href": str(request.url)}]
        if first + limit < len(found):
            onwards = urlencode({**query, "token": first + limit})
            href = f"{str(request.base_url).rstrip('/')}/search?{onwards}"
            links.append({"rel": "next", "type": "application/geo+json", "method": "GET", "href": href})
        return {"type": "FeatureCollection", "features": page, "links": links, "numberMatched": len(found)}

    def post_search(self, search_request, **kwargs):
        raise NotImplementedError

    def get_item(self, item_id, collection_id, **kwargs):
        for item in self.contents.items:
            if (item["id"], item["collection"]) == (item_id, collection_id):
                return item
        raise NotFoundError(item_id)

    def all_collections(self, **kwargs):
        names = sorted({item["collection"] for item in self.contents.items})
        return {"collections": [_collection(name) for name in names], "links": []}

    def get_collection(self, collection_id, **kwargs):
        return _collection(collection_id)

    def item_collection(self, collection_id, bbox=None, datetime=None, limit=10, token=None, **kwargs):
        found = self.contents.matching([collection_id], bbox, datetime)
        return {"type": "FeatureCollection", "features": found[:limit], "links": []}


@dataclass
class StacServer:
    """Where it answers, and what it holds."""

    url: str
    contents: Contents


@contextmanager
def stac_server(contents: Contents | None = None) -> Iterator[StacServer]:
    """Serve until the block ends."""
    contents = contents or Contents()
    settings = ApiSettings(
        stac_fastapi_title="tests",
        stac_fastapi_description="tests",
        stac_fastapi_landing_id="tests",
        stac_fastapi_version="1",
        _env_file=None,
    )
    api = StacApi(
        settings=settings,
        client=MemoryClient(contents=contents),
        extensions=[],
        search_get_request_model=create_request_model("SearchGet", base_model=BaseSearchGetRequest, request_type="GET"),
        search_post_request_model=BaseSearchPostRequest,
    )
    if contents.folder is not None:
        api.app.mount("/files", StaticFiles(directory=contents.folder))
    application = Faulty(api.app, contents)
    server = uvicorn.Server(
        uvicorn.Config(application, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            if not thread.is_alive():
                raise RuntimeError("the STAC API did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield StacServer(f"http://127.0.0.1:{port}", contents)
    finally:
        server.should_exit = True
        thread.join(10)


class Faulty:
    """Lets requests through, or makes them go wrong as `Contents.fault` says."""

    def __init__(self, application: Any, contents: Contents) -> None:
        self._application, self._contents = application, contents

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode()))
        if path.startswith("/api/sas/v1/token/"):
            await self._hand_out(send)
            return
        contents = self._contents
        if contents.prefix and path.startswith(contents.prefix):
            path = path.removeprefix(contents.prefix) or "/"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        count = contents.asked.get(path, 0)
        contents.asked[path] = count + 1
        fault = contents.fault(path, count) if contents.fault is not None else ""
        if path.startswith("/files/") and contents.token is not None and query.get("sig") != contents.token:
            fault = "403"
        if fault.isdigit():
            await _answer(send, int(fault), b"no", [(b"retry-after", b"0")])
        elif fault == "hang":
            await asyncio.sleep(30)
        else:
            if contents.pause is not None:
                send = _slowly(send, contents.pause)
            await self._application(scope, receive, _spoiling(send, fault) if fault else send)

    async def _hand_out(self, send: Any) -> None:
        self._contents.tokens_given += 1
        expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        body = json.dumps({"token": f"sig={self._contents.token}", "msft:expiry": expiry}).encode()
        await _answer(send, 200, body, [(b"content-type", b"application/json")])


async def _answer(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


def _slowly(send: Any, pause: Callable[[int], float]) -> Any:
    async def wait(message: Any) -> None:
        if message["type"] == "http.response.start":
            length = next((value for name, value in message["headers"] if name.lower() == b"content-length"), b"0")
            await asyncio.sleep(pause(int(length)))
        await send(message)

    return wait


def _spoiling(send: Any, fault: str) -> Any:
    """`cut`: the connection ends in the midst of the body; `short`: a whole answer with fewer bytes than asked for."""
    held: list[Any] = []

    async def spoil(message: Any) -> None:
        if message["type"] == "http.response.start":
            held.append(message)
            return
        if held:
            start, body = held.pop(), message.get("body", b"")
            half = body[: len(body) // 2]
            if fault == "short":
                headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
                start = {**start, "headers": [*headers, (b"content-length", str(len(half)).encode())]}
            await send(start)
            await send({"type": "http.response.body", "body": half, "more_body": False})

    return spoil


def _collection(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "id": name,
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "description": name,
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }


def _interval(value: Any) -> tuple[datetime, datetime]:
    interval = str_to_interval(value) if isinstance(value, str) else value
    if interval is None:
        return _moment_of("1900-01-01T00:00:00Z"), _moment_of("2200-01-01T00:00:00Z")
    low, high = interval if isinstance(interval, tuple) else (interval, interval)
    return low or _moment_of("1900-01-01T00:00:00Z"), high or _moment_of("2200-01-01T00:00:00Z")


def _moment(item: Item) -> datetime:
    return _moment_of(item["properties"]["datetime"])


def _moment_of(text: str) -> datetime:
    return datetime.fromisoformat(text)
