"""Throughput of the whole of `fetch` (search, transfer, decoding, placing, compressing, committing) against a plain
concurrent range reader of the same bytes from the same server.

    python benchmarks/fetch_whole.py [--size 512] [--months 2] [--rounds 3]

All of it happens in one run, against a STAC API with files in a process of its own: first one that answers as fast as
it can, then ones that seem to be far away, behind connections of some speeds. The plain reader asks for the ranges that
`fetch` asked for, with the same HTTP client and as many connections, and throws away what it gets. GDAL reading the
same files from disk shows what decoding alone takes. The ways take turns; ratios are taken within a turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml
from fetch import (
    Distance,
    add_distance,
    from_disk,
    near_and_far,
    plain_reader,
    ratios,
    served,
    take_turns,
    watching,
)

from urbandelta.fetching import fetch
from urbandelta.monitor import load_monitor


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


def measure(distance: Distance, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Medians over rounds in which the ways take turns."""
    scenes = work / "scenes"
    with served(serve, scenes, distance, options) as described:
        with watching() as asked:
            fetching(work, *described)
        size = sum(end - start for _, start, end in asked)
        paths = sorted(scenes.glob("*.tif"))
        ways = {
            "plain": plain_reader(list(asked)),
            "fetch": lambda: fetching(work, *described),
            "disk": from_disk(paths),
        }
        seconds = take_turns(ways, options.rounds)
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
    add_distance(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for distance in near_and_far(options):
            print(json.dumps(measure(distance, options, Path(name)), indent=2))


if __name__ == "__main__":
    main()
