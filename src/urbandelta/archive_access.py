"""How archives are reached: a transport for each, signing what it reads by the archive's own rule.

Secrets come from the environment (or the AWS library's own profile), are used in requests only, and are never part of
a message, a log line or anything stored.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from urbandelta.errors import FetchError
from urbandelta.s3_links import S3Links
from urbandelta.sources.archives import Archive, Collection
from urbandelta.sources.item_facts import without_query
from urbandelta.sources.stac import Opener
from urbandelta.transport import SignedUrl, Signer, Transport, TransportOptions

PATIENCE = TransportOptions()
"""How patiently archives are asked."""

_MARGIN = timedelta(minutes=2)
_KEY_VARIABLE, _KEY_HEADER = "PC_SDK_SUBSCRIPTION_KEY", "Ocp-Apim-Subscription-Key"
_TOKEN_HOSTS = (".blob.core.windows.net",)


def transport_for(
    archive: Archive, collection: Collection | None = None, *, ranges: Executor | None = None
) -> Transport:
    """A transport that signs what it reads of an archive's collection; without one, for the catalogue itself."""
    return Transport(PATIENCE, sign=None if collection is None else signer_for(archive, collection), ranges=ranges)


def opener_for(archive: Archive, collection: Collection, *, ranges: Executor | None = None) -> Opener:
    """Opens bands of files of a collection by their address; asks for them with the threads `ranges`, if given."""
    from urbandelta.sources.remote import RemoteRaster

    transport = transport_for(archive, collection, ranges=ranges)
    return lambda href, band: RemoteRaster.open(transport, href, band=band)


def reach(archive: Archive, *, seconds: float) -> str:
    """Title of an archive's catalogue, asked once; raises `FetchError` if it does not answer in time."""
    from urbandelta.sources.catalogue import read_json

    options = replace(PATIENCE, connect_seconds=seconds, read_seconds=seconds, tries=1)
    document = read_json(archive.url, Transport(options))
    return str(document.get("title") or document.get("id") or document.get("description") or archive.title)[:100]


def signer_for(archive: Archive, collection: Collection) -> Signer | None:
    """What signs addresses of a collection; None if they are open."""
    if archive.signing == "planetary-computer":
        key = os.environ.get(_KEY_VARIABLE)
        headers = {_KEY_HEADER: key} if key else {}
        transport = Transport(PATIENCE, sign=(lambda href: SignedUrl(href, headers)) if headers else None)
        token_url = urljoin(archive.url.rstrip("/") + "/", archive.token_path.format(collection=collection.id))
        return TokenSigner(token_url, transport.get, home=urlsplit(archive.url).netloc)
    if archive.signing == "s3":
        return S3Signer(archive)
    return None


class TokenSigner:
    """Signs addresses with a token that an archive hands out for a collection (Planetary Computer).

    One token serves all files of the collection until it runs out. Being asked again for an address that this very
    token signed means that it was refused: then a new one is asked for. Addresses of other hosts are left as they are.
    """

    def __init__(self, token_url: str, get: Callable[[str], bytes], *, home: str) -> None:
        self._token_url, self._get, self._home = token_url, get, home
        self._lock = threading.Lock()
        self._token = ""
        self._expires: datetime | None = None
        self._given: set[str] = set()

    def __call__(self, href: str) -> SignedUrl:
        """The address with a token that is good for now."""
        parts = urlsplit(href)
        if parts.netloc != self._home and not parts.netloc.endswith(_TOKEN_HOSTS):
            return SignedUrl(href)
        with self._lock:
            over = self._expires is not None and self._expires <= datetime.now(UTC) + _MARGIN
            if not self._token or over or href in self._given:
                self._token, self._expires = self._fresh()
                self._given.clear()
            self._given.add(href)
            token, expires = self._token, self._expires
        query = "&".join(filter(None, (parts.query, token)))
        return SignedUrl(urlunsplit(parts._replace(query=query)), {}, None if expires is None else expires - _MARGIN)

    def _fresh(self) -> tuple[str, datetime | None]:
        try:
            answer = json.loads(self._get(self._token_url))
            expires = answer.get("msft:expiry")
            return str(answer["token"]), None if expires is None else _utc(str(expires))
        except (ValueError, KeyError, TypeError, AttributeError):
            # Without the cause, which may quote the answer.
            raise FetchError(f"{without_query(self._token_url)}: gives no token; try again later") from None


class S3Signer:
    """Turns s3:// addresses into links signed by the environment's credentials; leaves others alone.

    Endpoint and region are the archive's, unless `AWS_ENDPOINT_URL` names another.
    """

    def __init__(self, archive: Archive) -> None:
        self._links = S3Links(requester_pays=archive.requester_pays, client=functools.partial(_s3_client, archive))

    def __call__(self, href: str) -> SignedUrl:
        """The address over HTTPS, signed for a while."""
        if urlsplit(href).scheme != "s3":
            return SignedUrl(href)
        link, headers, ends = self._links.link(href)
        return SignedUrl(link, headers, ends - _MARGIN)


def _s3_client(archive: Archive) -> Any:
    import boto3
    import botocore
    from botocore.config import Config

    public = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1")
    region = archive.s3_region or None
    return boto3.client(
        "s3",
        region_name=region,
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL") or archive.s3_endpoint.format(region=region) or None,
        config=Config(signature_version=botocore.UNSIGNED if public else "s3v4", s3={"addressing_style": "path"}),
    )


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
