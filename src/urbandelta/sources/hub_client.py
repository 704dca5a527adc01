"""Talks to a Sentinel Hub deployment: who we are, a token, and requests that are made again where that can help.

Client id and secret come from the environment (SH_CLIENT_ID, SH_CLIENT_SECRET) or from the library's own profile, are
sent to the token endpoint only, and are in no message, log line or `repr`. A monitor file can name a deployment, but
not send secrets to a host of its choice: foreign hosts must be named by the environment or profile as well.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

import urllib3

from urbandelta.errors import ConfigError, FetchError

log = logging.getLogger(__name__)

ID_VARIABLE, SECRET_VARIABLE = "SH_CLIENT_ID", "SH_CLIENT_SECRET"
BASE_VARIABLE, TOKEN_VARIABLE = "SH_BASE_URL", "SH_TOKEN_URL"

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
_OWN_HOSTS = (".sentinel-hub.com", ".dataspace.copernicus.eu")
_EXPIRY_MARGIN_SECONDS = 60.0
_LARGEST_BYTES = 512 * 2**20
_QUOTED = 300

Accept: TypeAlias = Callable[[bytes], Any]
"""Turns a body into what was asked for; raises `ValueError` if it is damaged, and then it is asked for again."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A deployment: where it answers, where tokens are, and whether its Sentinel-2 has a cloud mask."""

    name: str
    title: str
    base_url: str
    token_url: str
    has_cloud_mask: bool


