"""`urbandelta label`: training labels of a cube without a hand-drawn map."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.inspecting import CubeArgument, day
from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.label_plan import Looks
    from urbandelta.label_store import Labels, LabelSummary


def label(
    cube: CubeArgument,
    name: Annotated[str, typer.Option(help="What to call the labels; a cube can have several sets.")] = "synthetic",
    mode: Annotated[
        str, typer.Option(help="corrected, or reference: as published, faults included (see docs/labels.md).")
    ] = "corrected",
    shift: Annotated[
        float | None, typer.Option(help="Added to the built-up index [0.25]; more where built-up ground is dark.")
    ] = None,
    looks: Annotated[
        str | None, typer.Option(metavar="auto|N", help="Looks of the radar [the era's]; auto estimates them.")
    ] = None,
    from_dates: Annotated[
        Path | None,
        typer.Option(
            "--from-dates",
            metavar="TRUTH.tif",
            help="Label single windows from known dates of change: int32 days since 1970-01-01, -1 none.",
        ),
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day of the steps [the first acquisition's].")] = None,
    end: Annotated[str | None, typer.Option(help="Day before which the steps end [after the last one].")] = None,
    stride: Annotated[int | None, typer.Option(help="Steps between windows [the era's for training, 1].")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads [all usable cores].")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace labels of another run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Label every window of a cube, and keep the labels with the cube.

    A label is high where radar says that something changed inside a window and the built-up index differs between the
    windows before and after. Where one of them never sees the ground there is no label. Killed at any moment, the same
    command goes on after the last finished block and ends with the same labels, bit by bit. The cube itself stays as it
    is: labels lie on a branch of their own.
    """
    from urbandelta.label_store import summarise
    from urbandelta.labelling import label_cube

    with progress_bar("label") as progress:
        labels = label_cube(
            cube,
            name=name,
            mode=mode,
            shift=shift,
            looks=_looks(looks),
            dates=from_dates,
            start=day(start, "--start"),
            end=day(end, "--end"),
            stride=stride,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    summary = summarise(labels)
    if as_json:
        print_json(_document(cube, labels, summary))
        return
    looked = labels.attributes["identity"].get("looks")
    typer.echo(
        f"{cube}: labels {name} of {summary.windows} windows, {summary.counted:.1%} of their pixels count; mean "
        f"{summary.mean:.4f}, {summary.above:.2%} above 0.5" + ("" if looked is None else f"; {looked:.3g} looks")
    )


def _looks(text: str | None) -> Looks | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor auto", param_hint="--looks") from None


def _document(cube: str, labels: Labels, summary: LabelSummary) -> dict[str, Any]:
    identity = labels.attributes["identity"]
    betas = labels.betas[~(labels.betas != labels.betas).any(axis=1)]
    return {
        "cube": cube,
        "name": labels.name,
        "rule": identity["rule"],
        "mode": identity.get("mode"),
        "windows": summary.windows,
        "shape": list(labels.grid.shape),
        "pixels_labelled": summary.pixels,
        "share_labelled": summary.counted,
        "mean": summary.mean,
        "share_above_half": summary.above,
        "looks": identity.get("looks", math.nan),
        "betas": {
            side: [float(betas[:, number].min()), float(betas[:, number].max())] if len(betas) else None
            for number, side in enumerate(("before", "after"))
        },
        "snapshot": labels.snapshot,
    }
