"""Laws of anchored grids and of the tile plan."""

import numpy as np
import numpy.testing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandelta.grid import Grid, blocks, mirrored, read_aoi, tiles

settings.register_profile("urbandelta", deadline=None, max_examples=50)
settings.load_profile("urbandelta")

shapes = st.tuples(st.integers(1, 120), st.integers(1, 120))
sizes = st.integers(3, 50)
halos = st.integers(0, 20)
pixels = st.sampled_from([2.5, 10.0, 20.0, 30.0, 9.6, 0.7])


@st.composite
def neighbours(draw):
    """Two overlapping or touching boxes in one UTM zone."""
    west, south = draw(st.floats(3.0, 4.0)), draw(st.floats(-60.0, 60.0))
    width, height = draw(st.floats(0.001, 0.02)), draw(st.floats(0.001, 0.02))
    shift_x, shift_y = draw(st.floats(0, 1)) * width, draw(st.floats(0, 1)) * height
    first = (west, south, west + width, south + height)
    return first, (west + shift_x, south + shift_y, west + shift_x + width, south + shift_y + height)


@given(neighbours(), pixels)
def test_neighbouring_areas_share_their_pixels_bit_by_bit(boxes, pixel_m):
    a, b = (Grid.for_aoi(read_aoi(box), pixel_m=pixel_m, crs="EPSG:3857") for box in boxes)
    for mine, theirs in ((a.x, b.x), (a.y, b.y)):
        low, high = max(mine.min(), theirs.min()), min(mine.max(), theirs.max())
        npt.assert_array_equal(
            mine[(mine >= low) & (mine <= high)], theirs[(theirs >= low) & (theirs <= high)], strict=True
        )


@given(neighbours(), pixels)
def test_pixel_edges_are_multiples_of_the_pixel_and_cover_the_area(boxes, pixel_m):
    aoi = read_aoi(boxes[0])
    grid = Grid.for_aoi(aoi, pixel_m=pixel_m)
    edges = np.array(grid.bounds) / pixel_m
    npt.assert_allclose(edges, np.round(edges), rtol=1e-12)
    # A ring of pixels more would not see more of the area: nothing of it lies outside the grid.
    a, _, c, _, e, f = grid.transform
    wider = Grid(grid.crs, (a, 0.0, c - a, 0.0, e, f - e), grid.height + 2, grid.width + 2)
    inside = aoi.inside(wider)
    npt.assert_array_equal(inside[1:-1, 1:-1], aoi.inside(grid))
    assert inside.sum() == inside[1:-1, 1:-1].sum()


@given(neighbours(), pixels)
def test_json_round_trip_is_exact(boxes, pixel_m):
    grid = Grid.for_aoi(read_aoi(boxes[0]), pixel_m=pixel_m)
    again = Grid.from_json(grid.to_json())
    assert again == grid
    npt.assert_array_equal(again.x, grid.x)


@given(st.tuples(*[st.floats(-1e7, 1e7)] * 2), st.tuples(*[st.floats(1e-3, 1e6)] * 2), shapes)
def test_exact_grids_keep_their_bounds(corner, extent, shape):
    bounds = (corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1])
    grid = Grid.from_bounds(bounds, "EPSG:3035", shape)
    npt.assert_allclose(grid.bounds, bounds, rtol=1e-9, atol=1e-6)
    assert grid.shape == shape == (grid.y.size, grid.x.size)


@given(shapes, sizes, halos)
def test_cores_partition_the_grid(shape, tile, halo):
    hits = np.zeros(shape, dtype=int)
    for row in tiles(shape, tile=tile, halo=halo):
        for part in row:
            hits[part.core] += 1
    npt.assert_array_equal(hits, 1)


@given(shapes, sizes, halos)
def test_patches_have_one_size_lie_inside_and_hold_their_core(shape, tile, halo):
    expected = tuple(min(tile + 2 * halo, size) for size in shape)
    for row in tiles(shape, tile=tile, halo=halo):
        for part in row:
            for core, patch, size, length in zip(part.core, part.patch, shape, expected, strict=True):
                assert patch.stop - patch.start == length
                assert 0 <= patch.start <= core.start < core.stop <= patch.stop <= size


@given(shapes, sizes, halos)
def test_cores_keep_their_halo_wherever_the_grid_has_it(shape, tile, halo):
    for row in tiles(shape, tile=tile, halo=halo):
        for part in row:
            for core, patch, size in zip(part.core, part.patch, shape, strict=True):
                assert patch.start <= max(core.start - halo, 0)
                assert patch.stop >= min(core.stop + halo, size)


@given(shapes, sizes, halos, st.integers(1, 200))
def test_blocks_hold_each_tile_once_within_their_patch(shape, tile, halo, block):
    plan = blocks(shape, tile=tile, halo=halo, block=block)
    expected = {
        part.core[0].start * 1000 + part.core[1].start for row in tiles(shape, tile=tile, halo=halo) for part in row
    }
    found = [part.core[0].start * 1000 + part.core[1].start for group in plan for part in group.tiles]
    assert sorted(found) == sorted(expected)
    for group in plan:
        for axis in (0, 1):
            assert group.patch[axis].start == min(part.patch[axis].start for part in group.tiles)
            assert group.patch[axis].stop == max(part.patch[axis].stop for part in group.tiles)
            assert group.core[axis].start == min(part.core[axis].start for part in group.tiles)
            assert group.core[axis].stop == max(part.core[axis].stop for part in group.tiles)


@given(st.integers(-200, 200), st.integers(1, 100), st.integers(1, 60))
def test_mirroring_is_what_symmetric_padding_gives(start: int, length: int, size: int) -> None:
    axis = np.arange(size)
    before, after = max(0, -start), max(0, start + length - size)
    expected = np.pad(axis, (before, after), mode="symmetric")[start + before : start + before + length]
    np.testing.assert_array_equal(mirrored(start, length, size), axis[expected])
