"""`urbandelta weights`: which there are, what they expect, and whether they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urbandelta.cli.progress import AsJson, print_json
from urbandelta.errors import WeightsError

if TYPE_CHECKING:
    from urbandelta.weights import Weights

app = typer.Typer(no_args_is_help=True, help="Weights of the network: list, show, import, verify.")

WeightsArgument = Annotated[str, typer.Argument(metavar="WEIGHTS", help="A file, or the name of a shipped set.")]


@app.command("list")
def list_weights(as_json: AsJson = False) -> None:
    """List the weights that come with the program."""
    from urbandelta.weights import load_weights, shipped_weights

    sets = [load_weights(path) for path in shipped_weights().values()]
    if as_json:
        print_json([_summary(weights) for weights in sets])
        return
    for weights in sets:
        typer.echo(f"{weights.name}: era {weights.era.name}, {weights.count} parameters, {weights.sha256[:12]}")


@app.command("show")
def show(weights: WeightsArgument, as_json: AsJson = False) -> None:
    """Show a set of weights: what it is, and the input that it expects."""
    from urbandelta.weights import find_weights

    loaded = find_weights(weights)
    if as_json:
        print_json(_summary(loaded) | {"contract": loaded.contract, "description": loaded.description})
        return
    for key, value in (_summary(loaded) | dict(loaded.description)).items():
        typer.echo(f"{key}: {value}")
    for name, stream in loaded.contract["streams"].items():
        typer.echo(
            f"{name}: {' '.join(stream['bands'])}, {stream['units']}, {stream['processing_level']} "
            f"{stream['backscatter_coefficient']}".rstrip()
        )


@app.command("import")
def import_weights(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Keras .hdf5 or .h5 weights of the published system.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Own .safetensors file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn published weights into an own file with an input contract. The licence of the weights stays theirs."""
    from urbandelta.weights import load_weights, save_weights

    if out.exists() and not overwrite:
        raise WeightsError(f"{out} exists; choose another name or add --overwrite")
    weights = load_weights(source)
    save_weights(weights, out)
    if as_json:
        print_json(_summary(weights) | {"path": str(out)})
    else:
        typer.echo(
            f"{out}: era {weights.era.name}, {weights.config.variant}, {weights.count} parameters, {weights.sha256}"
        )


@app.command("verify")
def verify(weights: WeightsArgument, as_json: AsJson = False) -> None:
    """Check that a file is whole: names, shapes, finite values and stated hash."""
    from urbandelta.weights import find_weights

    loaded = find_weights(weights)
    if as_json:
        print_json(_summary(loaded) | {"ok": True})
    else:
        typer.echo(f"{weights}: ok, {loaded.count} parameters, {loaded.sha256}")


def _summary(weights: Weights) -> dict[str, object]:
    return {
        "name": weights.name,
        "era": weights.era.name,
        "variant": weights.config.variant,
        "parameters": weights.count,
        "sha256": weights.sha256,
    }
