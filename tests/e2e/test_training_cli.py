"""`urbandelta train` on a tiny simulated cube: learning, going on after kill -9, several processes, refusals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command import runner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from urbandelta.weights import load_weights  # noqa: E402

SPLIT = ("--tile", 16, "--buffer-px", 8, "--label-days", 0)
SMALL = ("--labels", "dates", *SPLIT, "--batch", 4, "--max-steps", 8, "--validation-samples", 8, "--threads", 1)


@pytest.fixture
def run(capfd):
    return runner(capfd)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    path = folder / "cube"
    urbandelta = [sys.executable, "-m", "urbandelta"]
    for words in (
        ["simulate", path, "--era", "ers12ls5", "--size", "48", "--months", "30", "--seed", "4"],
        ["label", path, "--name", "dates", "--from-dates", f"{path}.truth.tif", "--stride", "8"],
    ):
        subprocess.run([*urbandelta, *map(str, words)], check=True, capture_output=True)
    return path


def test_training_lowers_the_loss_and_predict_takes_the_weights(run, cube, tmp_path):
    out = tmp_path / "own.safetensors"
    words = ("train", cube, "--out", out, *SMALL, "--balance", 0.5, "--batches-per-epoch", 12, "--epochs", 2)
    summary = run(*words, "--json").document()
    assert summary["batches"] == 24
    assert set(summary["scores"]) == {"mae", "rmse", "msle", "f1", "pr_auc", "calibration_error", "loss"}
    weights = load_weights(out)
    assert weights.sha256 == summary["sha256"]
    assert weights.description["training"]["labels"] == "dates"
    assert "urbandelta train" in weights.description["command"]
    rows = (tmp_path / "own.run" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    losses = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert losses[-1] < losses[0]
    assert list((tmp_path / "own.run" / "tensorboard").glob("events.*"))

    again = run(*words)
    assert again.code == 0
    assert "nothing to do" in again.out
    assert run("predict", cube, "--weights", out, "--out", tmp_path / "scores", "--stride", 40).code == 0

    still = ("--optimiser", "sgd", "--rate", 1e-9, "--loss", "tanimoto", "--epochs", 1, "--batches-per-epoch", 2)
    warm = run("train", cube, "--out", tmp_path / "warm.safetensors", "--init", out, *SMALL, *still)
    assert warm.code == 0, warm.err
    kernels = [load_weights(path).parameters["sar.block1.conv.weight"] for path in (out, tmp_path / "warm.safetensors")]
    assert abs(kernels[0] / kernels[1] - 1).max() < 1e-3


def test_published_settings_and_single_paths_train(run, cube, tmp_path):
    published = ("--optimiser", "sgd", "--loss", "tanimoto", "--batch-norm", "published", "--dropout", 0.4)
    words = ("--epochs", 1, "--batches-per-epoch", 2, "--json")
    assert (
        run("train", cube, "--out", tmp_path / "p.safetensors", *SMALL, *published, *words).document()["batches"] == 2
    )
    out = tmp_path / "sar.safetensors"
    assert run("train", cube, "--out", out, *SMALL, "--variant", "sar", *words).document()["batches"] == 2
    assert load_weights(out).config.variant == "sar"


def test_refusals_name_what_is_wrong_and_how_to_mend_it(run, cube, tmp_path):
    out = tmp_path / "w.safetensors"
    small = (*SMALL, "--epochs", 1, "--batches-per-epoch", 1)
    assert run("train", cube, "--out", out, *small).code == 0
    for words, told in (
        (("train", cube, "--out", out, *small, "--rate", 0.5), ("settings.rate: 0.004 -> 0.5", "--restart")),
        (("train", cube, "--out", tmp_path / "v.safetensors", *SPLIT), ("synthetic", "label")),
        (("train", cube, "--out", tmp_path / "w.hdf5", *small), (".safetensors",)),
        (("train", cube, "--out", tmp_path / "v.safetensors", *small, "--loss", "mse"), ("mse", "tanimoto+bce")),
        (("train", cube, "--out", tmp_path / "v.safetensors", *small, "--dropout", 1), ("dropout",)),
        (("train", cube, "--out", out, *small, "--run", tmp_path), ("--run",)),
    ):
        outcome = run(*words)
        assert outcome.code == 1, words
        assert outcome.err.startswith("urbandelta: error: ")
        assert all(word in outcome.err for word in told), outcome.err
    assert run("train", cube, "--out", out, *small, "--rate", 0.5, "--restart").code == 0


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "urbandelta", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def batches_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["global_step"] if checkpoint.is_file() else 0


def wait_for(checkpoint, batches, process):
    deadline = time.monotonic() + 300
    while batches_of(checkpoint) < batches and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_trainings_go_on_to_the_same_weights(cube, tmp_path):
    """Once in the midst of an epoch, once at the end of one; with dropout, whose masks must come back as well."""
    words = (
        *SMALL,
        "--balance",
        0.5,
        "--dropout",
        0.3,
        "--batches-per-epoch",
        6,
        "--epochs",
        3,
        "--checkpoint-every",
        2,
    )
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    with start("train", cube, "--out", whole, *words) as done:
        assert done.wait(300) == 0
    checkpoint = tmp_path / "killed.run" / "last.ckpt"
    stops = []
    for at_least in (2, 6):
        with start("train", cube, "--out", killed, *words) as process:
            wait_for(checkpoint, at_least, process)
            os.kill(process.pid, signal.SIGKILL)
        stops.append(batches_of(checkpoint))
    assert 0 < stops[0] < 18
    last = start("train", cube, "--out", killed, *words, "--json")
    stdout, stderr = last.communicate(timeout=300)
    assert last.returncode == 0, stderr
    assert json.loads(stdout)["resumed_at"] == stops[1]
    assert load_weights(whole).sha256 == load_weights(killed).sha256
    states = [torch.load(tmp_path / f"{name}.run" / "last.ckpt", weights_only=True) for name in ("whole", "killed")]
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name
    assert states[0]["epoch"] == states[1]["epoch"]


@pytest.mark.slow
def test_two_processes_train_one_network(cube, tmp_path):
    out = tmp_path / "two.safetensors"
    process = start("train", cube, "--out", out, *SMALL, "--epochs", 2, "--batches-per-epoch", 3, "--devices", 2,
                    "--strategy", "ddp", "--json")  # fmt: skip
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["batches"] == 6
    assert "Warning" not in stderr
    assert load_weights(out).description["training"]["devices"] == 2


@pytest.mark.slow
def test_ctrl_c_says_one_line_and_leaves_a_run_that_goes_on(cube, tmp_path):
    words = ("train", cube, "--out", tmp_path / "c.safetensors", *SMALL, "--batches-per-epoch", 4, "--epochs", 4,
             "--checkpoint-every", 1)  # fmt: skip
    process = start(*words)
    checkpoint = tmp_path / "c.run" / "last.ckpt"
    wait_for(checkpoint, 1, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.splitlines() == ["urbandelta: stopped; what was committed is kept, run the same command to go on"]
    again = start(*words)
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert "resumed at batch" in stdout
