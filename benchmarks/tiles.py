"""Tiles under load: latency and memory of `urbandelta serve` over a city of 4000 x 4000 px and 60 months.

    python benchmarks/tiles.py                  make the store (once), then measure
    python benchmarks/tiles.py --zarr           scores straight from a score store, no rasters
    python benchmarks/tiles.py --zarr --noise 0.002         scores that hardly pack

Makes scores without running a prediction: patches of change that come and go over low noise, as rasters of
`products/rasters` or as a score store with two windows a month, in the chunks of `predict`. Eight clients ask for tiles
at once, with zooms from the whole area to twice the native one, and at the end some that are scattered over months and
places. "First" begins with the server and waits for nothing; "warm" begins once the server has come to rest.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from urbandelta.cog import write_cog
from urbandelta.grid import Grid
from urbandelta.infer import SCORE_CHUNKS
from urbandelta.scores import create_scores
from urbandelta.types import Window

A_MONTH = 2
"""Windows; five steps of two satellites are about two weeks."""


def months_from(start: str, count: int) -> list[np.datetime64]:
    return list(np.arange(np.datetime64(start, "M"), np.datetime64(start, "M") + count))


def score_map(moment: float, size: int, sites: np.ndarray, noise: float) -> np.ndarray:
    """Scores (y, x) at a moment, in months.

    With the default noise a map of uint8 packs to 0.14 by Zstandard; the scores of `urbandelta demo` do to 0.08.
    """
    rng = np.random.default_rng(int(100 * moment))
    small = rng.random((size // 8, size // 8), np.float32) ** 6 * 0.2
    values = np.round(np.repeat(np.repeat(small, 8, axis=0), 8, axis=1), 2)
    for y, x, height, width, begin, end in sites:
        if begin <= moment < end + 1:
            values[y : y + height, x : x + width] = 0.5 + 0.5 * math.sin(
                math.pi * (moment - begin + 1) / (end - begin + 2)
            )
    values += np.float32(noise) * rng.standard_normal(values.shape, np.float32)
    return np.clip(values, 0, 1).astype(np.float16).astype(np.float32)


def make_sites(size: int, months: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    count = 600
    begin = rng.integers(0, months, count)
    return np.stack(
        [
            *rng.integers(0, size - 60, (2, count)),
            *rng.integers(4, 60, (2, count)),
            begin,
            begin + rng.integers(3, 9, count),
        ],
        axis=1,
    )


def make_rasters(folder: Path, grid: Grid, months: list[np.datetime64], noise: float) -> None:
    rasters = folder / "products" / "rasters"
    rasters.mkdir(parents=True, exist_ok=True)
    sites = make_sites(grid.height, len(months))
    for number, month in enumerate(months):
        path = rasters / f"score_{month}.tif"
        if not path.exists():
            scores = score_map(number, grid.height, sites, noise)
            write_cog(path, scores, grid, nodata=np.nan, tags={"month": str(month)})


def make_scores(folder: Path, grid: Grid, months: list[np.datetime64], noise: float) -> None:
    if (folder / "scores").exists():
        return
    sites = make_sites(grid.height, len(months))
    half = np.timedelta64(91, "D")
    days = [
        month.astype("datetime64[D]") + 28 * (2 * k + 1) // (2 * A_MONTH) for month in months for k in range(A_MONTH)
    ]
    middles = [day.astype("datetime64[ns]") for day in days]
    windows = [Window(start=m - half, end=m + half, count=60, first=k, last=k + 59) for k, m in enumerate(middles)]
    maps = np.empty((len(windows), *grid.shape), np.float16)
    for k in range(len(windows)):
        maps[k] = score_map(k / A_MONTH, grid.height, sites, noise)
    # Under another name until it is whole.
    writer = create_scores(str(folder / "part"), grid=grid, windows=windows, chunks=SCORE_CHUNKS, attributes={})
    # One commit a strip: a commit rewrites the list of chunks.
    for number, top in enumerate(range(0, grid.height, 1024)):
        rows = slice(top, min(top + 1024, grid.height))
        writer.add(number, rows, slice(0, grid.width), maps[:, rows].astype(np.float32))
    writer.finish()
    (folder / "part").rename(folder / "scores")


class Load:
    """Clients that ask for tiles and keep how long each took.

    As a browser does: all tiles of a view, then the next month of it (mostly), or another place, zoom and month. With
    `scattered`, each tile is of a random month, place and zoom: hardly anything was asked for before.
    """

    def __init__(self, port: int, area: dict, seed: int, *, scattered: bool = False) -> None:
        self.port, self.area, self.scattered = port, area, scattered
        self.lock = threading.Lock()
        self.random = random.Random(seed)
        self.month = 0
        self.view: list[tuple[int, int, int]] = []
        self.left: list[str] = []

    def ask(self) -> str:
        """The next address."""
        with self.lock:
            if not self.left:
                self.look_on()
                name = self.area["months"][self.month]["label"]
                tail = f".png?fade=yes&v={self.area['version']}"
                self.left = [f"/tiles/month/{name}/{z}/{x}/{y}{tail}" for z, x, y in self.view]
            return self.left.pop()

    def look_on(self) -> None:
        months, native = len(self.area["months"]), self.area["native_zoom"]
        west, south, east, north = self.area["bounds"]
        if self.view and not self.scattered and self.random.random() < 0.8:
            self.month = (self.month + 1) % months
            return
        self.month = self.random.randrange(months)
        z = self.random.randint(native - 5, native + 1)
        x, y = tile_at(self.random.uniform(west, east), self.random.uniform(south, north), z)
        across, down = (1, 1) if self.scattered else (5, 4)
        # A browser asks for tiles that meet the area only.
        (x_low, y_low), (x_high, y_high) = tile_at(west, north, z), tile_at(east, south, z)
        self.view = [
            (z, i, j)
            for i in range(max(x - across // 2, x_low), min(x - across // 2 + across, x_high + 1))
            for j in range(max(y - down // 2, y_low), min(y - down // 2 + down, y_high + 1))
        ]

    def run(self, requests: int, clients: int) -> list[float]:
        """Seconds of each of `requests` answers."""
        left, took = iter(range(requests)), []

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            while True:
                with self.lock:
                    if next(left, None) is None:
                        break
                address = self.ask()
                start = time.perf_counter()
                connection.request("GET", address)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, (answer.status, address)
                took.append(time.perf_counter() - start)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return took


def tile_at(longitude: float, latitude: float, z: int) -> tuple[int, int]:
    count = 2**z
    y = (1 - math.asinh(math.tan(math.radians(latitude))) / math.pi) / 2
    return int((longitude + 180) / 360 * count), int(y * count)


def told(name: str, took: list[float], process: psutil.Process, seconds: float, answered: int) -> dict:
    ms = 1000 * np.array(took)
    row = {
        "phase": name, "requests": len(took), "seconds": round(seconds, 1),
        "median_ms": round(float(np.median(ms)), 1), "p95_ms": round(float(np.percentile(ms, 95)), 1),
        "p99_ms": round(float(np.percentile(ms, 99)), 1), "max_ms": round(float(ms.max()), 1),
        "server_cpu_ms": round(1000 * sum(process.cpu_times()[:2]) / max(answered, 1), 1),
        "rss_mb": rss_mb(process), "load": [round(v, 1) for v in os.getloadavg()],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def settled(process: psutil.Process) -> None:
    """Wait until the server has done what it does of itself."""
    start, quiet = time.perf_counter(), 0
    process.cpu_percent()
    while quiet < 3 and time.perf_counter() - start < 600:
        time.sleep(1)
        quiet = quiet + 1 if process.cpu_percent() < 5 else 0
    print(json.dumps({"settled_s": round(time.perf_counter() - start), "rss_mb": rss_mb(process)}), flush=True)


def rss_mb(process: psutil.Process) -> int:
    return round(process.memory_info().rss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--months", type=int, default=60)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.0005)
    parser.add_argument("--zarr", action="store_true")
    options = parser.parse_args()
    kind = "zarr" if options.zarr else "cog"
    folder = options.folder or Path(tempfile.gettempdir()) / (
        f"urbandelta-tiles-{kind}-{options.size}-{options.months}-{options.noise}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    edge = 10 * options.size
    grid = Grid.from_bounds((600_000, 5_600_000, 600_000 + edge, 5_600_000 + edge), "EPSG:32631", (options.size,) * 2)
    months = months_from("2018-01", options.months)
    start = time.perf_counter()
    (make_scores if options.zarr else make_rasters)(folder, grid, months, options.noise)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    print(json.dumps({"store": str(folder), "made_s": round(time.perf_counter() - start, 1), "mb": round(size)}))
    command = [sys.executable, "-m", "urbandelta", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split()[0].rsplit(":", 1)[1].rstrip("/"))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request("GET", "/api/area")
            load = Load(port, json.loads(connection.getresponse().read()), seed=1)
            process = psutil.Process(server.pid)
            print(json.dumps({"begins_with_rss_mb": rss_mb(process)}), flush=True)
            peak = answered = 0
            phases = [("first", min(500, options.requests)), ("settled", 0)]
            phases += [(f"warm {k + 1}", max(options.requests // 5, 1)) for k in range(5)]
            phases += [("scattered", max(options.requests // 10, 1))]
            warm: list[float] = []
            for name, requests in phases:
                if name == "settled":
                    settled(process)
                    continue
                load.scattered = name == "scattered"
                start = time.perf_counter()
                took = load.run(requests, options.clients)
                answered += len(took)
                told(name, took, process, time.perf_counter() - start, answered)
                peak = max(peak, process.memory_info().rss)
                warm += took if name.startswith("warm") else []
            high = Path(f"/proc/{server.pid}/status")
            if high.exists():
                peak = 1024 * int(high.read_text().split("VmHWM:")[1].split()[0])
            p95 = float(np.percentile(1000 * np.array(warm), 95))
            print(json.dumps({"p95_ms": round(p95, 1), "requests": len(warm), "peak_rss_mb": round(peak / 2**20)}))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
