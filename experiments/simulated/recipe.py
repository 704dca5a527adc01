"""Make the shipped weights: simulate cubes, label them by their dates, train, calibrate, measure.

Every step is a command of urbandelta or a script beside this one; it is printed before it runs, and one that is done
already is not done again. `--dry-run` prints only.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from urbandelta.eras import ERAS

HERE = Path(__file__).parent
TRAINING_SEEDS = range(100, 120)
VALIDATION_SEEDS = range(200, 202)
TEST_SEEDS = (7, 301, 302, 303)
CLOUDINESS = (0.5, 0.35, 0.5, 0.6)
"""By seed modulo 4; so that no one sky is learned."""
ALL_SATELLITES = 2
"""Seeds with this remainder modulo 4 lose no radar satellite."""


TRAINING = {
    "s12": "--epochs 10 --batches-per-epoch 60 --max-steps 20",
    "ers12ls5": "--epochs 16 --batches-per-epoch 120 --max-steps 24",
}
COMMON = "--validation-samples 192 --batch 16 --tile 16 --balance 0.5 --seed 1"
"""Options of `urbandelta train`: what an era needs, and what both share. A year of ERS and Landsat holds few clear
images: three times the batches brought the held-out F1 from 0.89 to 0.96."""


def commands(era: str, work: Path, out: Path, *, threads: int) -> Iterator[tuple[list[str], Path]]:
    """Each step as a command, with what it leaves behind."""
    run = [sys.executable, "-m", "urbandelta"]
    cubes = {seed: work / f"{era}_{seed}" for seed in (*TRAINING_SEEDS, *VALIDATION_SEEDS)}
    for seed, cube in cubes.items():
        sky = f"--size 96 --months 24 --seed {seed} --cloudiness {CLOUDINESS[seed % 4]}".split()
        sky += ["--all-satellites"] if seed % 4 == ALL_SATELLITES else []
        truth = Path(f"{cube}.truth.tif")
        yield [*run, "simulate", str(cube), "--era", era, "--overwrite", *sky], truth
        label = [*run, "label", str(cube), "--name", "dates", "--from-dates", str(truth)]
        yield label, work / f"{era}_{seed}.labelled"
    validation = [word for seed in VALIDATION_SEEDS for word in ("--validation-cube", str(cubes[seed]))]
    trained = work / f"{era}_trained.safetensors"
    train = [*run, "train", *(str(cubes[seed]) for seed in TRAINING_SEEDS), "--labels", "dates", *validation]
    # A training that ended says so in its run folder; one that was stopped goes on there.
    yield (
        [*train, "--out", str(trained), "--threads", str(threads), *f"{TRAINING[era]} {COMMON}".split()],
        trained.with_suffix(".run") / "result.json",
    )
    scenes = [str(cubes[seed]) for seed in VALIDATION_SEEDS]
    yield [sys.executable, str(HERE / "calibrate.py"), str(trained), "--out", str(out), "--cubes", *scenes], out
    seeds = [str(seed) for seed in TEST_SEEDS]
    yield [sys.executable, str(HERE / "measure.py"), str(out), "--seeds", *seeds], work / f"{era}.measured"


def main() -> None:
    """Run the steps that are not done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--era", choices=sorted(ERAS), required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of cubes and trainings")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for command, result in commands(options.era, options.work, options.out, threads=options.threads):
        if result.exists():
            continue
        print(shlex.join(command), flush=True)
        if options.dry_run:
            continue
        subprocess.run(command, check=True)
        if not result.exists():
            result.touch()


if __name__ == "__main__":
    main()
