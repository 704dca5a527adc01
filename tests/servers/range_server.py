"""An HTTP server on the loopback for tests: files with range requests, and faults on demand.

    with range_server({"/scene.tif": data}) as server:
        server.faults = [status(503, {"Retry-After": "7"}), None, truncated]   # one per request, then none
        read(server.url("/scene.tif"))
        assert server.requests[0].span == (0, 65536)

A fault gets the exchange and answers in place of the server, or changes `exchange` and lets the server answer.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Request:
    """What was asked for; `span` is half-open and as asked, not cut at the end of the file."""

    path: str
    query: str
    span: tuple[int, int] | None
    headers: Mapping[str, str]
    port: int


@dataclass
class Exchange:
    """A request and the answer that the server would give."""

    request: Request
    handler: BaseHTTPRequestHandler
    server: RangeServer
    status: int
    headers: dict[str, str]
    body: bytes
    total: int

    def send(self, *, body: bytes | None = None) -> None:
        """Send the answer, or its head with another body."""
        self.handler.send_response(self.status)
        for name, value in self.headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(self.body if body is None else body)

    def hang_up(self) -> None:
        """Close the connection once the handler is through."""
        self.handler.wfile.flush()
        self.handler.close_connection = True


Fault = Callable[[Exchange], bool | None]
"""True: it has answered; else the server does, with what the fault has changed."""


@dataclass(repr=False)
class RangeServer:
    """Files by path, faults to come, and what was asked."""

    files: dict[str, bytes | Path]
    faults: list[Fault | None] = field(default_factory=list)
    always: Fault | None = None
    etag: str = '"one"'
    requests: list[Request] = field(default_factory=list)
    base: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __repr__(self) -> str:
        return f"RangeServer({self.base!r})"

    def url(self, path: str) -> str:
        """Address of a file."""
        return self.base + path

    @property
    def spans(self) -> list[tuple[int, int] | None]:
        """Ranges in order of asking."""
        return [request.span for request in self.requests]

    @property
    def connections(self) -> int:
        """Number of different connections."""
        return len({request.port for request in self.requests})

    def take_fault(self, request: Request) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            return self.faults.pop(0) if self.faults else self.always


@contextmanager
def range_server(files: Mapping[str, bytes | Path]) -> Iterator[RangeServer]:
    """Serve until the block ends."""
    state = RangeServer(dict(files))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            try:
                _answer(self, state)
                self.wfile.flush()
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # a client that connects many times at once must not be put off
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is no error here."""

    http = Server(("127.0.0.1", 0), Handler)
    state.base = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        http.shutdown()
        http.server_close()
        thread.join(5)


def _answer(handler: BaseHTTPRequestHandler, state: RangeServer) -> None:
    parts = urlsplit(handler.path)
    match = _RANGE.fullmatch(handler.headers.get("Range", ""))
    span = None
    if match is not None:
        span = (int(match[1]), int(match[2]) + 1 if match[2] else 1 << 62)
    request = Request(parts.path, parts.query, span, dict(handler.headers), handler.client_address[1])
    content = state.files.get(parts.path)
    fault = state.take_fault(request)
    if content is None:
        exchange = Exchange(request, handler, state, 404, {"Content-Length": "0"}, b"", 0)
    else:
        exchange = Exchange(request, handler, state, 200, {}, *_bytes_of(content, span))
        exchange.headers = {"ETag": state.etag, "Content-Length": str(len(exchange.body))}
        if span is not None:
            if span[0] >= exchange.total:
                exchange.status, exchange.headers["Content-Range"] = 416, f"bytes */{exchange.total}"
            else:
                exchange.status = 206
                last = span[0] + len(exchange.body) - 1
                exchange.headers["Content-Range"] = f"bytes {span[0]}-{last}/{exchange.total}"
    if fault is None or not fault(exchange):
        exchange.send()


def _bytes_of(content: bytes | Path, span: tuple[int, int] | None) -> tuple[bytes, int]:
    if isinstance(content, bytes):
        return (content if span is None else content[slice(*span)]), len(content)
    total = content.stat().st_size
    with content.open("rb") as file:
        file.seek(0 if span is None else min(span[0], total))
        return file.read(-1 if span is None else span[1] - span[0]), total


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"no") -> Fault:
    """Another status, with a body that must never be taken for data."""

    def fault(exchange: Exchange) -> None:
        exchange.status, exchange.body = code, body
        exchange.headers = {"Content-Length": str(len(body)), **(headers or {})}

    return fault


def redirect(target: str, code: int = 302) -> Fault:
    """To another address."""
    return status(code, {"Location": target})


def headers(**changes: str | None) -> Fault:
    """Other headers (None: without), underscores for hyphens."""

    def fault(exchange: Exchange) -> None:
        for name, value in changes.items():
            key = name.replace("_", "-")
            exchange.headers = {k: v for k, v in exchange.headers.items() if k.lower() != key.lower()}
            if value is not None:
                exchange.headers[key] = value

    return fault


def truncated(exchange: Exchange) -> bool:
    """The connection ends in the midst of the body."""
    exchange.send(body=exchange.body[: len(exchange.body) // 2])
    exchange.hang_up()
    return True


def short(exchange: Exchange) -> None:
    """A body that is shorter than the range that it claims to be, with the right length of its own."""
    exchange.body = exchange.body[:-1]
    exchange.headers["Content-Length"] = str(len(exchange.body))


def long(exchange: Exchange) -> None:
    """A body that is longer than the range that it claims to be."""
    exchange.body += b"x"
    exchange.headers["Content-Length"] = str(len(exchange.body))


def shifted(exchange: Exchange) -> None:
    """Another range than was asked for, truly labelled."""
    first = exchange.request.span[0] + 1
    exchange.headers["Content-Range"] = f"bytes {first}-{first + len(exchange.body) - 1}/{exchange.total}"


def ignores_range(exchange: Exchange) -> None:
    """The whole file with 200, whatever was asked for."""
    content = exchange.server.files[exchange.request.path]
    exchange.status, exchange.body = 200, content if isinstance(content, bytes) else content.read_bytes()
    exchange.headers = {"ETag": exchange.server.etag, "Content-Length": str(len(exchange.body))}


def endless(exchange: Exchange) -> bool:
    """The whole file with 200, without a length, and it never ends."""
    exchange.status, exchange.headers = 200, {"Transfer-Encoding": "chunked"}
    exchange.send(body=b"")
    while not exchange.server.released.is_set():
        exchange.handler.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        exchange.handler.wfile.flush()
    return True


def hangs(exchange: Exchange) -> bool:
    """No answer, until the server is stopped."""
    exchange.server.released.wait()
    exchange.hang_up()
    return True


def hangs_midway(exchange: Exchange) -> bool:
    """Half of the body, then nothing."""
    exchange.send(body=exchange.body[: len(exchange.body) // 2])
    exchange.handler.wfile.flush()
    exchange.server.released.wait()
    exchange.hang_up()
    return True


def hangs_up(exchange: Exchange) -> bool:
    """The connection is closed without an answer."""
    exchange.handler.connection.shutdown(socket.SHUT_RDWR)
    exchange.hang_up()
    return True


def needs(sign: str) -> Fault:
    """403 unless the query is `sign`; use as `always`."""

    def fault(exchange: Exchange) -> None:
        if exchange.request.query != sign:
            status(403)(exchange)

    return fault
