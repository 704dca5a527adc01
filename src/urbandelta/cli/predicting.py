"""Commands that score: `plan` tells the cost, `predict` does it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.inspecting import CubeArgument, day
from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.products import Which
    from urbandelta.runs import Run


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What decides a prediction's scores, and with how many threads they are computed."""

    weights: Annotated[
        str,
        typer.Option(
            "--weights", metavar="FILE", help="Weights: .safetensors, Keras .hdf5, or the name of a shipped set."
        ),
    ]
    start: Annotated[str | None, typer.Option(help="First day of the steps [the first acquisition's].")] = None
    end: Annotated[str | None, typer.Option(help="Day before which the steps end [after the last one].")] = None
    stride: Annotated[int | None, typer.Option(help="Steps between windows [the era's, 5].")] = None
    tile: Annotated[int | None, typer.Option(help="Output pixels of a tile [chosen by memory].")] = None
    halo: Annotated[
        int | None, typer.Option(help="Pixels read around a tile; neighbours are blended over half of it [16].")
    ] = None
    mask_rule: Annotated[
        str, typer.Option(help="Which steps count: explicit (all), or published (see docs/inference.md).")
    ] = "explicit"
    precision: Annotated[str, typer.Option(help="fp32, or bf16 in the recurrence.")] = "fp32"
    engine: Annotated[str, typer.Option(help="auto, native, openvino or torch.")] = "auto"
    workers: Annotated[int | None, typer.Option(help="Threads [all usable cores].")] = None
    substitute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=SOURCE", help="Stand-in for a missing band or stream: B01=B02, B10=0, s1_dsc=s1_asc."
        ),
    ] = None
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROPERTY", help="Accept that processing_level, backscatter_coefficient or pixel_m differs."
        ),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of `prepare_run`, which `predict` takes as well."""
        return {
            "start": day(self.start, "--start"),
            "end": day(self.end, "--end"),
            "stride": self.stride,
            "tile": self.tile,
            "halo": self.halo,
            "engine": self.engine,
            "mask_rule": self.mask_rule,
            "precision": self.precision,
            "substitutions": self.substitute or (),
            "accepted": self.accept or (),
        }


class CogEach(StrEnum):
    """What `--cog` writes."""

    max = "max"
    window = "window"
    month = "month"


_COGS: dict[CogEach, Which] = {CogEach.max: "max", CogEach.window: "windows", CogEach.month: "monthly"}


@dataclass(frozen=True, kw_only=True)
class PlanOptions(RunOptions):
    """As for a prediction; a monitor brings its own weights."""

    weights: Annotated[
        str, typer.Option("--weights", metavar="FILE", help="Weights, as for predict; needed for a cube.")
    ] = ""


@takes_options
def plan(
    cube: Annotated[str, typer.Argument(metavar="CUBE|MONITOR", help="A cube, or a monitor's YAML file.")],
    *,
    options: PlanOptions,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Of a monitor: leave out acquisitions from this moment on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a prediction, or a monitor's fetch, would do and cost. Reads no pixel."""
    from urbandelta.cli import fetching

    if fetching.is_monitor(cube):
        fetching.plan_monitor(Path(cube), until=until, options=options, as_json=as_json)
        return
    if not options.weights or until is not None:
        raise typer.BadParameter(
            "a cube needs --weights FILE" if not options.weights else "--until belongs to a monitor; use --end"
        )
    document, lines = prediction_cost(cube, options.weights, workers=options.workers, **options.keywords())
    if as_json:
        print_json(document)
        return
    for line in lines:
        typer.echo(line)


def prediction_cost(
    cube: str, weights: str, *, workers: int | None, **keywords: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a prediction would do and cost, as plain values and as lines for people."""
    from urbandelta.plan import estimate
    from urbandelta.runs import prepare_run, usable_cores
    from urbandelta.store import open_cube
    from urbandelta.weights import find_weights

    opened = open_cube(cube)
    run = prepare_run(opened, find_weights(weights), **keywords)
    cost = estimate(
        opened,
        run.plan,
        run.weights.config,
        run.inputs.sources,
        workers=usable_cores() if workers is None else workers,
        seconds_per_window_tile=_time_window(run),
    )
    document = {
        **dataclasses.asdict(cost),
        "tile": run.plan.tile,
        "halo": run.plan.halo,
        "block_px": run.plan.block_px,
    }
    return document, (
        f"{cost.windows} windows over {cost.steps} steps; {_blocks(cost.blocks)}, {cost.tiles} tiles of "
        f"{run.plan.tile} px with a halo of {run.plan.halo} px",
        f"reads {cost.bytes_read / 1e6:.0f} MB (decoded), writes {cost.output_bytes / 1e6:.0f} MB (before compression)",
        f"needs about {cost.peak_bytes / 1e6:.0f} MB of memory and {_duration(cost.seconds)} "
        f"with {cost.workers} workers",
    )


def _time_window(run: Run) -> float:
    """Seconds that one worker takes for a window of a tile, measured on the recurrence, which is nearly all."""
    import numpy as np

    height, width = run.plan.patch
    windows = min(4, run.plan.slots)
    session = run.engine.session(run.network, height=height, width=width, slots=windows)
    gates = {
        path: session.encode(path, np.zeros((height, width, run.network.config.path_bands(path)), np.float32))
        for path in run.network.config.paths
    }
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        for path, half in gates.items():
            session.advance(path, half, 0, windows)
        seconds.append((time.perf_counter() - started) / windows)
    steps = sum(window.count for window in run.plan.windows) / len(run.plan.windows)
    return min(seconds) * steps


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@takes_options
def predict_command(
    cube: CubeArgument,
    *,
    options: RunOptions,
    out: Annotated[
        str, typer.Option("--out", metavar="SCORES", help="Score store to write, or to go on with after a stop.")
    ],
    cog: Annotated[
        Path | None, typer.Option("--cog", metavar="DIR", help="Also write GeoTIFFs of the scores into this folder.")
    ] = None,
    cog_each: Annotated[
        CogEach, typer.Option("--cog-each", help="With --cog: the maximum over time, or one file a window or month.")
    ] = CogEach.max,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace scores of another run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score every window of a cube, block by block.

    Killed at any moment, the same command goes on after the last finished block and ends with the same scores, bit by
    bit.
    """
    from urbandelta.infer import predict
    from urbandelta.products import export_cogs
    from urbandelta.scores import open_scores
    from urbandelta.weights import find_weights

    with progress_bar("predict") as progress:
        predict(
            cube,
            find_weights(options.weights),
            **options.keywords(),
            out=out,
            workers=options.workers,
            overwrite=overwrite,
            progress=progress,
        )
    scores = open_scores(out)
    written = export_cogs(scores, cog, which=_COGS[cog_each], overwrite=overwrite).written if cog else ()
    summary = {
        "scores": out,
        "windows": scores.sizes["window"],
        "shape": [scores.sizes["y"], scores.sizes["x"]],
        "snapshot": scores.attrs["snapshot"],
        "cogs": [str(path) for path in written],
    }
    if as_json:
        print_json(summary)
    else:
        typer.echo(f"{out}: {summary['windows']} windows of {scores.sizes['y']} x {scores.sizes['x']} px")
