"""Published results as scores: window lists, tiles, dead zones, refusals."""

from __future__ import annotations

import io

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.errors import ConfigError, GridError, SourceError, StoreError
from urbandelta.grid import Grid
from urbandelta.published_scores import import_published_scores
from urbandelta.sources.placement import Placement
from urbandelta.store import open_scores
from urbandelta.windows import ListedWindow, Window, listed_windows, read_csv, write_csv

LIST = "0,2018-01-11 10:13:51,2018-07-08 05:46:36,53\n1,2018-01-25 17:13:03,2018-07-24 05:45:19,51\n"
AREA = {"bounds": (500_000, 5_000_000, 500_150, 5_000_140), "crs": "EPSG:32631"}


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "windows.csv"
    path.write_text(LIST)
    return path


def whole(tmp_path, shape=(2, 14, 15)):
    scores = np.random.default_rng(1).random(shape, np.float32)
    path = tmp_path / "all.npy"
    np.save(path, scores)
    return path, scores


def test_window_lists_are_read_as_written(listed):
    found = read_csv(listed)
    assert found[1] == ListedWindow(np.datetime64("2018-01-25T17:13:03"), np.datetime64("2018-07-24T05:45:19"), 51)
    text = io.StringIO()
    write_csv([Window(item.start, item.end, item.count, 0, 0) for item in found], text)
    assert text.getvalue() == LIST
    listed.write_text("\ufeffID,start time,end time,number of observations,role\n" + LIST.replace("\n", ",train\n\n"))
    assert read_csv(listed) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no window"),
        ("ID,start\n", "lists no window"),
        ("0,2018-01-11 10:13:51,2018-07-08 05:46:36\n", "is no window number 0"),
        ("0,2018-01-11,2018-07-08 05:46:36,4\n", "is no window number 0"),
        ("1,2018-01-11 10:13:51,2018-07-08 05:46:36,53\n", "is no window number 0"),
        ("0,2018-01-11 10:13:51,2017-07-08 05:46:36,53\n", "is no window number 0"),
        ("0,2018-01-11 10:13:51,2018-07-08 05:46:36,0\n", "is no window number 0"),
        (LIST + "x,1,2,3\n", "'x,1,2,3' is no window number 2"),
    ],
)
def test_other_lists_are_named(listed, text, message):
    listed.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_csv(listed)
    with pytest.raises(ConfigError, match="no readable window list"):
        read_csv(listed.with_name("none.csv"))
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no readable window list"):
        read_csv(listed)


def test_listed_windows_are_found_among_steps():
    steps = np.datetime64("2018-01-01T00:00:00.5", "ns") + np.arange(9) * np.timedelta64(3, "D")
    moments = steps.astype("datetime64[s]")
    (found,) = listed_windows([ListedWindow(moments[2], moments[5], 4)], steps)
    assert found == Window(steps[2], steps[5], 4, 2, 5)
    for bad in (
        ListedWindow(moments[2], moments[5], 5),
        ListedWindow(moments[2] + 1, moments[5], 4),
        ListedWindow(moments[2], moments[8] + 9, 7),
    ):
        with pytest.raises(ConfigError, match="1 of 1 listed windows are not runs of these 9 steps"):
            listed_windows([bad], steps)


def test_an_array_of_an_area_becomes_scores(tmp_path, listed):
    path, scores = whole(tmp_path)
    url = str(tmp_path / "scores")
    report = import_published_scores(path, windows=listed, out=url, era="s12", placement=Placement(**AREA))
    assert (report.windows, report.tiles, report.covered, report.done_before) == (2, 1, 1, False)
    found = open_scores(url)
    npt.assert_array_equal(found["score"], scores)
    npt.assert_array_equal(found["n_obs"], [53, 51])
    assert str(found["window_start"].values[0])[:19] == "2018-01-11T10:13:51"
    assert found.attrs["complete"]
    assert found.attrs["era"] == "s12"
    again = import_published_scores(path, windows=listed, out=url, era="s12", placement=Placement(**AREA))
    assert again.done_before
    assert again.snapshot == report.snapshot
    with pytest.raises(StoreError):
        import_published_scores(path, windows=listed, out=url, era="ers12ls5", placement=Placement(**AREA))


