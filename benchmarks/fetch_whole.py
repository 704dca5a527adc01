"""Throughput of the whole of `fetch` (search, transfer, decoding, placing, compressing, committing) against a plain
concurrent range reader of the same bytes from the same server.

    python benchmarks/fetch_whole.py [--size 512] [--months 2] [--rounds 3]

All of it happens in one run, against a STAC API with files in a process of its own: first one that answers as fast as
it can, then one that seems to be far away. The plain reader asks for the ranges that `fetch` asked for, with the same
HTTP client and as many connections, and throws away what it gets. GDAL reading the same files from disk shows what
decoding alone takes. The ways take turns; ratios are taken within a turn.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import rasterio
import yaml

from urbandelta.fetching import fetch
from urbandelta.monitor import load_monitor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "tests")]
from fetch import BAND_THREADS, Distance, plain_reader, ratios, watching  # noqa: E402


def serve(folder: Path, distance: Distance, options: Any, ready: Any, stop: Any) -> None:
    """A STAC API over simulated scenes, in a process of its own."""
    from fetch_scene import publish
    from servers.stac_api import Contents, stac_server

    folder.mkdir(exist_ok=True)
    contents = Contents(folder=folder, pause=distance.pause if distance.latency_ms else None)
    with stac_server(contents) as server:
        published = publish(folder, f"{server.url}/files", size=options.size, months=options.months)
        contents.items = published.items
        ready.put((server.url, published.bbox, published.streams()))
        stop.wait()


def fetching(work: Path, url: str, bbox: list[float], streams: dict[str, Any]) -> None:
    """`urbandelta fetch` of everything, into a cube of its own that is thrown away."""
    folder = Path(tempfile.mkdtemp(dir=work))
    document = {
        "version": 1,
        "name": "town",
        "aoi": {"bbox": bbox},
        "start": "2019-01-01",
        "end": "2021-01-01",
        "store": "town",
        "source": {"kind": "stac", "archive": "custom", "url": url, "streams": streams},
    }
    (folder / "town.yaml").write_text(yaml.safe_dump(document))
    report = fetch(load_monitor(folder / "town.yaml"))
    assert report.complete
    assert sum(report.added.values())
    shutil.rmtree(folder)


def from_disk(paths: list[Path]) -> None:
    """GDAL on the same files: what decoding alone takes."""

    def read(path: Path) -> None:
        with rasterio.open(path, sharing=False) as file:
            file.read()

    with ThreadPoolExecutor(BAND_THREADS) as threads:
        list(threads.map(read, paths))


def measure(distance: Distance, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Medians over rounds in which the ways take turns."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Queue(), context.Event()
    scenes = work / "scenes"
    server = context.Process(target=serve, args=(scenes, distance, options, ready, stop), daemon=True)
    server.start()
    try:
        described = ready.get(timeout=600)
        with watching() as asked:
            fetching(work, *described)
        size = sum(end - start for _, start, end in asked)
        paths = sorted(scenes.glob("*.tif"))
        plain = plain_reader(list(asked))
        ways = {
            "plain": plain,
            "fetch": lambda: fetching(work, *described),
            "disk": lambda: from_disk(paths),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - began)
    finally:
        stop.set()
        server.join(20)
    return {
        **distance._asdict(),
        "acquisitions": len(paths),
        "megabytes": round(size / 2**20, 1),
        "requests": len(asked),
        "MB_per_s": {way: round(size / 2**20 / statistics.median(times), 1) for way, times in seconds.items()},
        "fetch_to_plain": [round(value, 2) for value in ratios(seconds["plain"], seconds["fetch"])],
        "fetch_to_disk": [round(value, 2) for value in ratios(seconds["disk"], seconds["fetch"])],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the scenes")
    parser.add_argument("--months", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=40, help="of the server that seems to be far away")
    parser.add_argument("--connection-mb", type=float, default=4, help="MB a second of each of its connections")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for distance in (Distance(0, 0), Distance(options.latency_ms, options.connection_mb)):
            print(json.dumps(measure(distance, options, Path(name)), indent=2))


if __name__ == "__main__":
    main()
