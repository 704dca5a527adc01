"""The command `serve`: a page to look at a monitor, on this machine."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json

__all__ = ["serve"]

_PORT = 8765


def serve(
    target: Annotated[
        str, typer.Argument(metavar="MONITOR|STORE|SCORES", help="A monitor file, a monitor's store, or a score store.")
    ],
    cube: Annotated[
        str | None, typer.Option(help="Cube with the images, if the scores do not name it or it has moved.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than loopback show the data to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = _PORT,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name that the server answers to, beside localhost and literal addresses; repeatable."),
    ] = None,
    scratch_gb: Annotated[
        float,
        typer.Option(min=0, help="Most gigabytes of a temporary file for tiles from scores without rasters; 0: none."),
    ] = 2.0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at scores, images and events in a browser: map, months, history of each pixel. Changes nothing."""
    import uvicorn

    from urbandelta.errors import ConfigError
    from urbandelta.web import create_app, find_source

    _return_memory()
    application = create_app(
        find_source(target, cube=cube), allowed_hosts=allowed_host or (), scratch_bytes=int(scratch_gb * 2**30)
    )
    try:
        listening = _listen(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); choose another with --port, 0 for any"
        ) from error
    with listening:
        if not _is_loopback(host):
            print(
                f"urbandelta: warning: listening on {host}: whoever reaches this machine can see these data; "
                "there is no password and no encryption",
                file=sys.stderr,
            )
        url = _url(host, listening.getsockname()[1])
        if as_json:
            print_json({"url": url})
        else:
            typer.echo(f"{url}  (Ctrl-C ends)")
        sys.stdout.flush()
        if open_page:
            typer.launch(url)
        config = uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Browsers open six connections a page; beyond this, answers would only queue up in memory.
            limit_concurrency=256,
            timeout_graceful_shutdown=3,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            return


def _return_memory() -> None:
    """Make glibc give freed arrays back: with an arena a thread it kept 160 MB of holes after 1,500 tiles."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    arenas, mapped_from = -8, -3  # M_ARENA_MAX, M_MMAP_THRESHOLD of malloc.h
    mallopt(arenas, 2)
    mallopt(mapped_from, 2**20)


def _listen(host: str, port: int) -> socket.socket:
    # NOTE: asyncio sends small answers at once (TCP_NODELAY) only on sockets whose protocol is named; without, the
    # second packet of each waits 40 ms for the first one to be acknowledged.
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # From here on the address can be opened: who comes before the server runs waits for it.
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(host: str, port: int) -> str:
    """An address that a browser on this machine can open."""
    shown = "127.0.0.1" if host == "0.0.0.0" else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
