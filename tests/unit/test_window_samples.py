"""Window files: what is counted, how an epoch is drawn, and that batches hold what the files do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfrecord_files import example, write

import urbandelta.window_samples as module
from urbandelta.crc32c import crc32c
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, SourceError, TrainingError
from urbandelta.network import NetworkConfig
from urbandelta.samples import turned
from urbandelta.split import SplitOptions
from urbandelta.tfexample import decode_example
from urbandelta.tfrecord import read_records
from urbandelta.window_files import counts_of, index_windows
from urbandelta.window_samples import WindowSource, draw_windows, split_windows

CONFIG = NetworkConfig.for_era(ERAS["ers12ls5"], "combined")


def window(rng, *, steps, padding=0):
    images = rng.random((steps, 4, 4, 9), np.float32)
    images[1:3, ..., :2] = images[0, ..., :2]  # radar stands still for three steps
    images[3, ..., 2:] = images[2, ..., 2:]
    images = np.concatenate([images, np.full((padding, 4, 4, 9), -1, np.float32)])
    return images, rng.random((4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(1)
    for row in range(3):
        for column in range(3):
            written = [window(rng, steps=6 + row, padding=column) for _ in range(1 + (row + column) % 3)]
            records = [example({"Feature": images, "Label": truth}) for images, truth in written]
            write(path / f"Town_{row}_{column}.tfrecords", records, checksum=crc32c)
    return path


def stored(files, sample):
    """Images without padding and truth, read plainly."""
    contents = list(read_records(files.files[sample.cube].path))
    record = decode_example(contents[sample.window])
    images = record["Feature"]
    return images[(images != -1).any(axis=(1, 2, 3))], record["Label"]


def check(batch, files):
    for n, sample in enumerate(batch.origin):
        images, truth = stored(files, sample)
        npt.assert_array_equal(batch.truth[n], turned(truth, sample.turn))
        assert batch.valid[n].sum() == len(images)
        wanted = turned(images.transpose(0, 3, 1, 2), sample.turn)
        shown = [batch.frames[path][batch.index[path][n][batch.valid[n]]] for path in ("sar", "optical")]
        npt.assert_array_equal(np.concatenate(shown, axis=1), wanted)


def test_batches_hold_what_the_files_do(folder):
    files = index_windows([folder])
    assert (files.era.name, files.tile, files.records) == ("ers12ls5", 4, 18)
    source = WindowSource(files, CONFIG, role="train", batch_size=4, augment="flips", seed=5)
    batches = list(source.epoch(0))
    assert [len(batch) for batch in batches] == [4] * 4 == [4] * source.batches()
    for batch in batches:
        check(batch, files)
    seen = [(sample.cube, sample.window) for batch in batches for sample in batch.origin]
    assert len(set(seen)) == 16
    assert len({sample.turn for batch in batches for sample in batch.origin}) > 3
    # Radar stood still for three steps: those share an image.
    images, _ = stored(files, batches[0].origin[0])
    assert len(np.unique(batches[0].index["sar"][0][batches[0].valid[0]])) == len(images) - 2


def test_published_windows_are_batches(reference):
    for name in ("ers12ls5", "s12"):
        files = index_windows([reference / "tfrecords" / f"windows_{name}"])
        assert (files.era.name, files.tile, files.records) == (name, 32, 2)
        source = WindowSource(
            files, NetworkConfig.for_era(files.era, "combined"), role="validation", batch_size=2, samples=9
        )
        (batch,) = source.epoch(3)
        assert [sample.window for sample in batch.origin] == [0, 1]
        check(batch, files)
        assert len(batch.frames["sar"]) < batch.valid.sum()


def test_epochs_differ_and_repeat(folder):
    source = WindowSource(index_windows([folder]), CONFIG, role="train", batch_size=3, samples=9, max_steps=4)
    first, again, other = ([batch.origin for batch in source.epoch(n)] for n in (0, 0, 1))
    assert first == again != other
    for batch in source.epoch(0):
        assert (batch.valid.sum(axis=1) == 4).all()


@pytest.mark.parametrize("role", ["train", "validation"])
def test_skipping_and_ranks_give_parts_of_the_same_epoch(folder, role, monkeypatch):
    monkeypatch.setattr(module, "SIDE_BY_SIDE", 2)
    source = WindowSource(index_windows([folder]), CONFIG, role=role, batch_size=2, budget_bytes=5000)
    whole = list(source.epoch(1))
    assert source.batches() == len(whole) == 9
    for skip in range(10):
        for mine, theirs in zip(source.epoch(1, skip=skip), whole[skip:], strict=True):
            assert mine.origin == theirs.origin
            npt.assert_array_equal(mine.frames["optical"], theirs.frames["optical"])
    parts = [[batch.origin for batch in source.epoch(1, rank=rank, world=2)] for rank in range(2)]
    together = [origin for part in parts for origin in part]
    assert together == [batch.origin for batch in whole][: len(together)]
    assert len(together) == (8 if role == "train" else 9)


def test_more_samples_than_windows_show_each_as_often(folder):
    source = WindowSource(index_windows([folder]), CONFIG, role="train", batch_size=6, samples=42)
    seen = Counter((s.cube, s.window) for batch in source.epoch(0) for s in batch.origin)
    assert sum(seen.values()) == 42
    assert set(seen.values()) == {2, 3}


@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=9),
    pool=st.integers(1, 12),
    side=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=80)
def test_draws_show_each_once_and_hold_no_more_than_the_pool(counts, pool, side, seed):
    draws = draw_windows(counts, wanted=sum(counts), pool=pool, seed=[seed], side_by_side=side)
    assert sorted((d.file, d.record) for d in draws) == [(f, r) for f, n in enumerate(counts) for r in range(n)]
    held, read = set(), Counter()
    for draw in draws:
        while read[draw.file] <= draw.record:
            held.add((draw.file, read[draw.file]))
            read[draw.file] += 1
        assert len(held) <= pool
        held.remove((draw.file, draw.record))


def test_an_index_is_not_made_twice(folder, monkeypatch):
    files = index_windows([folder], threads=2)
    known = counts_of(files)
    monkeypatch.setattr("urbandelta.window_files.read_records", lambda *a, **k: pytest.fail("read again"))
    assert index_windows([folder], known=known) == files


def test_tiles_are_split_by_site(folder):
    files = index_windows([folder])
    parts = split_windows(files, SplitOptions(block_tiles=1, buffer_px=0, validation=0.3))
    assert {role: len(part.files) for role, part in parts.items()} == {"train": 6, "validation": 3}
    assert not set(parts["train"].files) & set(parts["validation"].files)
    with pytest.raises(ConfigError, match="Town: 3 x 3 tiles of 4 px are too few"):
        split_windows(files, SplitOptions(buffer_px=16))


@pytest.mark.parametrize(
    ("feature", "label", "message"),
    [
        (np.zeros((3, 4, 5, 9), np.float32), np.zeros((4, 4), np.float32), "not square"),
        (np.zeros((4, 4, 9), np.float32), np.zeros((4, 4), np.float32), "not .step, y, x, band"),
    ],
)
def test_windows_of_other_shapes(tmp_path, feature, label, message):
    write(tmp_path / "a_0_0.tfrecords", [example({"Feature": feature, "Label": label})])
    with pytest.raises((SourceError, TrainingError), match=message):
        index_windows([tmp_path])


@pytest.mark.parametrize(
    ("feature", "label", "message"),
    [
        (np.zeros((3, 5, 5, 9), np.float32), np.zeros((4, 4), np.float32), "record 2: Feature is"),
        (np.zeros((3, 4, 4, 9), np.float64), np.zeros((4, 4), np.float32), "record 2: Feature is float64"),
        (np.zeros((3, 4, 4, 9), np.float32), np.zeros((5, 4), np.float32), "record 2: Label is"),
        (np.full((3, 4, 4, 9), -1, np.float32), np.zeros((4, 4), np.float32), "padding only"),
    ],
)
def test_a_later_record_that_differs_is_named(tmp_path, feature, label, message):
    good = {"Feature": np.zeros((3, 4, 4, 9), np.float32), "Label": np.zeros((4, 4), np.float32)}
    path = tmp_path / "a_0_0.tfrecords"
    write(path, [example(good), example({"Feature": feature, "Label": label})])
    source = WindowSource(index_windows([tmp_path]), CONFIG, role="validation")
    with pytest.raises(SourceError, match=message):
        list(source.epoch(0))


def test_a_file_that_lost_windows_since_is_named(folder, tmp_path):
    path = tmp_path / "a_0_0.tfrecords"
    record = example({"Feature": np.zeros((3, 4, 4, 9), np.float32), "Label": np.zeros((4, 4), np.float32)})
    write(path, [record, record])
    source = WindowSource(index_windows([tmp_path]), CONFIG, role="validation")
    write(path, [record])
    with pytest.raises(TrainingError, match="holds fewer windows"):
        list(source.epoch(0))


def test_different_eras_do_not_mix(folder, tmp_path):
    other = {"Feature": np.zeros((3, 4, 4, 17), np.float32), "Label": np.zeros((4, 4), np.float32)}
    write(tmp_path / "b_0_0.tfrecords", [example(other)])
    with pytest.raises(TrainingError, match="different tiles or eras"):
        index_windows([folder, tmp_path])
    with pytest.raises(TrainingError, match="no train window"):
        WindowSource(index_windows([folder]).chosen([]), CONFIG, role="train")
    for option in ({"batch_size": 0}, {"samples": 0}, {"max_steps": 0}):
        with pytest.raises(ConfigError, match="out of range"):
            WindowSource(index_windows([folder]), CONFIG, role="train", **option)
