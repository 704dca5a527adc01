"""Throughput of reading rasters behind a local server, against a plain concurrent range reader of the same ranges.

    python benchmarks/fetch.py [--files 6] [--rounds 5]

All of it happens in one run, against a server in a process of its own: first one that answers as fast as it can, then
ones that seem to be far away, behind connections of some speeds. The plain reader asks for the ranges that
`RemoteRaster` asks for, with the same HTTP client and as many threads, and keeps what it gets; `RangeFile` prefetches
the same blocks; `RemoteRaster` decodes them as well, and so does GDAL from disk, which shows what decoding costs.
The ways take turns; rates are medians, and ratios are taken within a turn (quartiles).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import urllib3
from affine import Affine
from rasterio.shutil import copy

from urbandelta.sources.remote import RemoteRaster
from urbandelta.transport import Transport, TransportOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
BAND_THREADS = 8  # as many as `urbandelta fetch` reads bands with


class Distance(NamedTuple):
    """How far away a server seems: waiting before each answer, and bytes a second of one connection."""

    latency_ms: float
    connection_mb: float

    def pause(self, size: int) -> float:
        """Seconds before an answer of so many bytes."""
        return self.latency_ms / 1e3 + size / 2**20 / self.connection_mb if self.latency_ms else 0.0


def write_cogs(folder: Path, *, files: int, megabytes: float) -> list[Path]:
    """COGs of smooth terrain with noise, which deflate to about half, as reflectances do."""
    rng = np.random.default_rng(11)
    side = round((megabytes * 2**20) ** 0.5 / 512) * 512
    paths = []
    for number in range(files):
        base = rng.normal(1500, 400, (side // 16 + 1, side // 16 + 1)).repeat(16, 0).repeat(16, 1)[:side, :side]
        data = np.clip(base + rng.normal(0, 60, (side, side)), 1, 10_000).astype("uint16")
        plain, path = folder / "plain.tif", folder / f"band_{number}.tif"
        profile = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "uint16"}
        grid = {"crs": "EPSG:32631", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
        with rasterio.open(plain, "w", **profile, **grid) as file:
            file.write(data, 1)
        copy(plain, path, driver="COG", compress="deflate", predictor=2, blocksize=512, overviews="none")
        plain.unlink()
        paths.append(path)
    return paths


def serve(paths: list[Path], distance: Distance, ready: multiprocessing.Queue, stop: multiprocessing.Event) -> None:
    from servers.range_server import Exchange, range_server

    def far(exchange: Exchange) -> None:
        time.sleep(distance.pause(len(exchange.body)))

    with range_server({f"/{path.name}": path.read_bytes() for path in paths}) as server:
        server.always = far if distance.latency_ms else None
        ready.put(server.base)
        stop.wait()


@contextmanager
def watching() -> Iterator[list[tuple[str, int, int]]]:
    """Collects the ranges that any `Transport` asks for meanwhile, as (URL, start, end)."""
    asked: list[tuple[str, int, int]] = []
    request = Transport.request

    def watched(self, href, span=None, *, version=None):
        answer = request(self, href, span, version=version)
        if span is not None:  # not what is asked of the catalogue
            asked.append((href, span[0], span[0] + len(answer.body)))
        return answer

    Transport.request = watched
    try:
        yield asked
    finally:
        Transport.request = request


def ranges_asked(urls: list[str]) -> tuple[list[tuple[str, int, int]], int]:
    """Ranges that `RemoteRaster` asks a server for, file by file, and bytes in all."""
    transport = Transport()
    with watching() as asked:
        for url in urls:
            whole(RemoteRaster.open(transport, url))
    transport.close()
    return asked, sum(end - start for _, start, end in asked)


def whole(layer: RemoteRaster) -> np.ndarray:
    return layer.read(slice(0, layer.grid.height), slice(0, layer.grid.width))[0]


def plain_reader(asked: list[tuple[str, int, int]]) -> Callable[[], None]:
    """The yardstick: the same ranges by the same client and number of threads, first of all those of the headers."""
    connections = TransportOptions().connections

    def run() -> None:
        manager = urllib3.PoolManager(maxsize=connections)

        def get(part: tuple[str, int, int]) -> bytes:
            url, start, end = part
            response = manager.request("GET", url, headers={"Range": f"bytes={start}-{end - 1}"})
            assert response.status == 206
            assert len(response.data) == end - start
            return response.data

        with ThreadPoolExecutor(connections) as threads:
            kept = list(threads.map(get, [part for part in asked if part[1] == 0]))
            kept += threads.map(get, [part for part in asked if part[1] != 0])

    return run


def prefetching(urls: list[str], asked: list[tuple[str, int, int]]) -> Callable[[], None]:
    """`RangeFile` alone: no decoding."""

    def run() -> None:
        transport = Transport()

        def read(url: str) -> None:
            file = transport.open(url)
            file.prefetch([(start, end) for href, start, end in asked if href == url])
            file.close()

        with ThreadPoolExecutor(BAND_THREADS) as threads:
            list(threads.map(read, urls))
        transport.close()

    return run


def decoding(urls: list[str]) -> Callable[[], None]:
    """`RemoteRaster`, pixels and all."""

    def run() -> None:
        transport = Transport()
        with ThreadPoolExecutor(BAND_THREADS) as threads:
            list(threads.map(lambda url: whole(RemoteRaster.open(transport, url)), urls))
        transport.close()

    return run


def from_disk(paths: list[Path]) -> Callable[[], None]:
    """GDAL on the same files on disk, opened anew so that it keeps no pixels: what decoding alone takes."""

    def read(path: Path) -> np.ndarray:
        with rasterio.open(path, sharing=False) as file:
            return file.read()

    def run() -> None:
        with ThreadPoolExecutor(BAND_THREADS) as threads:
            list(threads.map(read, paths))

    return run


@contextmanager
def served(serve: Callable[..., None], *args: Any) -> Iterator[Any]:
    """What `serve(*args, ready, stop)` puts into `ready`, once it serves in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Queue(), context.Event()
    server = context.Process(target=serve, args=(*args, ready, stop), daemon=True)
    server.start()
    try:
        yield ready.get(timeout=600)
    finally:
        stop.set()
        server.join(20)


