"""Options of a training run, whatever is trained: where it lies, what it runs on, what it accepts."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What `train` and `transfer` have in common beside what decides the weights."""

    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Folder of checkpoints and logs [WEIGHTS as .run].")
    ] = None
    restart: Annotated[bool, typer.Option("--restart/--resume", help="Start over, or go on where the run stopped.")] = (
        False
    )
    checkpoint_every: Annotated[int, typer.Option(help="Batches between checkpoints.")] = 25
    devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU.")] = 1
    strategy: Annotated[str, typer.Option(help="auto or ddp.")] = "auto"
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto"
    threads: Annotated[int | None, typer.Option(help="Threads of a process [all usable cores].")] = None
    substitute: Annotated[
        list[str] | None, typer.Option(metavar="TARGET=SOURCE", help="Stand-in for a missing band or stream.")
    ] = None
    accept: Annotated[
        list[str] | None, typer.Option(metavar="PROPERTY", help="Accept that a property of the input differs.")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `urbandelta.training.train` and `transfer`."""
        from urbandelta.training import Hardware

        return {
            "run": self.run,
            "restart": self.restart,
            "hardware": Hardware(
                devices=self.devices, strategy=self.strategy, accelerator=self.accelerator, threads=self.threads
            ),
            "checkpoint_every": self.checkpoint_every,
            "substitutions": self.substitute or (),
            "accepted": self.accept or (),
            "description": {"command": shlex.join(["urbandelta", *sys.argv[1:]])},
        }


def speaks() -> bool:
    """Whether this is the process, of several that train together, that prints."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
