"""Items of a STAC API or of a static catalogue, page by page, through the same retries as pixels.

An API is asked with GET alone: each page has an address, so a page that fails is simply asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import numpy as np
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from urbandelta.errors import FetchError
from urbandelta.sources.item_facts import without_query


class Getter(Protocol):
    """What this module needs of a transport."""

    def get(self, href: str) -> bytes:
        """The whole resource, after retries; raises `FetchError`."""


class Query(NamedTuple):
    """Collection, box (west, south, east, north) and period, half-open, that items must touch."""

    collection: str
    bbox: tuple[float, float, float, float]
    start: np.datetime64
    end: np.datetime64


def find_items(
    url: str, query: Query, transport: Getter, *, page_size: int = 100
) -> Iterator[tuple[dict[str, Any], str]]:
    """Items that a catalogue has for a query, each with the address that it was read from ("" for an API's).

    A static catalogue is walked, whatever its size; items are the caller's to filter by place and time.

    Raises
    ------
    FetchError
        If the catalogue does not answer, is none, or pages in circles.
    """
    root = read_json(url, transport)
    if any(link.get("rel") == "search" for link in _links(root)):
        yield from ((item, "") for item in _search(url, query, transport, page_size))
    else:
        yield from _walk(url, root, query.collection, transport)


def read_json(url: str, transport: Getter) -> dict[str, Any]:
    """A JSON object by address; raises `FetchError`."""
    try:
        document = json.loads(transport.get(url))
    except ValueError as error:
        raise FetchError(
            f"{without_query(url)}: answers with something else than JSON ({error}); is the address right?"
        ) from error
    if not isinstance(document, dict):
        raise FetchError(f"{without_query(url)}: answers with a list, not with a STAC object; is the address right?")
    return document


class _TransportIO(StacApiIO):
    """pystac-client's requests through our transport."""

    def __init__(self, transport: Getter) -> None:
        super().__init__(max_retries=None)
        self._transport = transport

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        if (method or "GET").upper() != "GET" or headers:
            raise FetchError(
                f"{without_query(href)}: pages by {method} with headers, which is not read; use another API"
            )
        parts = urlsplit(href)
        pairs = [(name, _text(value)) for name, value in (parameters or {}).items() if value is not None]
        query = "&".join(filter(None, (parts.query, urlencode(pairs))))
        return self._transport.get(urlunsplit(parts._replace(query=query))).decode()


def _search(url: str, query: Query, transport: Getter, page_size: int) -> Iterator[dict[str, Any]]:
    where = without_query(url)
    try:
        search = Client.open(url, stac_io=_TransportIO(transport)).search(
            method="GET",
            collections=[query.collection],
            bbox=list(query.bbox),
            datetime="/".join(f"{np.datetime_as_string(moment, 's')}Z" for moment in (query.start, query.end)),
            limit=page_size,
        )
        seen: set[str] = set()
        for page in search.pages_as_dicts():
            fresh = [item for item in page.get("features", []) if str(item.get("id")) not in seen]
            if not fresh:
                raise FetchError(f"{where}: gives the same page of {query.collection} again and again; try it later")
            seen |= {str(item.get("id")) for item in fresh}
            yield from fresh
    except (APIError, NotImplementedError, ValueError, KeyError) as error:
        raise FetchError(f"{where}: cannot be searched ({_first_line(error)}); is it a STAC API?") from error


def _walk(
    url: str, root: Mapping[str, Any], collection: str, transport: Getter
) -> Iterator[tuple[dict[str, Any], str]]:
    waiting: list[tuple[str, Mapping[str, Any] | None]] = [(url, root)]
    visited = {url}
    while waiting:
        href, known = waiting.pop()
        document = dict(known) if known is not None else read_json(href, transport)
        kind = document.get("type")
        if kind == "FeatureCollection":
            yield from ((item, href) for item in document.get("features", []) if _of(item, collection))
        elif kind == "Feature":
            if _of(document, collection):
                yield document, href
        elif kind == "Collection" and document.get("id") not in (collection, None):
            continue
        elif kind in ("Catalog", "Collection"):
            children = [
                urljoin(href, str(link.get("href", "")))
                for link in _links(document)
                if link.get("rel") in ("child", "item", "items")
            ]
            for child in reversed(children):
                if child not in visited:
                    visited.add(child)
                    waiting.append((child, None))
        else:
            raise FetchError(f"{without_query(href)}: is no STAC catalogue, collection or item; is the address right?")


def _links(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [link for link in document.get("links", []) if isinstance(link, Mapping)]


def _of(item: Mapping[str, Any], collection: str) -> bool:
    return item.get("collection") in (None, collection)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
