"""`urbandelta evaluate`: scores against truth, beside baselines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.evaluation import Evaluation, Site
    from urbandelta.truth import TruthOptions


@dataclass(frozen=True, kw_only=True)
class TruthFlags:
    """How a file of truth is read."""

    date_field: Annotated[
        str | None, typer.Option(help="Field of the date of change; 2019 or 2019-05 mean some day in it.")
    ] = None
    last_date_field: Annotated[
        str | None, typer.Option(help="With it, --date-field is the last day without the change, this the first with.")
    ] = None
    class_field: Annotated[
        str | None, typer.Option(help="Field that says changed (not 0, not empty) or not (0); null is unknown.")
    ] = None
    changed: Annotated[
        list[str] | None, typer.Option(metavar="VALUE", help="Raster value or class that means change; repeatable.")
    ] = None
    extent: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Polygons outside of which the truth is unknown.")
    ] = None
    resample: Annotated[
        bool, typer.Option("--resample", help="Take a raster on another grid by its nearest pixels.")
    ] = False

    def options(self) -> TruthOptions:
        """As the library takes them."""
        from urbandelta.truth import TruthOptions

        return TruthOptions(
            changed_values=tuple(self.changed or ()),
            class_field=self.class_field,
            date_field=self.date_field,
            last_date_field=self.last_date_field,
            extent=self.extent,
            resample=self.resample,
        )


class Breaks(StrEnum):
    """Break detectors of pyxccd."""

    sccd = "sccd"
    cold = "cold"


@takes_options
def evaluate_command(
    scores: Annotated[str | None, typer.Argument(metavar="[SCORES", help="Score store of one site.")] = None,
    truth: Annotated[
        Path | None, typer.Argument(metavar="TRUTH]", help="Its truth: raster of 0 and 1 or of dates, or polygons.")
    ] = None,
    *,
    site: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SCORES,TRUTH", help="One of several sites, instead of SCORES TRUTH; repeatable."),
    ] = None,
    cube: Annotated[
        str | None, typer.Option(metavar="CUBE", help="Cube for the baselines [the one that the scores name].")
    ] = None,
    threshold: Annotated[float, typer.Option(help="A score of at least this is change.")] = 0.5,
    tolerance_days: Annotated[int, typer.Option(help="A date that is at most so far off counts as right.")] = 30,
    truth_flags: TruthFlags,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Compare with label-free maps.")] = True,
    xccd: Annotated[
        Breaks | None, typer.Option(help="Also run this break detector of pyxccd (slow; needs urbandelta[xccd]).")
    ] = None,
    block_px: Annotated[int, typer.Option(help="Side of the blocks that are resampled for intervals.")] = 32,
    bootstrap: Annotated[int, typer.Option(help="Rounds of resampling; 0 gives no intervals.")] = 500,
    sample: Annotated[
        int | None,
        typer.Option(help="Estimate areas from so many random pixels of each map class, as a field campaign would."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of resampling and sampling.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write evaluation.json, table.csv and plots into it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how good scores are, beside label-free baselines.

    Give SCORES TRUTH for one site, or --site for each of several, which are reported alone and pooled. Points as TRUTH
    (with --class-field) are taken as a random sample within each class of the map.
    """
    from urbandelta.evaluation import Options, evaluate_sites
    from urbandelta.evaluation_report import to_json

    options = Options(
        threshold=threshold,
        tolerance_days=tolerance_days,
        truth=truth_flags.options(),
        baselines=baselines,
        breaks=xccd.value if xccd else None,
        block_px=block_px,
        bootstrap=bootstrap,
        sample=sample,
        seed=seed,
    )
    with progress_bar("evaluate") as progress:
        found = evaluate_sites(_sites(scores, truth, site or [], cube), options=options, progress=progress)
    if out is not None:
        _write(found, out)
    if as_json:
        print_json(to_json(found))
    else:
        _print(found)
        if out is not None:
            typer.echo(f"written: {out}")


def _sites(scores: str | None, truth: Path | None, named: list[str], cube: str | None) -> list[Site]:
    from urbandelta.evaluation import Site

    if named and (scores is not None or cube is not None):
        raise typer.BadParameter("stands instead of SCORES TRUTH and of --cube", param_hint="--site")
    if not named:
        if scores is None or truth is None:
            raise typer.BadParameter("give both, or --site for each of several sites", param_hint="SCORES TRUTH")
        return [Site(name=Path(scores.rstrip("/")).name, scores=scores, truth=truth, cube=cube)]
    sites: list[Site] = []
    for text in named:
        name, _, pair = text.partition("=")
        source, comma, file = pair.rpartition(",")
        if not (name and source and comma and file):
            raise typer.BadParameter(f"{text!r} is not NAME=SCORES,TRUTH", param_hint="--site")
        sites.append(Site(name=name, scores=source, truth=file))
    return sites


def _write(found: Evaluation, folder: Path) -> None:
    from urbandelta.cli.progress import json_text
    from urbandelta.evaluation_plots import draw_plots
    from urbandelta.evaluation_report import to_json, write_csv

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json_text(to_json(found)) + "\n", encoding="utf-8")
    write_csv(found, folder / "table.csv")
    draw_plots(found, folder)


def _print(found: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    from urbandelta.evaluation_report import (
        area_lines,
        date_line,
        interval_text,
        method_title,
        notes,
        pixel_line,
        results_of,
    )

    for result in results_of(found):
        typer.echo(pixel_line(result))
        table = Table(
            "method", "threshold", "precision", "recall", "F1", "IoU", "kappa", "ROC-AUC", "PR-AUC", "best F1"
        )
        for name, method in result.methods.items():
            counts, ends = method.counts, method.intervals
            star = "" if name == "scores" else "*"
            table.add_row(
                method_title(name),
                f"{method.threshold:.3g}{star}",
                f"{counts.precision:.3f}",
                f"{counts.recall:.3f}",
                f"{counts.f1:.3f}{interval_text(ends, 'f1')}",
                f"{counts.iou:.3f}",
                f"{counts.kappa:.3f}",
                f"{method.roc_auc:.3f}{interval_text(ends, 'roc_auc')}",
                f"{method.pr_auc:.3f}{interval_text(ends, 'pr_auc')}",
                f"{method.best_f1:.3f}",
            )
        Console(width=None if Console().is_terminal else 160).print(table)
        if len(result.methods) > 1:
            typer.echo("* the threshold that suits the baseline best on this truth")
        calibration = result.methods["scores"].calibration
        if calibration is not None:
            typer.echo(f"calibration: expected error {calibration.expected_error:.3f}")
        for line in (*area_lines(result), date_line(result.dates)):
            typer.echo(line)
        typer.echo("")
    for note in notes(found):
        typer.echo(f"- {note}")
