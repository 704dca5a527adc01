"""`urbandelta observation-loss`: the same cube with fewer observations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.evaluating import TruthFlags
from urbandelta.cli.inspecting import CubeArgument
from urbandelta.cli.options import takes_options
from urbandelta.cli.predicting import RunOptions
from urbandelta.cli.progress import AsJson, json_text, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.observation_loss import LossStudy


@takes_options
def observation_loss(
    cube: CubeArgument,
    *,
    options: RunOptions,
    truth: Annotated[Path, typer.Option(metavar="FILE", help="Truth, as for evaluate.")],
    truth_flags: TruthFlags,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="drop:SHARE, direction:ascending, sar-only, optical-only, platform:NAME or gap:DAYS; repeatable "
            "[all that the cube allows].",
        ),
    ] = None,
    share: Annotated[
        list[float] | None, typer.Option(help="Shares that are dropped at random, without --rule [0.25 0.5 0.75].")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each random rule.")] = 1,
    threshold: Annotated[float, typer.Option(help="A score of at least this is change.")] = 0.5,
    tolerance_days: Annotated[int, typer.Option(help="A date that is at most so far off counts as right.")] = 30,
    block_px: Annotated[int, typer.Option(help="Side of the blocks that are resampled for intervals.")] = 32,
    bootstrap: Annotated[int, typer.Option(help="Rounds of resampling; 0 gives no intervals.")] = 500,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write study.json, table.csv and a plot into it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what is lost when observations are: dropped, one orbit direction, one sensor, a satellite, a long gap.

    Each rule is predicted on a view of the cube and judged by the same truth; no cube is written.
    """
    from urbandelta.degrade import parse_rule
    from urbandelta.observation_loss import study_loss
    from urbandelta.observation_loss_report import study_json
    from urbandelta.weights import find_weights

    with progress_bar("observation-loss") as progress:
        study = study_loss(
            cube,
            find_weights(options.weights),
            truth,
            rules=[parse_rule(text) for text in rule] if rule else None,
            shares=tuple(share) if share else (0.25, 0.5, 0.75),
            seeds=seeds,
            threshold=threshold,
            tolerance_days=tolerance_days,
            truth_options=truth_flags.options(),
            block_px=block_px,
            bootstrap=bootstrap,
            progress=progress,
            workers=options.workers,
            **options.keywords(),
        )
    if out is not None:
        _write(study, out)
    if as_json:
        print_json(study_json(study))
    else:
        _print(study)
        if out is not None:
            typer.echo(f"written: {out}")


def _write(study: LossStudy, folder: Path) -> None:
    from urbandelta.observation_loss_report import draw_study, study_json, write_study_csv

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json_text(study_json(study)) + "\n", encoding="utf-8")
    write_study_csv(study, folder / "table.csv")
    draw_study(study, folder / "observation_loss.png")


def _print(study: LossStudy) -> None:
    import math

    from rich.console import Console
    from rich.table import Table

    typer.echo(
        f"{study.cube}: {study.compared} pixels, {study.changed} of them changed; weights {study.weights}, "
        f"threshold {study.threshold:g}"
    )
    table = Table("rule", "seed", "acquisitions", "windows", "F1", "F1 against full", "ROC-AUC", "PR-AUC", "date error")
    for run in study.runs:
        if run.error:
            table.add_row(run.rule.text, str(run.seed), str(run.acquisitions), "0", "no prediction", "", "", "", "")
            continue
        low, high = run.f1_change
        table.add_row(
            run.rule.text,
            str(run.seed) if run.rule.random else "",
            str(run.acquisitions),
            str(run.windows),
            f"{run.f1:.3f}",
            ""
            if run is study.full
            else f"{run.f1 - study.full.f1:+.3f}" + ("" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"),
            f"{run.roc_auc:.3f}",
            f"{run.pr_auc:.3f}",
            "" if run.dates is None else f"{run.dates.median:+.0f} d, |{run.dates.median_absolute:.0f}| d",
        )
    Console(width=None if Console().is_terminal else 140).print(table)
    for run in study.runs:
        if run.substitutions:
            typer.echo(f"- {run.rule.text}: {', '.join(run.substitutions)}")
        if run.error:
            typer.echo(f"- {run.rule.text}: {run.error}")
        elif run.unscored > study.full.unscored:
            typer.echo(f"- {run.rule.text}: {run.unscored} pixels could not be scored; they count as not flagged")
    typer.echo("- sar-only, optical-only: the other sensor stays frozen at what it showed in its first 60 days")
    for note in study.notes:
        typer.echo(f"- {note}")
