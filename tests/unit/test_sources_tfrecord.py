"""Stacked tiles as acquisitions: what changes is stored once, tiles agree, damage is named."""

from __future__ import annotations

import json

import numpy as np
import numpy.testing as npt
import pytest
from tfrecord_files import example, write, write_metadata

from urbandelta.crc32c import crc32c
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, GridError, SourceError
from urbandelta.grid import Grid
from urbandelta.sources.placement import Placement
from urbandelta.sources.stack_import import describe_stack, import_stack
from urbandelta.sources.tfrecord import StackSource, feature_of, find_stack, steps_kept_by
from urbandelta.store import open_cube

ERA = ERAS["ers12ls5"]
BANDS = {"SAR_ascending": 1, "SAR_descending": 1, "OPT": 7}
AREA = Placement(bounds=(0, 0, 330, 300), crs="EPSG:3035", shape=(10, 11))
START = 800_000_000.25


def series(seed=4):
    """Whole-area images (step, y, x, band) of 10 x 11 px: most pixels repeat, at two steps all do."""
    rng = np.random.default_rng(seed)
    images = {}
    for name, bands in BANDS.items():
        frames = [np.zeros((10, 11, bands), np.float32)]
        for step in range(6):
            new = rng.random((10, 11, bands), np.float32)
            seen = rng.random((10, 11)) < (0.0 if step in (2, 4) else 0.4)
            if name == "OPT" and step == 3:
                seen[:] = False
            frames.append(np.where(seen[..., None], new, frames[-1]))
        images[name] = np.stack(frames[1:])
    return images


