"""How archives are reached: a transport for each, signing what it reads by the archive's own rule.

Secrets come from the environment (or the AWS library's own profile), are used in requests only, and are never part of
a message, a log line or anything stored.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from urbandelta.errors import ConfigError, FetchError
from urbandelta.sources.archives import Archive, Collection
from urbandelta.sources.item_facts import without_query
from urbandelta.sources.stac import Opener
from urbandelta.transport import SignedUrl, Signer, Transport, TransportOptions

PATIENCE = TransportOptions()
"""How patiently archives are asked."""

_MARGIN = timedelta(minutes=2)
_PRESIGNED = timedelta(minutes=15)
_KEY_VARIABLE, _KEY_HEADER = "PC_SDK_SUBSCRIPTION_KEY", "Ocp-Apim-Subscription-Key"
_TOKEN_HOSTS = (".blob.core.windows.net",)


class _HideQueries(logging.Filter):
    """Takes queries out of what urllib3 logs of its requests: signatures are part of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        if isinstance(record.args, tuple):
            record.args = tuple(value.partition("?")[0] if isinstance(value, str) else value for value in record.args)
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_HideQueries())


def transport_for(archive: Archive, collection: Collection | None = None) -> Transport:
    """A transport that signs what it reads of an archive's collection; without one, for the catalogue itself."""
    return Transport(PATIENCE, sign=None if collection is None else signer_for(archive, collection))


def opener_for(archive: Archive, collection: Collection) -> Opener:
    """Opens bands of files of a collection by their address."""
    from urbandelta.sources.remote import RemoteRaster

    transport = transport_for(archive, collection)
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
    """Presigns s3:// addresses with the credentials of the environment or the AWS profile; leaves others alone."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    def __call__(self, href: str) -> SignedUrl:
        """The address over HTTPS, signed for a quarter of an hour."""
        parts = urlsplit(href)
        if parts.scheme != "s3":
            return SignedUrl(href)
        parameters = {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}
        if self._archive.requester_pays:
            parameters["RequestPayer"] = "requester"
        import botocore.exceptions

        try:
            url = self._client().generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=int(_PRESIGNED.total_seconds())
            )
        except botocore.exceptions.BotoCoreError as error:
            raise FetchError(
                f"{without_query(href)}: cannot be signed ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY for {self._archive.title}"
            ) from None
        return SignedUrl(str(url), {}, datetime.now(UTC) + _PRESIGNED - _MARGIN)

    def _client(self) -> Any:
        with self._lock:
            if "s3" not in self._clients:
                try:
                    import boto3
                    from botocore.config import Config
                except ModuleNotFoundError:
                    raise ConfigError(
                        f"{self._archive.title} is read by S3; pip install 'urbandelta[s3]', or choose another archive"
                    ) from None
                region = self._archive.s3_region
                self._clients["s3"] = boto3.client(
                    "s3",
                    region_name=region or None,
                    endpoint_url=self._archive.s3_endpoint.format(region=region) or None,
                    config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
                )
            return self._clients["s3"]


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
