"""The command that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import AsJson, print_json, progress_bar
from urbandelta.cli.run_options import RunFlags, speaks
from urbandelta.cli.splitting import SplitFlags, read_plan

if TYPE_CHECKING:
    from urbandelta.training import TrainingResult, TrainingSettings
    from urbandelta.weights import Weights


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """What decides the weights; None is the default of `TrainingSettings`."""

    epochs: Annotated[int | None, typer.Option(help="Epochs, each followed by a validation [20].")] = None
    batches_per_epoch: Annotated[
        int | None, typer.Option(help="Batches of an epoch on each device [all training samples].")
    ] = None
    batch: Annotated[int | None, typer.Option(help="Samples of a batch on each device [16].")] = None
    optimiser: Annotated[str | None, typer.Option(help="adamw, or sgd as published [adamw].")] = None
    rate: Annotated[float | None, typer.Option(help="Learning rate [adamw 0.004, sgd 0.001 times the devices].")] = None
    loss: Annotated[str | None, typer.Option(help="tanimoto+bce, or tanimoto as published [tanimoto+bce].")] = None
    batch_norm: Annotated[str | None, typer.Option(help="images (each once, no padding) or published [images].")] = None
    dropout: Annotated[float | None, typer.Option(help="Recurrent dropout, 0 to 1 [0].")] = None
    input_scale: Annotated[
        str | None, typer.Option(help="data (each band by its deviation, folded into the weights) or none [data].")
    ] = None
    variant: Annotated[str | None, typer.Option(help="combined, sar or optical [combined].")] = None
    max_steps: Annotated[
        int | None, typer.Option(help="Show only so many steps of a window, drawn at random [all].")
    ] = None
    balance: Annotated[
        float | None, typer.Option(help="Share of the samples that hold labelled change [as it comes].")
    ] = None
    augment: Annotated[str | None, typer.Option(help="flips (mirrored and turned) or none [flips].")] = None
    monitor: Annotated[
        str | None, typer.Option(help="Validation figure that chooses the weights: pr_auc or loss [pr_auc].")
    ] = None
    validation_samples: Annotated[int | None, typer.Option(help="Samples of a validation [all].")] = None
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without better weights [never].")] = (
        None
    )
    precision: Annotated[str | None, typer.Option(help="32, bf16-mixed or 16-mixed (GPU) [32].")] = None

    def settings(self, seed: int | None) -> TrainingSettings:
        """What `train` takes."""
        from urbandelta.training.settings import TrainingSettings

        given = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if getattr(self, item.name) is not None
        }
        if "batches_per_epoch" in given:
            given["batches"] = given.pop("batches_per_epoch")
        if seed is not None:
            given["seed"] = seed
        return TrainingSettings(**given)


@takes_options
def train_command(
    cubes: Annotated[
        list[str] | None, typer.Argument(metavar="CUBE...", help="Folders or URLs of cubes with labels.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="WEIGHTS", help="Weights to write (.safetensors).")],
    labels: Annotated[str, typer.Option("--labels", metavar="NAME", help="Labels to learn from.")] = "synthetic",
    training: TrainingFlags,
    validation_cube: Annotated[
        list[str] | None,
        typer.Option("--validation-cube", metavar="CUBE", help="Cube to validate on, whole; may be given repeatedly."),
    ] = None,
    tfrecords: Annotated[
        list[Path] | None,
        typer.Option(
            "--tfrecords",
            metavar="DIR",
            help="In place of cubes: windows of the published scripts, SITE_ROW_COLUMN.tfrecords; repeatable.",
        ),
    ] = None,
    validation_tfrecords: Annotated[
        list[Path] | None,
        typer.Option("--validation-tfrecords", metavar="DIR", help="Windows to validate on, whole; repeatable."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Plan of `windows --training --json`, in place of a split."),
    ] = None,
    flags: SplitFlags,
    init: Annotated[
        str | None, typer.Option("--init", metavar="WEIGHTS", help="Weights to go on from: a file or a shipped set.")
    ] = None,
    run_flags: RunFlags,
    as_json: AsJson = False,
) -> None:
    """Train the network on labelled cubes, or on windows that the published scripts wrote.

    Killed at any moment, the same command goes on after the last checkpoint and ends with the same weights. The best
    weights so far are always in --out.
    """
    from urbandelta.training import train
    from urbandelta.weights import find_weights

    settings = training.settings(flags.seed)
    init_weights = None if init is None else find_weights(init)
    if tfrecords or validation_tfrecords:
        if cubes or validation_cube or plan is not None:
            raise typer.BadParameter(
                "windows of files do not train together with cubes; leave cubes and --plan out",
                param_hint="--tfrecords",
            )
        _train_windows(
            tfrecords or (), validation_tfrecords or (), out, settings, flags, run_flags, init_weights, as_json
        )
        return
    if not cubes:
        raise typer.BadParameter("name a cube at least, or --tfrecords", param_hint="CUBE...")
    if plan is not None and (given := [name for name in flags.given if name != "--seed"]):
        raise typer.BadParameter(f"a plan is a split already; leave out {', '.join(given)}", param_hint="--plan")
    chosen: Any = None
    if plan is not None:
        chosen = read_plan(plan)
    elif validation_cube and (given := [name for name in flags.given if name not in ("--seed", "--tile")]):
        raise typer.BadParameter(
            f"with validation cubes the others train whole; leave out {', '.join(given)}",
            param_hint="--validation-cube",
        )
    elif validation_cube:
        chosen = dataclasses.replace(flags.options(), split="whole", role="train")
    elif flags.given:
        chosen = flags.options()
    with progress_bar("train") as progress:
        result = train(
            cubes,
            out=out,
            labels=labels,
            validation=validation_cube or (),
            split=chosen,
            settings=settings,
            init=init_weights,
            **run_flags.arguments(),
            progress=progress,
        )
    if speaks():
        _tell(result, as_json=as_json)


def _train_windows(
    folders: Sequence[Path],
    validation: Sequence[Path],
    out: Path,
    settings: TrainingSettings,
    flags: SplitFlags,
    run_flags: RunFlags,
    init: Weights | None,
    as_json: bool,
) -> None:
    from urbandelta.training import train_windows

    arguments = run_flags.arguments()
    unusual = [*arguments.pop("substitutions"), *arguments.pop("accepted")]
    if unusual:
        raise typer.BadParameter("windows of files have all bands; leave --substitute and --accept out")
    if validation and (given := [name for name in flags.given if name != "--seed"]):
        raise typer.BadParameter(
            f"with validation windows the others train whole; leave out {', '.join(given)}",
            param_hint="--validation-tfrecords",
        )
    with progress_bar("train") as progress:
        result = train_windows(
            folders,
            out=out,
            validation=validation,
            split=flags.options() if flags.given and not validation else None,
            settings=settings,
            init=init,
            **arguments,
            progress=progress,
        )
    if speaks():
        _tell(result, as_json=as_json)


def _tell(result: TrainingResult, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    state = "trained before, nothing to do" if result.done_before else f"best of {result.epochs} epochs"
    if result.resumed_at is not None:
        state += f", resumed at batch {result.resumed_at}"
    typer.echo(f"{result.out}: {state} (epoch {result.best_epoch}); checkpoints and logs in {result.run}")
    names = {"pr_auc": "PR-AUC", "f1": "F1", "mae": "MAE", "rmse": "RMSE", "msle": "MSLE"}
    for name, value in result.scores.items():
        typer.echo(f"  {names.get(name, name.replace('_', ' ')):18s} {value:.4f}")
