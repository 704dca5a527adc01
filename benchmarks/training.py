"""Training samples a second and peak memory, against the same network's training step in Keras, in one run.

Contenders are processes that take turns, as in `ratio.py`; the first round of each is not counted.

    python benchmarks/training.py --keras-python ~/keras/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from pathlib import Path

import measure
from scenarios import SCENARIOS, cube_of
from training_step import MODES

HERE = Path(__file__).parent
UNIT = "samples"
COLUMNS = (
    "contender", "ms_per_unit", "ms_per_unit_best", "cpu_ms_per_unit", "peak_rss_mb", "batch", "steps", "sar_images",
    "optical_images", "rounds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", type=Path, help="python of the Keras environment (default: leave Keras out)")
    parser.add_argument("--scenario", choices=SCENARIOS, default="s12-medium")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=2, help="training steps a round")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()
    cube_of(options.scenario)
    sizes = ["--batch", str(options.batch), "--batches", str(options.batches)]
    commands: dict[str, list[str | Path]] = {}
    if options.keras_python:
        era = SCENARIOS[options.scenario].era
        commands["keras"] = [options.keras_python, HERE / "keras_training.py", "--era", era, *sizes]
    ours = [sys.executable, HERE / "training_step.py", "--scenario", options.scenario, *sizes]
    for mode in options.modes:
        commands[mode] = [*ours, "--mode", mode, "--threads", str(options.threads)]
    samples: dict[str, list[measure.Sample]] = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:
        children = {name: stack.enter_context(measure.Task(command)) for name, command in commands.items()}
        for turn in range(options.rounds):
            for name, child in children.items():
                samples[name].append(child.round())
            print(f"round {turn + 1} of {options.rounds}: done", file=sys.stderr)
    rows = [{"contender": name, **measure.median(turns, UNIT)} for name, turns in samples.items()]
    print(measure.table(rows, COLUMNS), end="\n\n")
    result = []
    for mode in options.modes if "keras" in samples else ():
        pairs = list(zip(samples["keras"], samples[mode], strict=True))
        result.append(
            {
                "ratio": f"keras / {mode}",
                **{
                    name: statistics.median(a[key] / b[key] for a, b in pairs)
                    for name, key in (("wall", "seconds"), ("cpu", "cpu_seconds"), ("memory", "peak_rss_mb"))
                },
            }
        )
    print(measure.table(result, ("ratio", "wall", "cpu", "memory")))
    print(json.dumps(measure.machine()))
    if options.json:
        options.json.write_text(json.dumps({"machine": measure.machine(), "rows": rows, "ratios": result}, indent=2))


if __name__ == "__main__":
    main()
