"""The documentation's worked example, command by command, as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from command import runner

pytest.importorskip("lightning")

PAGE = Path(__file__).parents[2] / "docs" / "worked-example.md"


def commands() -> list[list[str]]:
    """The words of each command in the page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
def test_the_worked_example_runs_as_it_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run = runner(capfd)
    done = []
    for program, *words in commands():
        assert program == "urbandelta"
        outcome = run(*words)
        assert outcome.code == 0, f"{' '.join(words)}: {outcome.err}"
        done.append(words[0])
    wanted = {"label", "windows", "train", "transfer", "predict", "ensemble", "evaluate", "observation-loss"}
    assert wanted <= set(done)
    assert (tmp_path / "own.safetensors").is_file()
    judged = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert {"scores", "change_vector", "omnibus", "index_difference"} <= set(judged["pooled"]["methods"])
