"""Commands that look at a cube: `info` (reads pixels for --coregistration only), `windows`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import AsJson, print_json
from urbandelta.cli.splitting import SplitFlags, plan_windows, print_plan
from urbandelta.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from urbandelta.coregistration import PairShift
    from urbandelta.store import Cube

CubeArgument = Annotated[str, typer.Argument(metavar="CUBE", help="Folder or URL of a cube.")]


def info(
    cube: CubeArgument,
    coregistration: Annotated[
        bool,
        typer.Option(
            "--coregistration",
            help="Compare the satellites of each stream: how far are their images off each other?",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a cube holds: streams, dates, valid fractions, bytes, snapshots."""
    from rich.console import Console
    from rich.table import Table

    from urbandelta.store import open_cube

    opened = open_cube(cube)
    document = _describe(opened)
    shifts = _shifts(opened) if coregistration else []
    if as_json:
        print_json({**document, **({"coregistration": [_as_dict(pair) for pair in shifts]} if coregistration else {})})
        return
    stored = document["bytes_stored"]
    size = "size unknown" if stored is None else f"{stored / 1e6:.1f} MB"
    typer.echo(f"{cube}: era {document['era']}, {document['grid']}, {size}, snapshot {document['snapshot']}")
    table = Table("stream", "acquisitions", "first", "last", "valid", "bands", "platforms", "stored as")
    for stream in document["streams"]:
        table.add_row(
            stream["name"],
            str(stream["count"]),
            stream["first"][:10],
            stream["last"][:10],
            f"{stream['valid_fraction']:.0%}",
            " ".join(stream["bands"]),
            " ".join(stream["platforms"]) or "-",
            f"{stream['dtype']} x {stream['scale']:g} + {stream['offset']:g}",
        )
    Console().print(table)
    history = document["snapshots"]
    typer.echo(f"{len(history)} snapshots; the newest:")
    for commit in history[:5]:
        typer.echo(f"  {commit['id']}  {commit['time'][:19]}  {commit['message']}")
    if coregistration:
        typer.echo("" if shifts else "no stream has two satellites to compare")
        for pair in shifts:
            typer.echo(f"{pair}{'  above half a pixel!' if pair.too_far else ''}")


def _shifts(cube: Cube) -> list[PairShift]:
    from urbandelta.coregistration import check_cube

    return check_cube(cube)


def _as_dict(pair: PairShift) -> dict[str, Any]:
    return {**dataclasses.asdict(pair), "pixels": pair.pixels, "certain": pair.certain, "too_far": pair.too_far}


def _describe(cube: Cube) -> dict[str, Any]:
    import numpy as np

    streams = []
    for name in cube.streams:
        stored = cube.attributes(name)
        fractions = cube.valid_fraction(name)
        streams.append(
            {
                "name": name,
                "kind": stored.kind,
                "count": stored.count,
                "first": str(stored.first),
                "last": str(stored.last),
                "valid_fraction": float(np.mean(fractions)) if fractions.size else float("nan"),
                "bands": list(stored.bands),
                "dtype": stored.dtype,
                "scale": stored.scale,
                "offset": stored.offset,
                "units": stored.units,
                "platforms": list(stored.platforms),
                "orbit_states": list(stored.orbit_states),
                "relative_orbits": list(stored.relative_orbits),
                "processing_levels": list(stored.processing_levels),
                "backscatter_coefficients": list(stored.backscatter_coefficients),
            }
        )
    return {
        "url": cube.url,
        "era": cube.era.name,
        "grid": str(cube.grid),
        "crs": cube.grid.crs,
        "shape": list(cube.grid.shape),
        "bounds": list(cube.grid.bounds),
        "bytes_stored": cube.bytes_stored(),
        "snapshot": cube.snapshot,
        "streams": streams,
        "snapshots": [
            {"id": commit.snapshot, "time": str(commit.time), "message": commit.message} for commit in cube.history()
        ],
    }


@takes_options
def windows(
    cube: CubeArgument,
    flags: SplitFlags,
    start: Annotated[str | None, typer.Option(help="First day of the steps [the first acquisition's].")] = None,
    end: Annotated[str | None, typer.Option(help="Day before which the steps end [after the last one].")] = None,
    stride: Annotated[int | None, typer.Option(help="Steps between windows [the era's for inference].")] = None,
    triplets: Annotated[bool, typer.Option("--triplets", help="Only windows with one before and one after.")] = False,
    training: Annotated[
        bool, typer.Option("--training", help="Plan a training: tiles and windows with their roles, and what leaks.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="CSV", help="Just the windows of this published list; they must all be there."),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print as the published CSV: id, first step, last step, observations.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the windows of a cube, or plan a training with them. Reads no pixel."""
    import numpy as np

    from urbandelta.plan import cube_steps
    from urbandelta.store import open_cube
    from urbandelta.windows import find_windows, listed_windows, read_csv, write_csv

    if like is not None and (training or triplets or stride is not None):
        raise typer.BadParameter(
            "is a list already; leave --training, --triplets and --stride out", param_hint="--like"
        )
    if as_csv and as_json:
        raise typer.BadParameter("is another form than --json; choose one", param_hint="--csv")
    if flags.given and not training:
        raise typer.BadParameter("is of use with --training only", param_hint=flags.given[0])
    if training and triplets:
        raise typer.BadParameter("is implied by --training; leave it out", param_hint="--triplets")
    opened = open_cube(cube)
    if training:
        plan = plan_windows(opened, flags, start=day(start, "--start"), end=day(end, "--end"), stride=stride)
        print_plan(plan, opened, as_csv=as_csv, as_json=as_json)
        return
    era = opened.era
    steps, first, stop = cube_steps(opened, opened.streams, start=day(start, "--start"), end=day(end, "--end"))
    if like is not None:
        found = listed_windows(read_csv(like), steps)
    else:
        found = find_windows(
            steps,
            length=np.timedelta64(era.window_days, "D"),
            min_obs=era.min_obs,
            max_obs=era.max_obs,
            stride=stride if stride is not None else (era.stride_training if triplets else era.stride_inference),
            triplets=triplets,
        )
    if as_csv:
        write_csv(found, sys.stdout)
    elif as_json:
        print_json(
            [
                {
                    "id": index,
                    "start": str(w.start),
                    "end": str(w.end),
                    "count": w.count,
                    "first": w.first,
                    "last": w.last,
                }
                for index, w in enumerate(found)
            ]
        )
    else:
        typer.echo(
            f"{len(found)} windows of {era.window_days} days over {len(steps)} steps, "
            f"{str(first)[:10]} to {str(stop)[:10]}"
        )
        for index, window in enumerate(found):
            typer.echo(f"{index:5d}  {str(window.start)[:16]}  {str(window.end)[:16]}  {window.count} observations")


def day(text: str | None, option: str) -> np.datetime64 | None:
    """A date option as a moment."""
    from urbandelta.assemble import as_moment

    if text is None:
        return None
    try:
        return as_moment(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
