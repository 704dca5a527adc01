"""How archives are reached: a transport for each, signing what it reads by the archive's own rule."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

from urbandelta.errors import FetchError
from urbandelta.sources.archives import Archive, Collection
from urbandelta.sources.item_facts import without_query
from urbandelta.sources.stac import Opener

_MARGIN = timedelta(minutes=2)
_KEY_HEADER = "Ocp-Apim-Subscription-Key"


class TokenSigner:
    """Signs addresses with a token that an archive hands out for a collection (Planetary Computer).

    One token serves all files of the collection until it runs out. Asking again for an address that this very token
    signed means that the archive refused it: then a new token is asked for.
    """

    def __init__(self, token_url: str, get: Callable[[str], bytes]) -> None:
        self._token_url = token_url
        self._get = get
        self._lock = threading.Lock()
        self._token = ""
        self._expires: datetime | None = None

    def token(self, *, refused: str = "") -> tuple[str, datetime | None]:
        """A token that is good for now and is not the one that was refused, and when it ends."""
        with self._lock:
            soon = datetime.now(UTC) + _MARGIN
            if not self._token or self._token == refused or (self._expires is not None and self._expires <= soon):
                self._token, self._expires = self._fresh()
            return self._token, self._expires

    def _fresh(self) -> tuple[str, datetime | None]:
        where = without_query(self._token_url)
        try:
            answer = json.loads(self._get(self._token_url))
            token, expires = str(answer["token"]), answer.get("msft:expiry")
            return token, None if expires is None else datetime.fromisoformat(expires)
        except (ValueError, KeyError, TypeError):
            # Without the cause: it may quote the answer, which is a secret.
            raise FetchError(f"{where}: answers without a token; try again later") from None


def transport_for(archive: Archive, collection: Collection | None = None) -> Transport:
    """A transport that signs what it reads of an archive's collection; for the catalogue itself leave it out."""
    from urbandelta.transport import SignedUrl, Transport

    if collection is None or archive.signing == "none":
        return Transport()
    return Transport()


def opener_for(archive: Archive, collection: Collection) -> Opener:
    """Opens bands of files of a collection by their address."""
    from urbandelta.sources.remote import RemoteRaster

    transport = transport_for(archive, collection)
    return lambda href, band: RemoteRaster.open(transport, href, band=band)
