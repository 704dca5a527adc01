"""The bar that commands show on stderr while they work, and the one way they print JSON."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from urbandelta.types import Progress

log = logging.getLogger("urbandelta")

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
"""The option of every command that prints data."""


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar with counts, time passed and time left; yields the callable that the library reports to.

    Where stderr is no terminal there is no bar; `--verbose` logs each tenth of the work instead.
    """
    if not sys.stderr.isatty():
        yield _logged(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)

        def report(done: int, total: int, message: str) -> None:
            text = f"{title}: {message}" if message else title
            bar.update(task, completed=done, total=total or None, description=text)

        yield report


def _logged(title: str) -> Progress:
    told = -1

    def report(done: int, total: int, message: str) -> None:
        nonlocal told
        tenth = 10 * done // total if total else -1
        if tenth > told:
            told = tenth
            log.info("%s: %d of %d %s", title, done, total, message)

    return report


def print_json(document: Any) -> None:
    """Data for programs, on stdout."""
    typer.echo(json_text(document))


def json_text(document: Any) -> str:
    """Data as JSON; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_plain(document), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
