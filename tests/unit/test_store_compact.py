"""Compacting a cube: the ends of appends stay, what lies between them goes, and a stop at any moment loses nothing."""

from pathlib import Path

import icechunk
import numpy as np
import numpy.testing as npt
import pytest

from urbandelta import store
from urbandelta.errors import StoreError
from urbandelta.grid import Grid
from urbandelta.store import create_cube, open_cube
from urbandelta.types import Acquisition

GRID = Grid.from_bounds((500000, 5000000, 500080, 5000080), "EPSG:32631", (8, 8))
BULK = 4  # acquisitions; 16 outside the tests


def acquisitions(days):
    for day in days:
        values = np.random.default_rng(day).gamma(4, 0.05, (*GRID.shape, 2)).astype(np.float32)
        yield Acquisition(
            time=np.datetime64("2020-01-01", "ns") + np.timedelta64(day, "D"),
            values=values,
            mask=np.zeros(GRID.shape, np.uint8),
            bands=("VV", "VH"),
            item_id=f"S1_{day}",
            provenance={"day": day},
        )


def whole(cube):
    return cube.read("s1_asc", slice(None), slice(None), slice(None))[0]


def expected(days):
    return np.stack([each.values for each in acquisitions(days)])


def snapshot_files(cube):
    return len(list((Path(cube.url) / "snapshots").iterdir()))


@pytest.fixture(autouse=True)
def small_bulk(monkeypatch):
    monkeypatch.setattr(store, "_BULK", BULK)


@pytest.fixture
def nightly(tmp_path):
    """A cube after an import of three and two nights, too few to be compacted, and its snapshots after each."""
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)
    ends = [cube.snapshot]
    for days in (range(3), [3], [4]):
        cube.append("s1_asc", acquisitions(days))
        ends.append(cube.snapshot)
    return cube, ends


def test_ends_of_appends_stay_and_the_rest_goes(nightly):
    cube, ends = nightly
    middle = cube.history()[3].snapshot
    assert middle not in ends
    held = cube.bytes_stored()
    assert cube.compact() > 0
    assert cube.bytes_stored() < held
    history = cube.history()
    assert [commit.snapshot for commit in history] == ends[::-1]
    assert [commit.metadata.get("appended") for commit in history] == [1, 1, 3, None]
    assert "S1_2 (3 appended)" in history[2].message
    for count, end in zip((3, 4, 5), ends[1:], strict=True):
        npt.assert_array_equal(whole(open_cube(cube.url, snapshot=end)), expected(range(count)))
    with pytest.raises(StoreError, match="has no snapshot"):
        open_cube(cube.url, snapshot=middle)


def test_history_of_an_older_snapshot_ends_there(nightly):
    cube, ends = nightly
    cube.compact()
    cube.append("s1_asc", acquisitions([5]))
    assert len(cube.history()) == len(ends) + 1
    for count, end in enumerate(ends, start=1):
        history = open_cube(cube.url, snapshot=end).history()
        assert [commit.snapshot for commit in history] == ends[:count][::-1]


def test_bulk_appends_compact_themselves_and_few_do_not(nightly):
    cube, ends = nightly
    assert len(cube.history()) == 6
    cube.append("s1_asc", acquisitions(range(5, 5 + BULK)))
    ends.append(cube.snapshot)
    cube.append("s1_asc", acquisitions(range(30, 30 + BULK)))
    ends.append(cube.snapshot)
    assert [commit.snapshot for commit in cube.history()] == ends[::-1]
    assert snapshot_files(cube) == len(ends) + 1  # and the empty one that Icechunk begins with
    npt.assert_array_equal(whole(cube), expected([*range(5 + BULK), *range(30, 30 + BULK)]))
    days = [f'{{"day": {day}}}' for day in [*range(5 + BULK), *range(30, 30 + BULK)]]
    assert cube.acquisitions("s1_asc")["provenance"].values.tolist() == days


def test_compacting_again_changes_nothing(nightly):
    cube, ends = nightly
    cube.compact()
    files = sorted(Path(cube.url).rglob("*"))
    assert cube.compact() == 0
    assert sorted(Path(cube.url).rglob("*")) == files
    assert [commit.snapshot for commit in cube.history()] == ends[::-1]


def test_an_open_reader_and_another_writer_go_on(nightly):
    cube, _ends = nightly
    reader, writer = open_cube(cube.url), open_cube(cube.url, "a")
    writer.append("s1_asc", acquisitions([4]))  # nothing new, but now it knows the stream
    cube.compact()
    npt.assert_array_equal(whole(reader), expected(range(5)))
    assert len(reader.history()) == 4
    writer.append("s1_asc", acquisitions([5]))
    npt.assert_array_equal(whole(writer), expected(range(6)))


def test_readers_do_not_compact(nightly):
    cube, _ends = nightly
    with pytest.raises(StoreError, match="mode='a'"):
        open_cube(cube.url).compact()


class Killed(BaseException):
    """Stands for SIGKILL; `test_store_kill` sends real ones."""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("step", ["create_tag", "expire_snapshots", "garbage_collect"])
def test_stopped_half_way_it_finishes_the_next_time(nightly, monkeypatch, step, late):
    cube, ends = nightly
    real, calls = getattr(icechunk.Repository, step), []

    def stop(*given, **named):
        calls.append(given)
        if step == "create_tag" and len(calls) < 2:
            return real(*given, **named)
        if late:
            real(*given, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(icechunk.Repository, step, stop)
        with pytest.raises(Killed):
            cube.compact()
    again = open_cube(cube.url, "a")
    npt.assert_array_equal(whole(again), expected(range(5)))
    assert set(ends) <= {commit.snapshot for commit in again.history()}
    again.append("s1_asc", acquisitions([5]))
    again.compact()
    assert [commit.snapshot for commit in again.history()] == [again.snapshot, *ends[::-1]]
    assert snapshot_files(again) == len(ends) + 2
    npt.assert_array_equal(whole(again), expected(range(6)))


def test_object_stores_keep_what_is_new():
    cube = create_cube("memory://compact", era="s12", grid=GRID)
    cube.append("s1_asc", acquisitions(range(BULK)))
    assert cube.compact() == 0
    assert len(cube.history()) == BULK + 1
    npt.assert_array_equal(whole(cube), expected(range(BULK)))
