"""What `windows --training` takes and prints; `train` takes the same options."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.progress import print_json
from urbandelta.errors import ConfigError

if TYPE_CHECKING:
    from urbandelta.split import SplitOptions, TrainingPlan
    from urbandelta.store import Cube


@dataclass(frozen=True, kw_only=True)
class SplitFlags:
    """How tiles and windows get their roles. None is the default of `split.SplitOptions`."""

    split: Annotated[
        str | None,
        typer.Option(help="blocks, checkerboard (as published: it leaks), or whole (one role) [blocks]."),
    ] = None
    role: Annotated[str | None, typer.Option(help="Role of a whole cube: train, validation or test.")] = None
    tile: Annotated[int | None, typer.Option(help="Side of a training tile in pixels [32].")] = None
    block_tiles: Annotated[int | None, typer.Option(help="Side of a block in tiles [up to 4].")] = None
    buffer_px: Annotated[int | None, typer.Option(help="Pixels between tiles of different roles [16].")] = None
    validation: Annotated[float | None, typer.Option(help="Share of the tiles for validation [0.2].")] = None
    test: Annotated[float | None, typer.Option(help="Share of the tiles for test [0].")] = None
    time_split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATE|SHARE",
            help="Train on windows before, judge by windows behind; twice: validation, then test [no split in time].",
        ),
    ] = None
    time_buffer: Annotated[float | None, typer.Option(help="Days more between windows of different roles [0].")] = None
    label_days: Annotated[
        float | None,
        typer.Option(help="How far labels look beyond a window; 0 for labels from dates [one window's length]."),
    ] = None
    window_share: Annotated[
        float | None, typer.Option(help="Share of the windows, drawn at random [1; checkerboard 0.1].")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of every draw [0].")] = None

    @property
    def given(self) -> list[str]:
        """Names of the options that were given, as typed."""
        return [
            f"--{item.name.replace('_', '-')}"
            for item in dataclasses.fields(self)
            if getattr(self, item.name) is not None
        ]

    def options(self) -> SplitOptions:
        """What `plan_training` takes."""
        from urbandelta.split import SplitOptions

        values: dict[str, Any] = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if getattr(self, item.name) is not None
        }
        if "time_buffer" in values:
            values["time_buffer_days"] = values.pop("time_buffer")
        if self.time_split:
            values["time_split"] = tuple(_moment_or_share(text) for text in self.time_split)
        return SplitOptions(**values)


def _moment_or_share(text: str) -> float | Any:
    from urbandelta.cli.inspecting import day

    # A year alone is a date as well, so only what has a decimal point is a share.
    if "." not in text or "-" in text:
        return day(text, "--time-split")
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a date nor a share", param_hint="--time-split") from None


def read_plan(path: Path) -> TrainingPlan:
    """The plan that `windows --training --json` wrote.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds no plan.
    """
    from urbandelta.split import TrainingPlan

    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: no training plan ({error}); `urbandelta windows CUBE --training --json` writes them"
        ) from error
    return TrainingPlan.from_json(document)


def plan_windows(
    cube: Cube, flags: SplitFlags, *, start: Any = None, end: Any = None, stride: int | None = None
) -> TrainingPlan:
    """Plan a training from the windows that labels will have; reads no pixel."""
    import numpy as np

    from urbandelta.plan import cube_steps
    from urbandelta.split import plan_training
    from urbandelta.windows import find_windows

    era, options = cube.era, flags.options()
    steps, _, _ = cube_steps(cube, cube.streams, start=start, end=end)
    found = find_windows(
        steps,
        length=np.timedelta64(era.window_days, "D"),
        min_obs=era.min_obs,
        max_obs=era.max_obs,
        stride=era.stride_training if stride is None else stride,
        # A label that looks beyond its window needs a window there.
        triplets=options.label_days != 0,
    )
    return plan_training(cube.grid.shape, found, window_days=era.window_days, options=options)


def print_plan(plan: TrainingPlan, cube: Cube, *, as_csv: bool, as_json: bool) -> None:
    """Counts by role; as JSON the whole plan, as CSV its windows with their roles."""
    from urbandelta.split import leaks
    from urbandelta.windows import time_text

    found = leaks(plan)
    if as_json:
        origin = {"cube": cube.url, "snapshot": cube.snapshot}
        print_json(
            plan.to_json() | origin | {"counts": plan.counts, "leaks": [dataclasses.asdict(leak) for leak in found]}
        )
        return
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        for index, window in enumerate(plan.windows):
            count = window.last - window.first + 1
            writer.writerow([index, time_text(window.start), time_text(window.end), count, " ".join(window.roles)])
        return
    options = plan.options
    typer.echo(f"{cube.url}: {len(plan.tiles)} tiles of {options.tile} px, split {options.split}, seed {options.seed}")
    if options.split == "blocks":
        typer.echo(f"blocks of {options.block_tiles} x {options.block_tiles} tiles, {options.buffer_px} px apart")
    for moment in options.time_split:
        typer.echo(f"split in time at {str(moment)[:10]}, labels look {options.label_days:g} days beyond their window")
    typer.echo(f"{'role':12s} {'tiles':>7s} {'windows':>8s} {'samples':>10s}")
    for role, counts in plan.counts.items():
        cells = f"{counts.get('windows', ''):>8} {counts.get('samples', ''):>10}"
        typer.echo(f"{role:12s} {counts['tiles']:7d} {cells}".rstrip())
    for leak in found:
        typer.echo(f"leak: {leak}")
    if not found:
        typer.echo("leaks: none")
