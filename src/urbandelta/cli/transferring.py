"""Commands that adapt a network to a place: `transfer` trains it on tiles, `ensemble` combines several."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar


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
