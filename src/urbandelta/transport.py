"""Bytes at a distance: whole and as asked for, or a `FetchError` that says what could not be had.

A transport asks again where that can help: after hangs, broken connections, 429 and 5xx (as long as `Retry-After`
says), and with a new signature after a refusal. What counts as an answer is `http_answers`' business, what is kept of
a file `range_file`'s. Queries, headers and users of addresses are secrets: they are in no message, log or `repr`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakValueDictionary

import urllib3

from urbandelta.addresses import HideQueries, local_file, shown
from urbandelta.errors import ConfigError, FetchError, UrbandeltaError
from urbandelta.http_answers import Answer, AskAgainError, Asked, Version, plain_cause, read_answer
from urbandelta.range_file import BlockCache, BlockOptions, DistantContents, LocalContents, RangeFile
from urbandelta.s3_links import S3Links

log = logging.getLogger(__name__)

_HEADERS = {"User-Agent": "urbandelta", "Accept-Encoding": "identity"}
_EXPIRY_MARGIN = timedelta(seconds=30)
_MOST_REDIRECTS = 5
_MOST_SIGNATURES = 3
_KEPT_SIGNATURES = 4096
_SPARE_CONNECTIONS = 16  # for requests of callers' own threads, beside those of the transport


@dataclass(frozen=True)
class SignedUrl:
    """An address that may be read, headers to send with it, and when that ends; only the last is shown."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires: datetime | None = None


Signer: TypeAlias = Callable[[str], SignedUrl]
"""Called just before reading, and again after a refusal (401, 403) or when `expires` has passed."""


