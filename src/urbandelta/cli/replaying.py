"""`urbandelta replay`: make a result again from its manifest and say whether it is the same."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar

if TYPE_CHECKING:
    from urbandelta.manifests import ReplayReport

__all__ = ["replay_command"]


def replay_command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A file of runs/ in a monitor's store.")],
    *,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Keep what is made in this new folder [thrown away]."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the scores and products of an update again, from the cube as it was, and compare them by hash.

    Code 1 if anything comes out otherwise.
    """
    if into is not None:
        report = _replay(manifest, into)
    else:
        with tempfile.TemporaryDirectory(prefix="urbandelta-replay-") as folder:
            report = _replay(manifest, Path(folder) / "replay")
    if as_json:
        print_json({**dataclasses.asdict(report), "equal": report.equal})
    else:
        _tell(report)
    if not report.equal:
        raise typer.Exit(1)


def _replay(manifest: Path, folder: Path) -> ReplayReport:
    from urbandelta.manifests import replay

    with progress_bar("replay") as progress:
        return replay(manifest, folder, progress=progress)


def _tell(report: ReplayReport) -> None:
    counts = Counter(report.outputs.values())
    files = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "none"
    typer.echo(f"{report.manifest}: {'equal' if report.equal else 'DIFFERENT'}: scores {report.scores}; files {files}")
    for name, verdict in report.outputs.items():
        if verdict in ("different", "missing"):
            typer.echo(f"  {name}: {verdict}")
    if not report.equal:
        for note in report.notes:
            typer.echo(f"  {note}", err=True)