def take_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - began)
    return seconds


def measure(paths: list[Path], distance: Distance, rounds: int) -> dict[str, object]:
    """Medians over rounds in which the ways take turns."""
    with served(serve, paths, distance) as base:
        urls = [f"{base}/{path.name}" for path in paths]
        asked, size = ranges_asked(urls)
        ways = {
            "plain": plain_reader(asked),
            "ranges": prefetching(urls, asked),
            "rasters": decoding(urls),
            "disk": from_disk(paths),
        }
        take_turns(ways, 1)  # warms up
        seconds = take_turns(ways, rounds)
    rate = {way: size / 2**20 / statistics.median(times) for way, times in seconds.items()}
    return {
        **distance._asdict(),
        "files": len(paths),
        "megabytes": round(size / 2**20, 1),
        "requests": len(asked),
        "MB_per_s": {way: round(value, 1) for way, value in rate.items()},
        **{
            f"{way}_to_{yardstick}": [round(value, 2) for value in ratios(seconds[yardstick], seconds[way])]
            for way, yardstick in (("ranges", "plain"), ("rasters", "plain"), ("rasters", "disk"))
        },
    }


def ratios(yardstick: list[float], way: list[float]) -> list[float]:
    """Quartiles over turns of how much of the yardstick's throughput a way reaches."""
    return statistics.quantiles([y / w for y, w in zip(yardstick, way, strict=True)], n=4)


def add_distance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency-ms", type=float, default=40, help="of the server that seems to be far away")
    parser.add_argument(
        "--connection-mb", type=float, nargs="+", default=[4.0, 1.0], help="MB a second of each of its connections"
    )


def near_and_far(options: argparse.Namespace) -> list[Distance]:
    return [Distance(0, 0), *(Distance(options.latency_ms, rate) for rate in options.connection_mb)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=8, help="million pixels per file, of 2 bytes each")
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    add_distance(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = write_cogs(Path(name), files=options.files, megabytes=options.megabytes)
        for distance in near_and_far(options):
            print(json.dumps(measure(paths, distance, options.rounds), indent=2))


if __name__ == "__main__":
    main()
