"""What all commands share: help, JSON on stdout, usage errors, a quick start."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command import Run, runner

from urbandelta.cli import app
from urbandelta.cli.progress import print_json, progress_bar
from urbandelta.store import open_cube
from urbandelta.weights import save_weights

DOCS = Path(__file__).resolve().parents[2] / "docs" / "commands.md"


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))
each_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


def test_the_contract_s_commands_are_there():
    wanted = {"demo", "simulate", "info", "windows", "plan", "predict", "export", "report"}
    wanted |= {"label", "train", "transfer", "ensemble", "evaluate", "observation-loss"}
    wanted |= {f"import {kind}" for kind in ("eopatch", "geotiff", "netcdf")}
    wanted |= {f"weights {verb}" for verb in ("list", "show", "import", "verify")}
    assert wanted <= {" ".join(words) for words in COMMANDS}


@each_command
def test_help_says_what_the_command_and_each_option_does(run, words):
    done = run(*words, "--help")
    assert (done.code, done.err) == (0, "")
    command = COMMANDS[words]
    assert command.help
    assert command.help.split("\n")[0].endswith(".")
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help text"
        assert parameter.opts[0] in done.out or parameter.param_type_name == "argument"


@each_command
def test_every_command_can_print_json(words):
    assert "--json" in [option for parameter in COMMANDS[words].params for option in parameter.opts]


@each_command
def test_every_command_is_in_the_documentation(words):
    text = DOCS.read_text(encoding="utf-8")
    assert re.search(rf"^#+ .*\b{words[0]}\b", text, re.MULTILINE), f"no section about {words[0]}"
    assert re.search(rf"`?(urbandelta )?{' '.join(words)}\b", text)


def test_groups_and_the_program_itself_have_help(run):
    for words in ((), ("import",), ("weights",)):
        done = run(*words, "--help")
        assert (done.code, done.err) == (0, "")
        assert "Commands:" in done.out
        assert run(*words).code == 2


def test_version(run):
    assert re.fullmatch(r"urbandelta \S+\n", run("--version").out)


@pytest.mark.parametrize(
    "words",
    [
        ("frobnicate",),
        ("info",),
        ("info", "a", "b"),
        ("info", "cube", "--frob"),
        ("predict", "cube", "--out", "scores"),
        ("predict", "cube", "--weights", "w", "--out", "s", "--tile", "x"),
        ("windows", "cube", "--csv", "--json"),
        ("export", "scores", "--to", "maps", "--each", "year"),
        ("import", "geotiff", "x", "--into", "c", "--stream", "s", "--zero", "maybe"),
        ("weights", "frob"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_code_2_and_says_where_help_is(run, words):
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert "--help" in done.err
    assert "Traceback" not in done.err


def test_dates_that_are_none_are_wrong_usage(run, make_cube):
    cube = make_cube().url
    for date in ("yesterday", "", "nan", "NaT", "2018-13-01", "99999-01-01", "1066-10-14"):
        assert run("windows", cube, "--start", date).code == 2, date


def test_json_of_every_command_is_json_and_all_of_stdout(run, make_cube, make_weights, tmp_path):
    cube, weights, scores = make_cube().url, tmp_path / "w.safetensors", tmp_path / "scores"
    save_weights(make_weights(), weights)
    info = run("info", cube, "--json").document()
    assert [stream["name"] for stream in info["streams"]] == ["s1_asc", "s1_dsc", "optical"]
    windows = run("windows", cube, "--json").document()
    assert [window["id"] for window in windows] == list(range(len(windows)))
    plan = run("plan", cube, "--weights", weights, "--tile", 8, "--halo", 2, "--json").document()
    assert plan["windows"] == len(windows)
    predicted = run(
        *("predict", cube, "--weights", weights, "--out", scores, "--tile", 8, "--halo", 2),
        *("--cog", tmp_path / "cogs", "--json"),
    ).document()
    assert predicted["windows"] == len(windows)
    assert [Path(path).is_file() for path in predicted["cogs"]] == [True]
    exported = run("export", scores, "--to", tmp_path / "maps", "--json").document()
    assert len(exported["written"]) == 6
    report = run("report", scores, "--out", tmp_path / "report.html", "--json").document()
    assert Path(report["path"]).is_file()
    shown = run("weights", "show", weights, "--json").document()
    assert shown["sha256"] == run("weights", "verify", weights, "--json").document()["sha256"]
    copied = run("weights", "import", weights, "--out", tmp_path / "copy.safetensors", "--json").document()
    assert copied["sha256"] == shown["sha256"]
    assert isinstance(run("weights", "list", "--json").document(), list)
    simulated = run("simulate", tmp_path / "sim", "--size", 32, "--months", 1, "--json").document()
    assert set(simulated["acquisitions"]) == {"s1_asc", "s1_dsc", "optical"}


def test_numbers_that_json_lacks_become_null(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), -float("inf"), 1.5], "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, None, 1.5], "c": "x"}


def test_without_a_terminal_progress_is_silent(capsys):
    with progress_bar("work") as progress:
        for done in range(11):
            progress(done, 10, "items")
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_verbose_logs_each_tenth_once(caplog):
    with caplog.at_level("INFO", logger="urbandelta"), progress_bar("work") as progress:
        for done in range(101):
            progress(done, 100, "items")
    assert len(caplog.records) == 11
    assert caplog.messages[-1] == "work: 100 of 100 items"


def test_help_loads_no_heavy_library():
    heavy = ["numpy", "xarray", "zarr", "icechunk", "rasterio", "geopandas", "matplotlib", "numba", "openvino", "h5py"]
    code = f"import sys, urbandelta.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "urbandelta", "weights", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_ctrl_c_says_that_nothing_is_lost(tmp_path):
    cube = tmp_path / "cube"
    command = [sys.executable, "-m", "urbandelta", "simulate", str(cube), "--size", "64", "--months", "240"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not cube.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert err == "urbandelta: stopped; what was committed is kept, run the same command to go on\n"
    assert open_cube(str(cube)).era.name == "s12"


def test_ctrl_c_amid_a_chunk_of_zarr_says_no_more():
    code = """
import time
from zarr.core import sync
import urbandelta.cli

def stopped_amid_a_chunk():
    sync._get_loop().call_soon_threadsafe(time.sleep, 1.0)
    time.sleep(0.1)
    raise SystemExit(urbandelta.cli.INTERRUPTED)

urbandelta.cli.app = stopped_amid_a_chunk
urbandelta.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "urbandelta: stopped; what was committed is kept, run the same command to go on\n"
