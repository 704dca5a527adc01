"""How many times faster `predict` is than the Keras loop, and how far it is from bare convolutions, in one run.

Every contender is a process that stays alive and runs one round when asked, so they take turns (A B C D A B C D) and
share whatever else the machine is doing. A first round of each, in which networks are compiled, is not counted.

    python benchmarks/ratio.py --keras-python ~/keras/bin/python --weights FILE.hdf5 --golden golden.npz
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import measure
from scenarios import SCENARIOS, cube_of

HERE = Path(__file__).parent
COLUMNS = (
    "contender",
    "ms_per_unit",
    "ms_per_unit_best",
    "cpu_ms_per_unit",
    "peak_rss_mb",
    "read_mb",
    "batch",
    "units",
    "rounds",
)
PRECISIONS = ("fp32", "bf16")
UNIT = "window_tiles"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", type=Path, help="python of the Keras environment (default: leave Keras out)")
    parser.add_argument("--scenario", choices=SCENARIOS, default="s12-medium")
    parser.add_argument("--weights", type=Path, help="Keras HDF5 file for all (default: random weights)")
    parser.add_argument("--golden", type=Path, help="recorded scores that the Keras network is checked against")
    parser.add_argument("--keras-batch", type=int, default=32)
    parser.add_argument("--bare-batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write everything here")
    return parser.parse_args()


def commands(options: argparse.Namespace) -> dict[str, list[str | Path]]:
    """Command of each contender; `bare` waits for the number of steps that predict's windows hold."""
    weights = ["--weights", options.weights] if options.weights else []
    golden = ["--golden", options.golden] if options.golden else []
    predict = [
        sys.executable,
        HERE / "tasks.py",
        "predict",
        "--scenario",
        options.scenario,
        "--engine",
        options.engine,
        *weights,
    ]
    era = ["--era", SCENARIOS[options.scenario].era]
    contenders = {f"predict {p}": [*predict, "--precision", p] for p in PRECISIONS}
    if options.keras_python:
        keras = [options.keras_python, HERE / "keras_loop.py", *era, "--batch", str(options.keras_batch)]
        contenders = {"keras": [*keras, *weights, *golden], **contenders}
    for batch in options.bare_batch:
        contenders[f"bare batch {batch}"] = [sys.executable, HERE / "bare_recurrence.py", *era, "--batch", str(batch)]
    return contenders


def take_turns(options: argparse.Namespace) -> dict[str, list[measure.Sample]]:
    samples: dict[str, list[measure.Sample]] = {}
    with contextlib.ExitStack() as stack:
        children: dict[str, measure.Task] = {}
        for name, command in commands(options).items():
            if name.startswith("bare"):
                command = [*command, "--steps", str(children["predict fp32"].warm_up["steps_a_window"])]
            children[name] = stack.enter_context(measure.Task(command))
            print(f"{name}: ready", file=sys.stderr)
        for turn in range(options.rounds):
            for name, child in children.items():
                samples.setdefault(name, []).append(child.round())
            print(f"round {turn + 1} of {options.rounds}: done", file=sys.stderr)
    return samples


def ratios(samples: dict[str, list[measure.Sample]]) -> list[dict[str, Any]]:
    """Medians over turns of the ratio within a turn, so that a slow minute slows both sides of it.

    On a machine that others use too, the ratio of CPU seconds is the steadier of the two.
    """
    pairs = [("keras", f"predict {p}") for p in PRECISIONS if "keras" in samples]
    pairs += [(f"predict {p}", bare) for p in PRECISIONS for bare in samples if bare.startswith("bare")]

    def ratio(of: str, to: str, key: str) -> float:
        turns = zip(samples[of], samples[to], strict=True)
        return statistics.median(a[key] / a[UNIT] / (b[key] / b[UNIT]) for a, b in turns)

    return [
        {"ratio": f"{of} / {to}", "wall": ratio(of, to, "seconds"), "cpu": ratio(of, to, "cpu_seconds")}
        for of, to in pairs
    ]


def main() -> None:
    options = parse()
    cube_of(options.scenario)
    samples = take_turns(options)
    rows = [{"contender": name, **measure.median(turns, UNIT)} for name, turns in samples.items()]
    result = ratios(samples)
    machine = measure.machine()
    print(measure.table(rows, COLUMNS), end="\n\n")
    print(measure.table(result, ("ratio", "wall", "cpu")))
    print(json.dumps(machine))
    if options.json:
        report = {"machine": machine, "scenario": options.scenario, "ratios": result, "rows": rows, "samples": samples}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
