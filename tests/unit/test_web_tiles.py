"""Tiles: the geometry against pyproj itself, bricks of both origins, colours, and a cache that keeps its bound."""

from __future__ import annotations

import io
import threading
from functools import cache

import numpy as np
import numpy.testing as npt
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_scene import make_scene

from urbandelta.cog import write_cog
from urbandelta.grid import Grid
from urbandelta.scores import open_scores
from urbandelta.store import open_cube
from urbandelta.web.cache import ByteCache
from urbandelta.web.drawing import empty_png, indexed_png, palette
from urbandelta.web.image_layers import ImagePyramid, find_stretch
from urbandelta.web.mercator import EARTH_M, TILE_PX, TileGrid
from urbandelta.web.month_maps import Kept, MonthMaps
from urbandelta.web.pyramids import OUTSIDE, UNKNOWN, quantise, sample, size_of
from urbandelta.web.score_layers import CogPyramid, StorePyramid

GRIDS = {
    "utm": Grid("EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_640_000.0), 4000, 4000),
    "laea": Grid("EPSG:3035", (30.0, 0.0, 3_988_110.0, 0.0, -30.0, 3_078_210.0), 660, 1205),
    "south": Grid("EPSG:32735", (10.0, 0.0, 300_000.0, 0.0, -10.0, 7_100_000.0), 900, 1300),
    "degrees": Grid("EPSG:4326", (0.00014, 0.0, 4.3412, 0.0, -0.00009, 51.92), 300, 400),
}


@cache
def tiles_of(name: str) -> TileGrid:
    """Making a transformer takes longer than all that is asked of it."""
    return TileGrid(GRIDS[name])


def tile_under(grid: TileGrid, z: int, along: float = 0.5, down: float = 0.5) -> tuple[int, int, int]:
    west, south, east, north = grid.mercator_bounds
    size = EARTH_M / 2**z
    x, y = west + along * (east - west), north - down * (north - south)
    return z, int((x + EARTH_M / 2) // size), int((EARTH_M / 2 - y) // size)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("zoom", [0, 4, 9, 11, 13, 15, 20])
def test_tile_pixels_are_those_that_pyproj_names(name, zoom):
    tiles = tiles_of(name)
    z, x, y = tile_under(tiles, zoom, 0.3, 0.6)
    where = tiles.pixels(z, x, y)
    assert where is not None
    size = EARTH_M / 2**z
    height, width = where.rows.shape
    at_x = x * size - EARTH_M / 2 + (where.left + np.arange(width) + 0.5) * size / TILE_PX
    at_y = EARTH_M / 2 - y * size - (where.top + np.arange(height) + 0.5) * size / TILE_PX
    to_grid = pyproj.Transformer.from_crs("EPSG:3857", tiles.grid.crs, always_xy=True)
    grid_x, grid_y = to_grid.transform(*np.meshgrid(at_x, at_y))
    a, _, c, _, e, f = tiles.grid.transform
    columns, rows = (grid_x - c) / a, (grid_y - f) / e
    # Interpolating may cross the edge of a pixel where a centre lies near it: never by more than a twentieth of one.
    tolerance = max(0.05, 0.02 * 2**where.level)
    for found, exact in ((where.rows, rows), (where.columns, columns)):
        assert (found >= np.floor(exact - tolerance)).all()
        assert (found <= np.floor(exact + tolerance)).all()


@pytest.mark.parametrize("name", GRIDS)
def test_a_tile_beside_the_grid_shows_nothing(name):
    tiles = tiles_of(name)
    z, x, y = tile_under(tiles, 14)
    assert tiles.pixels(z, (x + 2**13) % 2**14, y) is None


@pytest.mark.parametrize("zxy", [(-1, 0, 0), (23, 0, 0), (3, 8, 0), (3, 0, -1)])
def test_no_such_tile(zxy):
    with pytest.raises(ValueError, match="no "):
        tiles_of("utm").pixels(*zxy)


@given(row=st.integers(0, 659), column=st.integers(0, 1204))
def test_a_pixel_is_found_again_by_its_place(row, column):
    tiles = tiles_of("laea")
    a, _, c, _, e, f = tiles.grid.transform
    place = tiles.to_degrees(c + a * (column + 0.5), f + e * (row + 0.5))
    assert tiles.locate(*place) == (row, column)


def test_places_outside_are_nowhere():
    tiles = tiles_of("utm")
    assert tiles.locate(0, 0) is None
    assert tiles.locate(180, -90) is None
    assert tiles.window_of(-10, -10, -9, -9) is None


def test_the_window_of_all_is_all():
    tiles = tiles_of("utm")
    assert tiles.window_of(-180, -90, 180, 90) == (slice(0, 4000), slice(0, 4000))


def test_levels_follow_the_zoom():
    tiles = tiles_of("utm")
    native = tiles.native_zoom
    levels = [tiles.pixels(*tile_under(tiles, z)).level for z in range(native + 1, native - 6, -1)]
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[-1] in (4, 5)


def test_indices_and_back():
    values = np.array([[0, 0.5, 1, np.nan, -3, 7]], np.float32)
    npt.assert_array_equal(quantise(values, 0, 1), [[0, 126, 253, UNKNOWN, 0, 253]])


def store_pyramid(scores, *months, scratch_bytes=2**24) -> StorePyramid:
    maps = MonthMaps(scores, months, Kept(2**24, 2**24, scratch_bytes))
    return StorePyramid(maps, tuple(range(len(months))))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    scores, cube = make_scene(folder, shape=(300, 410), border=3)
    return folder, open_scores(scores), open_cube(cube)


def test_rasters_and_store_give_the_same_tiles(scene):
    folder, scores, cube = scene
    members = (2, 3, 9)
    month = np.fmax.reduce(scores["score"].values[list(members)])
    write_cog(folder / "month.tif", month, cube.grid, nodata=np.nan, tags={})
    store = store_pyramid(scores, members)
    cog = CogPyramid(folder / "month.tif", cube.grid.shape)
    tiles = TileGrid(cube.grid)
    for zoom in (tiles.native_zoom + 1, tiles.native_zoom):
        where = tiles.pixels(*tile_under(tiles, zoom, 0.3, 0.3))
        drawn = [sample(pyramid, ByteCache(2**24, size_of), where) for pyramid in (store, cog)]
        npt.assert_array_equal(*drawn)
        assert len(np.unique(drawn[0])) > 10


def test_a_tile_shows_the_pixels_under_it(scene):
    _, scores, cube = scene
    store = store_pyramid(scores, (5,))
    tiles = TileGrid(cube.grid)
    where = tiles.pixels(*tile_under(tiles, tiles.native_zoom + 1, 0, 0))
    drawn = sample(store, ByteCache(2**24, size_of), where)
    expected = np.full((TILE_PX, TILE_PX), OUTSIDE, np.uint8)
    whole = quantise(scores["score"].values[5], 0, 1)
    part = expected[where.top : where.top + where.rows.shape[0], where.left : where.left + where.rows.shape[1]]
    inside = (where.rows >= 0) & (where.rows < 300) & (where.columns >= 0) & (where.columns < 410)
    part[inside] = whole[where.rows[inside], where.columns[inside]]
    npt.assert_array_equal(drawn, expected)
    assert {OUTSIDE, UNKNOWN} <= set(np.unique(drawn))


def test_an_image_is_the_same_in_bricks_and_whole(scene):
    _, _, cube = scene
    image = ImagePyramid(cube, "optical", 1, find_stretch(cube, "optical"), ByteCache(2**24, size_of))
    whole = image.read(0, slice(0, 300), slice(0, 410))
    assert whole.shape == (300, 410, 4)
    npt.assert_array_equal(image.read(0, slice(0, 50), slice(100, 200)), whole[:50, 100:200])
    # The upper rows are clouded: hatched, not hidden. The lower ones are as they were seen.
    hatched = (whole[:10, :, 0] > whole[:10, :, 1]) & (whole[:10, :, 2] > whole[:10, :, 1])
    assert 0.2 < hatched.mean() < 0.8
    assert (whole[..., 3] == 255).all()
    assert image.read(4, slice(0, 19), slice(0, 26)).shape == (19, 26, 4)


def test_radar_is_grey(scene):
    _, _, cube = scene
    image = ImagePyramid(cube, "s1_asc", 0, find_stretch(cube, "s1_asc"), ByteCache(2**24, size_of))
    drawn = image.read(0, slice(0, 60), slice(0, 60))
    npt.assert_array_equal(drawn[..., 0], drawn[..., 2])
    assert 60 < drawn[..., 0].mean() < 200


def test_colours_of_a_tile():
    index = np.array([[0, 126, 253, UNKNOWN, OUTSIDE]], np.uint8)
    drawn = np.asarray(Image.open(io.BytesIO(indexed_png(index, palette("viridis", True)))).convert("RGBA"))[0]
    npt.assert_array_equal(drawn, palette("viridis", True)[index[0]])
    assert drawn[0, 3] == 0  # no change lets the image through
    assert drawn[2, 3] == 240
    assert drawn[4, 3] == 0
    bare = Image.open(io.BytesIO(indexed_png(index, palette("viridis", True), show_unknown=False))).convert("RGBA")
    assert np.asarray(bare)[0, 3, 3] == 0 < drawn[3, 3]
    assert Image.open(io.BytesIO(empty_png())).size == (TILE_PX, TILE_PX)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 300)), max_size=60))
def test_a_cache_keeps_within_its_bytes(asked):
    kept: ByteCache[bytes] = ByteCache(1000, len)
    for key, size in asked:
        assert kept.get((key, size), lambda size=size: bytes(size)) == bytes(size)
        assert kept.bytes_kept <= 1000
    kept.clear()
    assert kept.bytes_kept == 0


def test_what_many_ask_for_is_made_once():
    kept: ByteCache[bytes] = ByteCache(1000, len)
    made = []
    gate = threading.Event()

    def make() -> bytes:
        gate.wait(5)
        made.append(1)
        return b"x"

    threads = [threading.Thread(target=kept.get, args=("a", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_a_failure_reaches_the_caller_and_is_not_kept():
    kept: ByteCache[bytes] = ByteCache(1000, len)

    def fail() -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        kept.get("a", fail)
    assert kept.get("a", lambda: b"ok") == b"ok"
