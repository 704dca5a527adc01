"""`urbandelta train --tfrecords`: published windows to weights, going on after a kill, refusals."""

import gzip
import json

import numpy as np
import pytest
from command import runner
from tfrecord_files import example, write

from urbandelta.crc32c import crc32c
from urbandelta.weights import load_weights

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

SMALL = ("--batch", 4, "--epochs", 2, "--batches-per-epoch", 3, "--max-steps", 6, "--threads", 1)


@pytest.fixture
def run(capfd):
    return runner(capfd)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Four by four tiles of 8 px, three windows each: where truth is 1, the optical bands rise half-way."""
    folder = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(3)
    for row in range(4):
        for column in range(4):
            records = []
            for _ in range(3):
                steps = int(rng.integers(25, 31))
                images = np.repeat(rng.random((steps // 2 + 1, 8, 8, 9), np.float32), 2, axis=0)[:steps]
                truth = (rng.random((8, 8)) < 0.3).astype(np.float32)
                images[steps // 2 :, ..., 2:] += truth[..., None]
                padding = np.full((2, 8, 8, 9), -1, np.float32)
                records.append(example({"Feature": np.concatenate([images, padding]), "Label": truth}))
            write(folder / f"Town_{row}_{column}.tfrecords", records, checksum=crc32c)
    return folder


def test_windows_train_and_the_same_command_does_nothing_more(run, windows, tmp_path):
    out = tmp_path / "own.safetensors"
    words = ("train", "--tfrecords", windows, "--out", out, *SMALL, "--block-tiles", 1, "--buffer-px", 0)
    summary = run(*words, "--json").document()
    assert summary["batches"] == 6
    assert summary["scores"].keys() >= {"pr_auc", "loss"}
    weights = load_weights(out)
    assert weights.era.name == "ers12ls5"
    assert weights.sha256 == summary["sha256"]
    assert weights.description["training"]["train"]["windows"] < 48
    assert "nothing to do" in run(*words).out


def test_a_training_that_stopped_ends_with_the_same_weights(run, windows, tmp_path, monkeypatch):
    words = ("train", "--tfrecords", windows, *SMALL, "--split", "whole", "--role", "train", "--checkpoint-every", 1)
    whole = run(*words, "--out", tmp_path / "whole.safetensors", "--json").document()

    from urbandelta.window_samples import WindowSource

    epoch = WindowSource.epoch

    def stops(self, number, **kwargs):
        for count, batch in enumerate(epoch(self, number, **kwargs)):
            if (number, count) == (1, 1):
                raise OSError("the power went")
            yield batch

    out = tmp_path / "stopped.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(WindowSource, "epoch", stops)
        assert run(*words, "--out", out).code == 1
    resumed = run(*words, "--out", out, "--json").document()
    assert resumed["resumed_at"] in (3, 4)
    assert resumed["sha256"] == whole["sha256"]


def test_windows_to_validate_on(run, windows, tmp_path):
    out = tmp_path / "own.safetensors"
    words = ("train", "--tfrecords", windows, "--validation-tfrecords", windows, "--out", out, *SMALL)
    assert set(run(*words, "--json").document()["scores"]) >= {"loss"}
    assert "pr_auc" in json.dumps(load_weights(out).description["validation"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a cube at least"),
        (("cube", "--tfrecords", "{windows}"), "do not train together"),
        (("--tfrecords", "{windows}", "--plan", "x"), "do not train together"),
        (("--tfrecords", "{windows}", "--accept", "pixel_m"), "have all bands"),
        (("--tfrecords", "{windows}", "--validation-tfrecords", "{windows}", "--buffer-px", 3), "train whole"),
        (("--tfrecords", "{windows}", "--time-split", "0.5"), "hold no dates"),
        (("--tfrecords", "{windows}", "--window-share", 0.1), "all windows of a file are used"),
        (("--tfrecords", "{windows}", "--balance", 0.5), "as they come"),
        (
            ("--tfrecords", "{windows}", "--tile", 8, "--batch", 100, "--split", "whole", "--role", "train"),
            "fill a batch",
        ),
        (("--tfrecords", "{windows}", "--split", "whole", "--role", "test"), "no window to train on"),
        (("--tfrecords", "{tmp}/none"), "no such folder"),
        (("--tfrecords", "{tmp}"), "no windows"),
    ],
)
def test_refusals(run, windows, tmp_path, words, message):
    words = [str(word).format(windows=windows, tmp=tmp_path) for word in words]
    outcome = run("train", *words, "--out", tmp_path / "own.safetensors")
    assert outcome.code in (1, 2)
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert "Traceback" not in outcome.err


def test_damaged_and_foreign_files_are_named(run, windows, tmp_path):
    folder = tmp_path / "windows"
    folder.mkdir()
    path = folder / "Town_0_0.tfrecords"
    content = bytearray(gzip.decompress((windows / path.name).read_bytes()))
    content[1000] ^= 1
    path.write_bytes(gzip.compress(content))
    words = (
        "train",
        "--tfrecords",
        folder,
        "--out",
        tmp_path / "own.safetensors",
        "--split",
        "whole",
        "--role",
        "train",
    )
    assert "Town_0_0.tfrecords: record 1 is damaged: its checksum is wrong" in run(*words).err
    write(path, [example({"Timestamp": np.float64(1)})])
    assert "import tfrecord" in run(*words).err
    write(path, [example({"Feature": np.zeros((2, 8, 8, 5), np.float32), "Label": np.zeros((8, 8), np.float32)})])
    assert "of no known era" in run(*words).err
    write(path, [example({"Feature": np.zeros((2, 8, 8, 9), np.float32), "Label": np.full((8, 8), 2, np.float32)})])
    assert "not shares from 0 to 1" in run(*words, *SMALL).err
