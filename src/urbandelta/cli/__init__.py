"""The command line: parse, call one function, print.

Results go to stdout, logs and progress to stderr. Exit code 0: done; 1: an urbandelta error, told in one line; 2:
wrong usage.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import NoReturn

import typer

from urbandelta import __version__
from urbandelta.cli import (
    correcting,
    degrading,
    demonstrating,
    evaluating,
    eventing,
    fetching,
    importing,
    importing_published,
    inspecting,
    labelling,
    picturing,
    predicting,
    replaying,
    reporting,
    serving,
    simulating,
    starting,
    training,
    transferring,
    updating,
    weighing,
    zoning,
)
from urbandelta.errors import UrbandeltaError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="urbandelta",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Watch cities change from space: urban change from radar and optical satellite time series.",
)
app.command("demo")(demonstrating.demo)
app.command("simulate")(simulating.simulate_command)
importing.app.command("tfrecord")(importing_published.import_tfrecord)
importing.app.command("scores")(importing_published.import_scores)
app.add_typer(importing.app, name="import")
app.command("toa")(correcting.toa)
app.command("info")(inspecting.info)
app.command("windows")(inspecting.windows)
app.command("label")(labelling.label)
app.command("plan")(predicting.plan)
app.command("init")(starting.init)
app.command("fetch")(fetching.fetch_command)
app.command("doctor")(fetching.doctor_command)
app.command("train")(training.train_command)
app.command("predict")(predicting.predict_command)
app.command("replay")(replaying.replay_command)
app.command("evaluate")(evaluating.evaluate_command)
app.command("observation-loss")(degrading.observation_loss)
app.command("transfer")(transferring.transfer_command)
app.command("ensemble")(transferring.ensemble)
app.command("events")(eventing.events)
app.command("export")(reporting.export)
app.command("report")(reporting.report)
app.command("update")(updating.update_command)
app.command("picture")(picturing.picture)
app.command("timelapse")(picturing.timelapse)
app.command("zonal")(zoning.zonal)
app.command("serve")(serving.serve)
app.add_typer(weighing.app, name="weights")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"urbandelta {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: bool = typer.Option(False, "--version", is_eager=True, callback=_show_version, help="Print the version."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is done, to stderr."),
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Entry point of the `urbandelta` command."""
    try:
        # Typer itself explains wrong usage (code 2), and goes quietly where the reader of stdout has seen enough.
        app()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print("urbandelta: stopped; what was committed is kept, run the same command to go on", file=sys.stderr)
            _silence_clean_up()
        raise
    except UrbandeltaError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk or a missing permission is nobody's bug; the message of the system names file and cause.
        _fail(f"{error}; free the disk or check the path, then run it again")


def _silence_clean_up() -> None:
    """Keep libraries from telling, as Python ends, that the stop cut their work short: the person asked for it.

    Zarr's event loop, stopped in the midst of a chunk, warns by its log, by coroutines never awaited and by an error
    of its exit callback. The callbacks still run, so temporary folders go.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None


def _fail(message: str) -> NoReturn:
    print(f"urbandelta: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