def write_stack(folder, images, *, deadzone=0, size=4, times=None, skip=()):
    """Tiles as the published stacking cuts them: what is left over at the right and the bottom is dropped."""
    folder.mkdir(exist_ok=True)
    stride = size - 2 * deadzone
    _, height, width, _ = images["OPT"].shape
    write_metadata(folder, tile=size, deadzone=deadzone)
    for row in range((height - 2 * deadzone) // stride):
        for column in range((width - 2 * deadzone) // stride):
            if (row, column) in skip:
                continue
            place = np.s_[row * stride : row * stride + size, column * stride : column * stride + size]
            records = [
                example(
                    {name: np.ascontiguousarray(frames[step][place]) for name, frames in images.items()}
                    | {"Timestamp": np.float64(START + 86_400 * step if times is None else times[step])}
                )
                for step in range(len(images["OPT"]))
            ]
            write(folder / f"{row}_{column}.tfrecords", records, checksum=crc32c)
    return folder


@pytest.fixture(scope="module")
def images():
    return series()


@pytest.fixture(scope="module")
def stacked(images, tmp_path_factory):
    return write_stack(tmp_path_factory.mktemp("stack"), images)


def source(folder, stream="optical", *, keep_steps=False, grid=None):
    grid = grid or Grid.from_bounds((0, 0, 330, 300), "EPSG:3035", (10, 11))
    return StackSource(find_stack(folder), era=ERA, stream=ERA.stream(stream), grid=grid, keep_steps=keep_steps)


@pytest.mark.parametrize("deadzone", [0, 1])
def test_changes_carried_forward_are_the_stacked_images(images, tmp_path, deadzone):
    folder = write_stack(tmp_path / "stack", images, deadzone=deadzone)
    height, width = find_stack(folder).extent
    assert (height, width) == ((8, 8) if deadzone == 0 else (10, 10))
    for stream in ERA.streams:
        frames = images[feature_of(stream)]
        shown = np.zeros(frames.shape[1:], np.float32)
        found = {int(item.item_id.rpartition("#")[2]) - 1: item for item in source(folder, stream.name).acquisitions()}
        for step, wanted in enumerate(frames):
            if step in found:
                item = found[step]
                assert str(item.time) == str(np.datetime64(800_000_000_250 + 86_400_000 * step, "ms").astype("M8[ns]"))
                assert item.bands == stream.bands
                assert item.orbit_state == stream.orbit_state
                assert not item.values[item.mask != 0].any()
                shown = np.where((item.mask == 0)[..., None], item.values, shown)
                assert (item.mask[height:] == 1).all()
                assert (item.mask[:, width:] == 1).all()
            npt.assert_array_equal(shown[:height, :width], wanted[:height, :width])
        assert len(found) == (3 if stream.kind == "optical" else 4)


def test_still_steps_are_kept_once(stacked):
    assert [item.mask.min() for item in source(stacked, "ers_asc", keep_steps=True).acquisitions()] == [
        0,
        0,
        1,
        0,
        1,
        0,
    ]


def test_an_import_splits_streams_and_repeats_nothing(stacked, tmp_path):
    url = str(tmp_path / "cube")
    report = import_stack(stacked, into=url, era="ers12ls5", placement=AREA)
    assert {name: part.added for name, part in report.streams.items()} == {"ers_asc": 6, "ers_dsc": 4, "optical": 3}
    assert (report.steps, report.still_steps, report.start) == (6, 2, "1995-05-09")
    assert report.facts["extent_px"] == [8, 8]
    cube = open_cube(url)
    assert cube.grid.shape == (10, 11)
    record = cube.acquisitions("optical")
    provenance = json.loads(str(record["provenance"].values[0]))
    assert provenance["feature"] == "OPT"
    assert provenance["step"] == 0
    again = import_stack(stacked, into=url, placement=AREA)
    assert {part.added for part in again.streams.values()} == {0}
    only = import_stack(stacked, into=url, streams=("optical",))
    assert {name: (part.added, part.skipped) for name, part in only.streams.items()} == {"optical": (0, 3)}
    grid, found = describe_stack(stacked, into=url)
    assert grid == cube.grid
    assert {name: len(items) for name, items in found.items()} == {"ers_asc": 6, "ers_dsc": 4, "optical": 3}


def test_missing_tiles_are_masked_and_counted(images, tmp_path):
    folder = write_stack(tmp_path / "stack", images, skip=[(0, 1)])
    assert find_stack(folder).missing == 1
    first = next(source(folder).acquisitions())
    assert (first.mask[:4, 4:8] == 1).all()
    assert (first.mask[4:8, 4:8] == 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no such cube yet"),
        ({"era": "ers12ls5"}, "TFRecords do not say it"),
        ({"era": "ers12ls5", "placement": Placement(bounds=(0, 0, 1, 1))}, "go together"),
        ({"era": "ers12ls5", "placement": Placement(crs="EPSG:3035")}, "go together"),
        ({"era": "ers12ls5", "placement": Placement(grid_from="x", crs="EPSG:3035")}, "says it all"),
        ({"era": "none", "placement": AREA}, "none"),
        ({"era": "ers12ls5", "placement": AREA, "streams": ("s1_asc",)}, "no stream"),
    ],
)
def test_what_a_new_cube_needs(stacked, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        import_stack(stacked, into=str(tmp_path / "cube"), **options)
    assert not (tmp_path / "cube").exists()


def test_what_contradicts_a_cube_or_the_tiles(stacked, tmp_path):
    url = str(tmp_path / "cube")
    small = Placement(bounds=(0, 0, 330, 300), crs="EPSG:3035", shape=(7, 11))
    with pytest.raises(GridError, match="reach over 8 x 8 px, the area has 7 x 11"):
        import_stack(stacked, into=url, era="ers12ls5", placement=small)
    with pytest.raises(SourceError, match="is it of another era"):
        import_stack(stacked, into=url, era="s12", placement=AREA)
    assert not (tmp_path / "cube").exists()
    import_stack(stacked, into=url, era="ers12ls5", placement=AREA, streams=("ers_dsc",))
    with pytest.raises(ConfigError, match="is a cube of era ers12ls5"):
        import_stack(stacked, into=url, era="s12")
    with pytest.raises(ConfigError, match="not on"):
        import_stack(stacked, into=url, placement=Placement(bounds=(0, 0, 330, 330), crs="EPSG:3035"))


def test_tiles_that_do_not_go_together(images, tmp_path):
    folder = write_stack(tmp_path / "stack", images, deadzone=1)
    good = (folder / "1_1.tfrecords").read_bytes()
    other = write_stack(tmp_path / "other", series(seed=5), deadzone=1)
    (folder / "1_1.tfrecords").write_bytes((other / "1_1.tfrecords").read_bytes())
    with pytest.raises(SourceError, match=r"1_1.tfrecords: differs from its neighbours where they overlap"):
        list(source(folder).acquisitions())
    times = [START + 86_400 * step for step in range(6)]
    for changed, message in (
        ([*times[:3], times[3] + 1, *times[4:]], "step 4 has another time"),
        (times[:3], "ends after 3 steps"),
    ):
        short = {name: frames[: len(changed)] for name, frames in images.items()}
        write_stack(other, short, deadzone=1, times=changed)
        (folder / "1_1.tfrecords").write_bytes((other / "1_1.tfrecords").read_bytes())
        with pytest.raises(SourceError, match=message):
            list(source(folder).acquisitions())
    (folder / "1_1.tfrecords").write_bytes(good)
    (folder / "0_0.tfrecords").write_bytes((other / "0_0.tfrecords").read_bytes())
    with pytest.raises(SourceError, match=r"ends after 3 steps, 0_1.tfrecords goes on"):
        list(source(folder).acquisitions())
    write_stack(folder, images, deadzone=1)
    (folder / "0_0.tfrecords").write_bytes((folder / "0_0.tfrecords").read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"0_0.tfrecords: is cut short"):
        list(source(folder).acquisitions())


@pytest.mark.parametrize(
    ("times", "message"),
    [([5, 4], "do not ascend"), ([5, 5], "do not ascend"), ([np.nan, 1], "no number"), ([-1, 1], "no")],
)
def test_times_that_are_none(images, tmp_path, times, message):
    short = {name: frames[:2] for name, frames in images.items()}
    folder = write_stack(tmp_path / "stack", short, times=times)
    with pytest.raises(SourceError, match=message):
        list(source(folder).acquisitions())


def test_folders_that_are_no_stacks(stacked, tmp_path):
    for path, message in (
        (tmp_path / "none", "no such folder"),
        (stacked / "0_0.tfrecords", "is a file"),
        (tmp_path, "no tile"),
    ):
        with pytest.raises(SourceError, match=message):
            find_stack(path)
    tile = tmp_path / "0_0.tfrecords"
    tile.write_bytes((stacked / tile.name).read_bytes())
    with pytest.raises(SourceError, match="train --tfrecords"):
        find_stack(tmp_path)
    sizes = {"tile_size_y": 4, "tile_size_x": 4, "deadzone_y": 0, "deadzone_x": 0}
    for text, message in (
        ("{", "does not state"),
        ("[]", "does not state"),
        ("{}", "does not state"),
        ("[" * 100_000, "does not state"),
        (json.dumps(sizes | {"tile_size_y": "4"}), "no numbers of pixels"),
        (json.dumps(sizes | {"tile_size_y": True}), "no numbers of pixels"),
        (json.dumps(sizes | {"deadzone_x": 2}), "leave no pixel"),
    ):
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(SourceError, match=message):
            find_stack(tmp_path)
    (tmp_path / "metadata.json").write_text(json.dumps(sizes))
    (tmp_path / "x_0_0.tfrecords").write_bytes(b"")
    with pytest.raises(SourceError, match="are the same tile"):
        find_stack(tmp_path)
    tile.unlink()
    with pytest.raises(SourceError, match="hold no step"):
        list(source(tmp_path).acquisitions())


def test_a_start_that_keeps_the_steps():
    day = np.timedelta64(86_400, "s").astype("m8[ns]")
    first = np.datetime64("2018-01-11T10:00", "ns")
    assert steps_kept_by(first + day * np.array([0, 2, 4]), 2 * 86_400) == np.datetime64("2018-01-11")
    # 11th and 12th would share a bucket that starts on the 11th.
    assert steps_kept_by(first + day * np.array([0, 1, 3]), 2 * 86_400) == np.datetime64("2018-01-10")
    assert steps_kept_by(first + day * np.array([0, 1, 2]), 2 * 86_400) is None
    assert steps_kept_by(first + np.array([0, 1]) * np.timedelta64(1, "s"), 1) == np.datetime64("2018-01-11")