@pytest.mark.parametrize("deadzone", [0, 1, 2])
def test_tiles_with_a_dead_zone_answer_for_their_cores(tmp_path, listed, deadzone):
    """Scores of the same pixel differ near a tile's edge; there, another tile's are taken."""
    size, rows, columns = 8, 2, 3
    stride = size - 2 * deadzone
    shape = (rows * stride + 2 * deadzone, columns * stride + 2 * deadzone)
    true = np.random.default_rng(2).random((2, *shape), np.float32)
    folder = tmp_path / "tiles"
    folder.mkdir()
    for row in range(rows):
        for column in range(columns):
            tile = true[:, row * stride :, column * stride :][:, :size, :size].copy()
            wrong = np.ones((size, size), bool)
            wrong[deadzone : size - deadzone, deadzone : size - deadzone] = False
            for edge, at_edge in (
                (np.s_[: size - deadzone, :], row == 0),
                (np.s_[deadzone:, :], row == rows - 1),
            ):
                for side, at_side in (
                    (np.s_[:, : size - deadzone], column == 0),
                    (np.s_[:, deadzone:], column == columns - 1),
                ):
                    inner = np.zeros((size, size), bool)
                    inner[deadzone : size - deadzone, deadzone : size - deadzone] = True
                    reach = np.zeros((size, size), bool)
                    reach[
                        edge[0] if at_edge else slice(deadzone, size - deadzone),
                        side[1] if at_side else slice(deadzone, size - deadzone),
                    ] = True
                    wrong &= ~(reach | inner)
            tile[:, wrong] = 0.123
            np.save(folder / f"Town_{row}_{column}.npy", tile[..., None])
    url = str(tmp_path / "scores")
    grid_file = tmp_path / "grid.tif"
    grid = Grid.from_bounds(
        (500_000, 5_000_000, 500_000 + 10 * (shape[1] + 3), 5_000_000 + 10 * shape[0]),
        "EPSG:32631",
        (shape[0], shape[1] + 3),
    )
    write_grid(grid_file, grid)
    report = import_published_scores(
        folder, windows=listed, out=url, era="s12", placement=Placement(grid_from=grid_file), deadzone=deadzone
    )
    found = open_scores(url)["score"].values
    npt.assert_array_equal(found[..., : shape[1]], true)
    assert np.isnan(found[..., shape[1] :]).all()
    assert report.covered == pytest.approx(shape[1] / (shape[1] + 3))


def write_grid(path, grid):
    import rasterio

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=grid.height,
        width=grid.width,
        count=1,
        dtype="uint8",
        crs=grid.crs,
        transform=grid.affine,
    ):
        pass


def test_missing_and_diagonal_tiles_leave_gaps_and_are_not_added_up(tmp_path, listed):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for row, column in ((0, 0), (1, 1)):
        np.save(folder / f"{row}_{column}.npy", np.full((2, 6, 6), 0.75, np.float32))
    url = str(tmp_path / "scores")
    import_published_scores(
        folder,
        windows=listed,
        out=url,
        era="s12",
        placement=Placement(bounds=(0, 0, 100, 100), crs="EPSG:32631"),
        deadzone=1,
    )
    found = open_scores(url)["score"].values
    assert set(np.unique(found[~np.isnan(found)])) == {np.float32(0.75)}
    assert np.isnan(found[0, :4, 6:]).all()


def refused(source, listed, tmp_path, **options):
    options = {"placement": Placement(**AREA)} | options
    import_published_scores(source, windows=listed, out=str(tmp_path / "scores"), era="s12", **options)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4), np.float32), "results are .window, y, x"),
        (np.zeros((0, 4, 4), np.float32), "results are .window, y, x"),
        (np.zeros((3, 4, 4), np.float32), "has 3 windows"),
        (np.zeros((2, 4, 4), np.int32), "no array of floating-point"),
        (np.full((2, 4, 4), 1.5, np.float32), "outside 0 to 1"),
        (np.array([{"a": 1}], dtype=object), "not a readable numpy array"),
    ],
)
def test_other_arrays_are_named(tmp_path, listed, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(SourceError, match=message):
        refused(tmp_path / "a.npy", listed, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x04\x00{1: ", b"PK\x03\x04", b"\x80\x04."])
def test_files_that_are_no_arrays(tmp_path, listed, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(SourceError, match="numpy array"):
        refused(tmp_path / "a.npy", listed, tmp_path)


def test_a_cut_array_and_odd_tiles(tmp_path, listed):
    path, _ = whole(tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SourceError, match="not a readable"):
        refused(path, listed, tmp_path)
    path, _ = whole(tmp_path)
    with pytest.raises(ConfigError, match="does not say where it lies"):
        refused(path, listed, tmp_path, placement=Placement())
    with pytest.raises(ConfigError, match="leaves nothing"):
        refused(path, listed, tmp_path, deadzone=7)
    with pytest.raises(GridError, match="do not belong together"):
        refused(path, listed, tmp_path, placement=Placement(**AREA, shape=(10, 10)))
    folder = tmp_path / "tiles"
    folder.mkdir()
    with pytest.raises(SourceError, match="holds no results"):
        refused(folder, listed, tmp_path)
    np.save(folder / "0_0.npy", np.zeros((2, 4, 4), np.float32))
    np.save(folder / "0_1.npy", np.zeros((2, 4, 5), np.float32))
    with pytest.raises(SourceError, match="tiles are of one size"):
        refused(folder, listed, tmp_path)
    np.save(folder / "a_0_0.npy", np.zeros((2, 4, 4), np.float32))
    with pytest.raises(SourceError, match="are the same tile"):
        refused(folder, listed, tmp_path)
    assert not (tmp_path / "scores").exists()
