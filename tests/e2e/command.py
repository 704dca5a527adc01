"""Runs `urbandelta` inside the test's process, as `python -m urbandelta` would: arguments in, code and streams out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from urbandelta.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left on its streams."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The JSON on stdout, which must be all that is there; NaN and Infinity are refused."""
        assert self.code == 0, self.err

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


Run = Callable[..., Outcome]


def runner(capfd: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `urbandelta WORDS`."""

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        with mock.patch.object(sys, "argv", ["urbandelta", *map(str, words)]), pytest.raises(SystemExit) as stop:
            main()
        streams = capfd.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return run