@dataclass(frozen=True, kw_only=True)
class TransportOptions:
    """How patient a transport is and how much it keeps.

    `tries` counts requests for one range, each of which must be through within `deadline_seconds`. Pauses between them
    double from `pause_seconds` to `longest_pause`, each shortened by up to a half by chance, so that many do not come
    back at the same time; where a server says `Retry-After`, that is waited for, up to `longest_wait`. Each transport
    keeps `cache_bytes`, each open file what it prefetched, at most `largest_document`.
    """

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    deadline_seconds: float = 300.0
    tries: int = 6
    pause_seconds: float = 0.5
    longest_pause: float = 30.0
    longest_wait: float = 300.0
    connections: int = 16
    block_bytes: int = 32 * 1024
    first_bytes: int = 64 * 1024
    ahead_bytes: int = 64 * 1024
    merge_bytes: int = 64 * 1024
    request_bytes: int = 4 * 2**20
    cache_bytes: int = 64 * 2**20
    largest_document: int = 256 * 2**20

    def __post_init__(self) -> None:
        wrong = [name for name, value in vars(self).items() if not value > 0]
        if wrong:
            raise ConfigError(f"{wrong[0]} of a transport must be positive, not {getattr(self, wrong[0])!r}")

    def range_threads(self) -> ThreadPoolExecutor:
        """Threads for as many requests at a time as there are to be connections."""
        return ThreadPoolExecutor(self.connections, thread_name_prefix="ranges")

    def blocks(self) -> BlockOptions:
        """What a file is read by."""
        return BlockOptions(
            block=self.block_bytes,
            first=-(-self.first_bytes // self.block_bytes) * self.block_bytes,
            ahead=self.ahead_bytes,
            gap=self.merge_bytes,
            request=self.request_bytes,
            most=self.largest_document,
        )


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time and chance, which tests replace. `sleep` None: wait, but not after `Transport.close`."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] | None = None
    chance: Callable[[], float] = random.random


class Transport:
    """Reads resources by address (http, https, s3, file, paths); safe to share between threads.

    `ranges` are the threads that ranges of files are asked for with, where several transports share them; by default
    it has `connections` of its own.
    """

    def __init__(
        self,
        options: TransportOptions | None = None,
        *,
        sign: Signer | None = None,
        clock: Clock | None = None,
        ranges: Executor | None = None,
    ) -> None:
        self.options = options or TransportOptions()
        self._clock = clock or Clock()
        self._sign = sign
        self._signed: OrderedDict[str, SignedUrl] = OrderedDict()
        self._signing = threading.Lock()
        self._s3 = S3Links()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._open: WeakValueDictionary[str, DistantContents] = WeakValueDictionary()
        self._cache = BlockCache(self.options.cache_bytes)
        self._shares_threads = ranges is not None
        self._executor = ranges or self.options.range_threads()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._proxies: dict[tuple[str, str], str] = {}
        _keep_queries_out_of_logs()

    def open(self, href: str) -> RangeFile:
        """A file to read at any place; its size is known.

        Raises
        ------
        FetchError
            If it cannot be reached, gives no ranges and is large, or does not say how large it is.
        """
        options = self.options.blocks()
        path = local_file(href)
        if path is not None:
            return RangeFile(LocalContents(path), most=options.most)
        with self._lock:
            contents = self._open.get(href)
            if contents is None or contents.stale:
                contents = DistantContents(
                    shown(href),
                    lambda span, version: self.request(href, span, version=version),
                    self._cache,
                    self._executor,
                    options,
                )
                self._open[href] = contents
        contents.ensure_open()
        return RangeFile(contents, most=options.most)

    def get(self, href: str) -> bytes:
        """A whole resource of at most `largest_document` bytes, such as a JSON document; raises `FetchError`."""
        path = local_file(href)
        if path is None:
            return self.request(href).body
        with RangeFile(LocalContents(path), most=self.options.largest_document) as file:
            return file.readall()

    def close(self) -> None:
        """Give up what is being waited for: it raises `FetchError`, and so does what is asked for from now on."""
        self._stopped.set()
        if not self._shares_threads:
            self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def request(self, href: str, span: tuple[int, int] | None = None, *, version: Version | None = None) -> Answer:
        """A resource, or the bytes `span` (half-open) of it, which must be of `version`; raises `FetchError`."""
        where = shown(href)
        if urlsplit(where).scheme not in ("http", "https", "s3"):
            raise FetchError(f"{where}: addresses begin with http://, https://, s3:// or file://")
        cause, refusals, tried = "", 0, 0
        pause = self.options.pause_seconds
        while tried < self.options.tries and not self._stopped.is_set():
            tried += 1
            signed = self._signed_for(href, where)
            asked = Asked(
                where=where,
                span=span,
                version=version,
                signed=signed.url != href or bool(signed.headers),
                largest=self.options.largest_document,
            )
            try:
                return self._once(signed, asked)
            except AskAgainError as problem:
                cause, wait = problem.cause, problem.wait
                if problem.refused:
                    refusals += 1
                    if not asked.signed or refusals >= _MOST_SIGNATURES:
                        raise FetchError(f"{where}: {cause}; are there credentials, and are they right?") from None
                    self._forget(href, signed)
                    wait = 0.0 if refusals == 1 else None
            if tried < self.options.tries:
                if wait is None:
                    wait = pause * (1 - self._clock.chance() / 2)
                    pause = min(2 * pause, self.options.longest_pause)
                wait = min(wait, self.options.longest_wait)
                log.info("%s: %s; try %d in %.1f s", where, cause, tried + 1, wait)
                self._wait(wait)
        if self._stopped.is_set():
            raise FetchError(f"{where}: reading was stopped; run the same command again")
        times = "once" if tried == 1 else f"{tried} times"
        raise FetchError(f"{where}: {cause} (tried {times}); run the same command again later")

    def _once(self, signed: SignedUrl, asked: Asked) -> Answer:
        end = self._clock.monotonic() + self.options.deadline_seconds
        url, headers = _without_user(signed.url, {**_HEADERS, **signed.headers})
        if asked.span is not None:
            headers["Range"] = f"bytes={asked.span[0]}-{asked.span[1] - 1}"
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                response = self._manager_for(url, asked.where).request(
                    "GET", url, headers=headers, preload_content=False, redirect=False, retries=False
                )
                try:
                    target = response.get_redirect_location()
                    if target is False:
                        return read_answer(
                            response,
                            asked,
                            seconds_left=lambda: end - self._clock.monotonic(),
                            now=self._clock.now,
                        )
                finally:
                    # What is left of a body must not be taken for the next answer; a body read whole is done with.
                    response.close()
                    response.release_conn()
                url, headers = _follow(url, str(target or ""), headers, asked.where)
        except urllib3.exceptions.LocationParseError:
            raise FetchError(f"{asked.where}: is no address") from None
        except urllib3.exceptions.SSLError:
            raise FetchError(f"{asked.where}: its certificate is not accepted") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise AskAgainError(plain_cause(error)) from None
        raise FetchError(f"{asked.where}: sends from one address to the next; is the address right?")

    def _signed_for(self, href: str, where: str) -> SignedUrl:
        if self._sign is None and not href.startswith("s3://"):
            return SignedUrl(href)
        # One at a time: many ranges of a file are refused together and need one new signature.
        with self._signing:
            known = self._signed.get(href)
            if known is not None and (known.expires is None or known.expires > self._clock.now() + _EXPIRY_MARGIN):
                return known
            try:
                fresh = SignedUrl(href) if self._sign is None else self._sign(href)
                if fresh.url.startswith("s3://"):
                    link, headers, expires = self._s3.link(fresh.url)
                    fresh = SignedUrl(link, {**fresh.headers, **headers}, expires)
            except UrbandeltaError:
                raise
            except Exception as error:  # whatever a signer raises may quote what it signs with
                raise FetchError(f"{where}: cannot be signed ({type(error).__name__})") from None
            self._signed[href] = fresh
            self._signed.move_to_end(href)
            while len(self._signed) > _KEPT_SIGNATURES:
                self._signed.popitem(last=False)
            return fresh

    def _forget(self, href: str, refused: SignedUrl) -> None:
        with self._signing:
            if self._signed.get(href) is refused:
                del self._signed[href]

    def _wait(self, seconds: float) -> None:
        if self._clock.sleep is not None:
            self._clock.sleep(seconds)
        else:
            self._stopped.wait(seconds)

    def _manager_for(self, url: str, where: str) -> urllib3.PoolManager:
        """Connections to the host of an address, through the proxy that the environment names for it."""
        parts = urlsplit(url)
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host:
            raise FetchError(f"{where}: is no address that can be read")
        with self._lock:
            # Looked up once: it goes through the whole environment, and takes longer than a small request.
            proxy = self._proxies.get((parts.scheme, host))
            if proxy is None:
                proxy = "" if proxy_bypass(host) else getproxies().get(parts.scheme, "")
                self._proxies[parts.scheme, host] = proxy
            if proxy not in self._managers:
                self._managers[proxy] = self._new_manager(proxy)
            return self._managers[proxy]

    def _new_manager(self, proxy: str) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=self.options.connect_seconds, read=self.options.read_seconds)
        size = self.options.connections + _SPARE_CONNECTIONS
        if not proxy:
            return urllib3.PoolManager(maxsize=size, timeout=timeout)
        address, secret = _without_user(proxy if "://" in proxy else f"http://{proxy}", {})
        proxy_headers = {f"Proxy-{name}": text for name, text in secret.items()}
        return urllib3.ProxyManager(address, maxsize=size, timeout=timeout, proxy_headers=proxy_headers)


def _without_user(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Address and headers of a request, with the user of the address as a header."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    merged = dict(headers)
    if at:
        basic = urllib3.util.make_headers(basic_auth=unquote(user))
        merged.setdefault("Authorization", basic["authorization"])
    return urlunsplit((parts.scheme, host, parts.path, parts.query, "")), merged


def _follow(url: str, target: str, headers: Mapping[str, str], where: str) -> tuple[str, dict[str, str]]:
    """Where a redirect leads, and what to send there: to another host nothing but the range."""
    following = urljoin(url, target)
    old, new = urlsplit(url), urlsplit(following)
    if not target or new.scheme not in ("http", "https"):
        raise FetchError(f"{where}: sends to no address that can be read")
    if old.scheme == "https" and new.scheme == "http":
        raise FetchError(f"{where}: sends from https:// to http://, which is not followed")
    same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
    kept = {name: value for name, value in headers.items() if same or name == "Range" or name in _HEADERS}
    return _without_user(following, kept)


def _keep_queries_out_of_logs() -> None:
    """The HTTP library logs whole addresses at its lowest level; what it logs of queries are signatures."""
    library = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(known, HideQueries) for known in library.filters):
        library.addFilter(HideQueries())
