"""Commands that adapt a network to a place: `transfer` trains it on tiles, `ensemble` combines several."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.evaluating import TruthFlags
from urbandelta.cli.inspecting import day
from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import AsJson, print_json, progress_bar
from urbandelta.cli.run_options import RunFlags, speaks

if TYPE_CHECKING:
    from urbandelta.training import TransferResult, TransferSettings


class RuleName(StrEnum):
    """How scores are combined."""

    mean = "mean"
    median = "median"
    max = "max"
    mean_logit = "mean-logit"


def ensemble(
    scores: Annotated[
        list[str], typer.Argument(metavar="SCORES...", help="Score stores of the same windows, by different weights.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="OUT", help="Score store to write, or to go on with.")],
    rule: Annotated[
        RuleName, typer.Option(help="How scores are combined; mean-logit follows sure members more than mean does.")
    ] = RuleName.mean,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace scores of another run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Combine the scores of several networks into one score store, with their spread.

    A pixel without a score in any member has none in the combination. Killed at any moment, the same command goes on.
    """
    from urbandelta.ensemble import combine_scores
    from urbandelta.repository import icechunk_errors

    with progress_bar("ensemble") as progress, icechunk_errors(scores[0]):
        made = combine_scores(scores, out=out, rule=rule.value, overwrite=overwrite, progress=progress)
    summary: dict[str, Any] = {
        "scores": out,
        "rule": rule.value,
        "members": made.attrs["members"],
        "windows": made.sizes["window"],
        "shape": [made.sizes["y"], made.sizes["x"]],
        "snapshot": made.attrs["snapshot"],
    }
    if as_json:
        print_json(summary)
        return
    size = f"{summary['windows']} windows of {made.sizes['y']} x {made.sizes['x']} px"
    typer.echo(f"{out}: {rule.value} of {len(scores)}, {size}")


@dataclass(frozen=True, kw_only=True)
class TransferFlags:
    """What decides the weights; None is the default of `TransferSettings`."""

    windows: Annotated[
        int | None, typer.Option(help="Windows whose maximum is compared with the labels [10, or as many as fit].")
    ] = None
    first: Annotated[
        tuple[int, int] | None, typer.Option(help="First step of the first window, at least and at most [the era's].")
    ] = None
    increment: Annotated[
        tuple[int, int] | None, typer.Option(help="Steps from a window to the next, at least and at most [the era's].")
    ] = None
    epochs: Annotated[int | None, typer.Option(help="Epochs: every training tile once [20].")] = None
    samples: Annotated[int | None, typer.Option(help="Samples of an epoch [every training tile once].")] = None
    batch: Annotated[int | None, typer.Option(help="Tiles of a batch on each device [8].")] = None
    optimiser: Annotated[str | None, typer.Option(help="adamw, or sgd as published [adamw].")] = None
    rate: Annotated[float | None, typer.Option(help="Learning rate [0.001; sgd times the devices].")] = None
    loss: Annotated[str | None, typer.Option(help="tanimoto as published, or tanimoto+bce [tanimoto].")] = None
    augment: Annotated[str | None, typer.Option(help="published (16 forms), flips, rich or none [published].")] = None
    freeze: Annotated[str | None, typer.Option(help="none, or encoder: only recurrence and head learn [none].")] = None
    batch_norm: Annotated[str | None, typer.Option(help="images (each once, no padding) or published [images].")] = None
    dropout: Annotated[float | None, typer.Option(help="Recurrent dropout, 0 to 1 [0].")] = None
    input_scale: Annotated[str | None, typer.Option(help="data or none, as in train [data].")] = None
    balance: Annotated[
        float | None, typer.Option(help="Share of the samples that hold labelled change [as it comes].")
    ] = None
    monitor: Annotated[
        str | None, typer.Option(help="Validation figure that chooses the weights: pr_auc or loss [pr_auc].")
    ] = None
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without better weights [never].")] = (
        None
    )
    seed: Annotated[int | None, typer.Option(help="Of draws, augmentation and folds [0].")] = None

    def settings(self) -> TransferSettings:
        """What `transfer` takes."""
        from urbandelta.training import TransferSettings

        given = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return TransferSettings(**{name: value for name, value in given.items() if value is not None})


@takes_options
def transfer_command(
    cubes: Annotated[list[str], typer.Argument(metavar="CUBE...", help="Folders or URLs of cubes.")],
    *,
    labels: Annotated[
        Path, typer.Option("--labels", metavar="FILE", help="Polygons or a raster of what changed within the years.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="WEIGHTS", help="Weights to write (.safetensors); with folds WEIGHTS.fold0 etc."),
    ],
    init: Annotated[
        str, typer.Option("--init", metavar="WEIGHTS", help="Weights to go on from: a file or a shipped set.")
    ],
    start: Annotated[str | None, typer.Option(help="First day that the labels speak of [the cube's].")] = None,
    end: Annotated[str | None, typer.Option(help="Day before which they end [the cube's].")] = None,
    truth: TruthFlags,
    tiles: Annotated[
        Path | None,
        typer.Option("--tiles", metavar="FILE", help="Polygons of the labelled tiles; nothing is known outside."),
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels.")] = 32,
    folds: Annotated[int | None, typer.Option(help="Cross-validate by so many folds of blocks of tiles.")] = None,
    fold: Annotated[
        list[int] | None, typer.Option(help="Train only this fold, from 0; may be given repeatedly [all].")
    ] = None,
    buffer: Annotated[
        int, typer.Option(help="Tiles nearer than so many pixels to one that validates do not train.")
    ] = 16,
    flags: TransferFlags,
    run_flags: RunFlags,
    memory_mb: Annotated[int, typer.Option(help="What pixels may take in memory.")] = 2000,
    as_json: AsJson = False,
) -> None:
    """Adapt weights to a place by a few tiles that say whether anything changed within some years.

    Killed at any moment, the same command goes on after the last checkpoint and ends with the same weights.
    """
    from urbandelta.training import transfer

    settings = flags.settings()
    with progress_bar("transfer") as progress:
        result = transfer(
            cubes,
            labels=labels,
            out=out,
            init=init,
            start=day(start, "--start"),
            end=day(end, "--end"),
            truth=truth.options(),
            tiles=tiles,
            tile=tile,
            folds=folds,
            fold=fold or (),
            buffer_px=buffer,
            settings=settings,
            **run_flags.arguments(),
            budget_bytes=memory_mb * 1_000_000,
            progress=progress,
        )
    if speaks():
        _tell(result, as_json=as_json)


def _tell(result: TransferResult, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    for item in result.folds:
        state = "trained before, nothing to do" if item.done_before else f"epoch {item.best_epoch} of {item.epochs}"
        if item.resumed_at is not None:
            state += f", resumed at batch {item.resumed_at}"
        figures = [("PR-AUC", "pr_auc"), ("F1", "f1"), ("loss", "loss")] if item.scores else []
        shown = "".join(f", {title} {item.scores[name]:.3f}" for title, name in figures)
        counts = f"{item.tiles['train']} tiles train, {item.tiles['validation']} validate"
        typer.echo(f"{item.out}: {counts}; {state}{shown}")
    if result.summary is not None:
        typer.echo(f"scores of the folds: {result.summary}")
