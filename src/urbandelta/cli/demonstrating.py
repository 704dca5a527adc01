"""`urbandelta demo`: the whole chain on a simulated scene."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for everything that the demo makes.")
    ] = Path("demo"),
    era: Annotated[str, typer.Option(help="s12 (Sentinel-1 and 2) or ers12ls5 (ERS and Landsat 5).")] = "s12",
    size: Annotated[int, typer.Option(help="Height and width of the scene in pixels.")] = 128,
    months: Annotated[int, typer.Option(help="Length of the series.")] = 24,
    seed: Annotated[int, typer.Option(help="Chooses the scene.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Simulate a city, import its scenes, score them, and write a report to open in a browser."""
    from urbandelta.demo import run_demo

    made = run_demo(out, era=era, size=size, months=months, seed=seed, bar=progress_bar)
    serve = shlex.join(["urbandelta", "serve", str(made.scores), "--cube", str(made.cube)])
    if as_json:
        print_json({**{name: str(path) for name, path in vars(made).items()}, "serve": serve})
        return
    typer.echo(f"report: {made.report}")
    typer.echo(f"map and history of each pixel: {serve}")
