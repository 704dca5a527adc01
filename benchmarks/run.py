"""Time, peak memory and bytes read of urbandelta on named scenes; each row is measured in a process of its own.

python benchmarks/run.py                                     # small and medium, both eras
python benchmarks/run.py --tasks predict --scenarios s12-medium s12-large s12-long
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import measure
from scenarios import SCENARIOS, cube_of
from tasks import TASKS, UNITS

HERE = Path(__file__).parent
DEFAULT_SCENARIOS = [name for name in SCENARIOS if name.endswith(("small", "medium"))]
COLUMNS = (
    "task",
    "scenario",
    "unit",
    "ms_per_unit",
    "cpu_ms_per_unit",
    "units",
    "seconds",
    "read_mb",
    "peak_rss_mb",
    "rounds",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=DEFAULT_SCENARIOS)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()

    rows = []
    for scenario in options.scenarios:
        cube_of(scenario)  # made here, so that no task's memory or time holds the simulation
        for task in options.tasks:
            command = [
                sys.executable,
                HERE / "tasks.py",
                task,
                "--scenario",
                scenario,
                "--precision",
                options.precision,
            ]
            with measure.Task(command) as child:
                samples = [child.round() for _ in range(options.rounds)]
            rows.append({"task": task, "scenario": scenario, **measure.median(samples, UNITS[task])})
            print(f"{task} {scenario}: done", file=sys.stderr)
    report = {"machine": measure.machine(), "rows": rows}
    print(measure.table(rows, COLUMNS))
    print(json.dumps(report["machine"]))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
