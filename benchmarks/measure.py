"""One way to measure: a task runs in a process of its own, round by round, and prints one JSON line a round.

A task is a callable without arguments that does the work once and returns counts (`{"window_tiles": 592}`).
`answer` is the child's side: it runs the rounds. `Task` is the parent's: it starts a child and asks for a round when it
wants one, so that several children can take turns (A B A B) without paying for their start again.
Linux only: peaks and bytes come from /proc. Standard library only, since the Keras environment uses this module too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

REPO = Path(__file__).resolve().parent.parent
SIMD_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")

Sample = dict[str, Any]
"""Counts of one round with `seconds`, `cpu_seconds`, `read_mb` and `peak_rss_mb`."""


def add_round_options(parser: argparse.ArgumentParser) -> None:
    """Options of a child: how many rounds, and whether it waits for its turn."""
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default 3)")
    parser.add_argument("--on-request", action="store_true", help="run one round for each line of standard input")


def answer(work: Callable[[], Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Run `work` once a round and print a sample each."""
    turns = sys.stdin if options.on_request else range(options.rounds)
    for _ in turns:
        print(json.dumps(measured(work)), flush=True)


def measured(work: Callable[[], Mapping[str, Any]]) -> Sample:
    """Seconds, CPU seconds of all threads, bytes asked of the file system, and the process' peak memory so far."""
    cpu, read, start = time.process_time(), _read_bytes(), time.perf_counter()
    counts = work()
    seconds = time.perf_counter() - start
    return {
        **counts,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "read_mb": (_read_bytes() - read) / 1e6,
        "peak_rss_mb": _peak_rss_mb(),
    }


class Task:
    """A child process that measures itself on request. Its first round, in which things are compiled, is `warm_up`."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.command = [str(part) for part in command]
        self._process = subprocess.Popen(
            [*self.command, "--on-request"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.warm_up = self.round()

    def round(self) -> Sample:
        """Ask for one round and wait for its sample."""
        stdin, stdout = _open(self._process.stdin), _open(self._process.stdout)
        stdin.write("\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.command)}: ended without a sample; its error is above")
        sample: Sample = json.loads(line)
        return sample

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        _open(self._process.stdin).close()
        self._process.wait(timeout=60)


def median(samples: Sequence[Sample], unit: str) -> Sample:
    """Medians over rounds, and milliseconds per unit (`unit` names the count, among the task's, to divide by)."""
    middle = {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
    each = [1000 * sample["seconds"] / sample[unit] for sample in samples]
    return {
        **middle,
        "peak_rss_mb": max(sample["peak_rss_mb"] for sample in samples),
        "rounds": len(samples),
        "unit": unit[:-1],
        "units": middle[unit],
        "ms_per_unit": statistics.median(each),
        "ms_per_unit_best": min(each),
        "cpu_ms_per_unit": 1000 * middle["cpu_seconds"] / middle[unit],
    }


def machine() -> dict[str, Any]:
    """What a figure must name: CPU, its vector flags, cores, memory, commit, date, versions."""
    cpuinfo = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if line.count(":") == 1
    )
    cpuinfo = {key.strip(): value.strip() for key, value in cpuinfo.items()}
    flags = cpuinfo.get("flags", "").split()
    generation = (cpuinfo.get(key) for key in ("cpu family", "model", "stepping"))
    return {
        "cpu": cpuinfo.get("model name", platform.processor()),
        "family_model_stepping": "-".join(str(number) for number in generation),
        "simd": [flag for flag in SIMD_FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "openvino", "icechunk", "tensorflow-cpu") if _version(name)},
    }


def commit() -> str:
    """Short hash of the checkout, with `+` when files differ from it; "unknown" outside a repository."""
    git = ["git", "-C", str(REPO)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if dirty.strip() else "")


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as a Markdown table."""

    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(text(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _read_bytes() -> int:
    # rchar counts what read calls returned, from the disk or from the page cache.
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def _peak_rss_mb() -> float:
    # NOTE: not getrusage's ru_maxrss, which a child inherits from a larger parent through exec.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def _open(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the child was started without pipes")
    return stream