ENDPOINTS: Mapping[str, Endpoint] = {
    "sentinel-hub": Endpoint(
        name="sentinel-hub",
        title="Sentinel Hub",
        base_url="https://services.sentinel-hub.com",
        token_url="https://services.sentinel-hub.com/auth/realms/main/protocol/openid-connect/token",
        has_cloud_mask=True,
    ),
    "cdse": Endpoint(
        name="cdse",
        title="Copernicus Data Space Ecosystem",
        base_url="https://sh.dataspace.copernicus.eu",
        token_url="https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token",
        # CLM is made by Sentinel Hub's own deployment only.
        has_cloud_mask=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where to ask, and with which credentials; only the addresses are shown."""

    base_url: str
    token_url: str
    client_id: str = field(repr=False)
    client_secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long to try. Pauses double from `pause_seconds`; `Retry-After` is waited for besides."""

    tries: int = 6
    pause_seconds: float = 1.0
    longest_pause: float = 60.0
    longest_wait: float = 300.0
    connect_seconds: float = 10.0
    read_seconds: float = 180.0
    sleep: Callable[[float], None] = time.sleep


def find_access(endpoint: str, *, url: str | None = None, environment: Mapping[str, str] | None = None) -> Access:
    """Addresses and credentials for an endpoint.

    Parameters
    ----------
    endpoint : str
        Row of `ENDPOINTS`.
    url : str, optional
        Base address of another deployment.
    environment : mapping, optional
        By default the process's.

    Raises
    ------
    ConfigError
        If credentials are missing, or `url` is a foreign host that neither environment nor profile names.
    """
    known = os.environ if environment is None else environment
    row = ENDPOINTS[endpoint]
    profile = _profile(known)
    client_id = known.get(ID_VARIABLE) or profile.get("sh_client_id", "")
    client_secret = known.get(SECRET_VARIABLE) or profile.get("sh_client_secret", "")
    if not (client_id and client_secret):
        raise ConfigError(
            f"source.kind: sentinelhub: no credentials for {row.title}; set {ID_VARIABLE} and {SECRET_VARIABLE}, or "
            "store them with `sentinelhub.config` in the library's own profile"
        )
    if url is None:
        return Access(base_url=row.base_url, token_url=row.token_url, client_id=client_id, client_secret=client_secret)
    base_url = url.rstrip("/")
    return Access(
        base_url=base_url,
        token_url=_token_url(base_url, row, known, profile),
        client_id=client_id,
        client_secret=client_secret,
    )


class HubClient:
    """Asks one deployment; safe to share between threads, which share its token."""

    def __init__(self, access: Access, patience: Patience | None = None) -> None:
        self.access = access
        self.patience = patience or Patience()
        self._lock = threading.Lock()
        self._token = ""
        self._expires = 0.0
        self._pool = urllib3.PoolManager(
            maxsize=8,
            retries=False,
            timeout=urllib3.Timeout(connect=self.patience.connect_seconds, read=self.patience.read_seconds),
            headers={"User-Agent": "urbandelta"},
        )

    def post(self, path: str, document: Mapping[str, Any], *, accept: Accept, mime: str = "application/json") -> Any:
        """Send a JSON document and return what `accept` makes of the answer.

        Raises
        ------
        FetchError
            After all tries, or at once where another try cannot help; names the address and the server's reason.
        """
        where = f"{self.access.base_url}{path}"
        body = json.dumps(document).encode()
        refused = ""

        def once() -> Any:
            nonlocal refused
            token = self._valid_token(refused=refused)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": mime}
            status, answer, wait = self._send(where, body, headers)
            if status in (401, 403) and not refused:
                refused = token
                raise _AgainError(f"refused the token ({status})", wait=0.0)
            if status in _AGAIN:
                raise _AgainError(f"answered {status}", wait=wait)
            if status != 200:
                raise FetchError(f"{where}: answered {status}: {_reason(answer)}")
            try:
                return accept(answer)
            except ValueError as error:
                raise _AgainError(f"sent something else than was asked for ({error})") from error

        return self._patiently(where, once)

    def authenticate(self) -> None:
        """Get a token, if there is none; raises `ConfigError` where the credentials are refused, `FetchError` else."""
        self._valid_token()

    def search(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All features of a catalogue search, page by page; raises `FetchError`."""
        found: list[dict[str, Any]] = []
        asked: dict[str, Any] = dict(document)
        while True:
            page = self.post("/api/v1/catalog/1.0.0/search", asked, accept=_feature_collection)
            found += page["features"]
            following = page.get("context", {}).get("next")
            if following is None or not page["features"]:
                return found
            if following == asked.get("next"):
                raise FetchError(f"{self.access.base_url}: its catalogue gives the same page again and again")
            asked["next"] = following

    def _valid_token(self, *, refused: str = "") -> str:
        with self._lock:
            # Another thread may have renewed the token that was refused.
            if self._token and self._token != refused and time.monotonic() < self._expires:
                return self._token
            self._token, seconds = self._patiently(self.access.token_url, self._ask_token)
            self._expires = time.monotonic() + max(seconds - _EXPIRY_MARGIN_SECONDS, seconds / 2)
            return self._token

    def _ask_token(self) -> tuple[str, float]:
        where = self.access.token_url
        form = {
            "grant_type": "client_credentials",
            "client_id": self.access.client_id,
            "client_secret": self.access.client_secret,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        status, answer, wait = self._send(where, urlencode(form).encode(), headers)
        if status in _AGAIN:
            raise _AgainError(f"answered {status}", wait=wait)
        if status != 200:
            # The server's own words may repeat what it was sent.
            raise ConfigError(f"{where}: refuses the credentials ({status}); check {ID_VARIABLE} and {SECRET_VARIABLE}")
        try:
            document = json.loads(answer)
            return str(document["access_token"]), float(document.get("expires_in", 600))
        except (ValueError, KeyError, TypeError):
            raise _AgainError("sent no token") from None

    def _send(self, where: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, float | None]:
        try:
            # A redirect would carry secrets elsewhere; the addresses are exact.
            response = self._pool.request(
                "POST", where, body=body, headers=dict(headers), redirect=False, preload_content=False
            )
            try:
                answer = response.read(_LARGEST_BYTES + 1)
                wait = _retry_after(response.headers.get("Retry-After"))
            finally:
                response.close()  # what is left of a body must not be taken for the next answer
        except urllib3.exceptions.LocationParseError:
            raise FetchError(f"{where}: is no address") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _AgainError(f"the connection breaks or hangs ({type(error).__name__})") from None
        if len(answer) > _LARGEST_BYTES:
            raise FetchError(f"{where}: answers more than {_LARGEST_BYTES} bytes")
        return response.status, answer, wait

    def _patiently(self, where: str, once: Callable[[], Any]) -> Any:
        patience = self.patience
        pause, cause = patience.pause_seconds, ""
        for attempt in range(1, patience.tries + 1):
            try:
                return once()
            except _AgainError as problem:
                cause = problem.cause
                wait = problem.wait
            if attempt < patience.tries:
                # Sentinel Hub gives Retry-After in milliseconds, gateways before it in seconds: never less than ours.
                seconds = 0.0 if wait == 0 else min(max(pause, wait or 0.0), patience.longest_wait)
                log.info("%s: %s; try %d in %.1f s", where, cause, attempt + 1, seconds)
                patience.sleep(seconds * (1 + random.random() / 4))
                pause = min(2 * pause, patience.longest_pause)
        raise FetchError(f"{where}: {cause}, {patience.tries} times; run the same command again later")


class _AgainError(Exception):
    """A request that may succeed when it is made again."""

    def __init__(self, cause: str, *, wait: float | None = None) -> None:
        super().__init__(cause)
        self.cause, self.wait = cause, wait


def _feature_collection(body: bytes) -> dict[str, Any]:
    document = json.loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("features"), list):
        raise ValueError("no FeatureCollection")
    return document


def _retry_after(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) / 1000 if text is not None else None
    except ValueError:
        return None


def _reason(answer: bytes) -> str:
    """The server's reason in one line; it saw a token, but no reason repeats headers."""
    try:
        error = json.loads(answer)["error"]
        text = f"{error.get('message', '')} {json.dumps(error.get('errors', ''))}"
    except (ValueError, KeyError, TypeError, AttributeError):
        text = answer.decode(errors="replace")
    return " ".join(text.split())[:_QUOTED] or "no reason given"


def _token_url(base_url: str, row: Endpoint, known: Mapping[str, str], profile: Mapping[str, str]) -> str:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    given = known.get(TOKEN_VARIABLE) or (profile.get("sh_token_url", "") if profile.get("sh_base_url") else "")
    named = {known.get(BASE_VARIABLE, "").rstrip("/"), profile.get("sh_base_url", "").rstrip("/")}
    if host in _LOOPBACK or (parts.scheme == "https" and base_url in named):
        return given or f"{base_url}/auth/realms/main/protocol/openid-connect/token"
    if parts.scheme == "https" and f".{host}".endswith(_OWN_HOSTS):
        return row.token_url
    raise ConfigError(
        f"source.url: {parts.scheme}://{host} is no deployment of Sentinel Hub that is known; to send your credentials "
        f"there, set {BASE_VARIABLE} to the same https address, and {TOKEN_VARIABLE} if tokens are elsewhere"
    )


def _profile(known: Mapping[str, str]) -> dict[str, str]:
    """The library's profile, if it has one; looking creates none."""
    if known.get(ID_VARIABLE) and known.get(SECRET_VARIABLE) and not known.get("SH_PROFILE"):
        return {}
    try:
        from sentinelhub.config import SHConfig
    except ImportError as error:
        raise ConfigError(f"source.kind: sentinelhub needs pip install 'urbandelta[sentinelhub]' ({error})") from error
    if not Path(SHConfig.get_config_location()).exists():
        return {}
    try:
        loaded = SHConfig.load(known.get("SH_PROFILE") or "default-profile")
    except (KeyError, ValueError, OSError) as error:
        # The library's message may quote the file.
        raise ConfigError(f"the sentinelhub library's profile cannot be read ({type(error).__name__})") from None
    plain = SHConfig(use_defaults=True)
    names = ("sh_client_id", "sh_client_secret", "sh_base_url", "sh_token_url")
    return {name: str(getattr(loaded, name)) for name in names if getattr(loaded, name) != getattr(plain, name)}
