import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from affine import Affine

from urbandelta.errors import AoiError, GridError, SourceError
from urbandelta.grid import Grid, blocks, read_aoi, tiles

LIEGE = (5.382712, 50.547471, 5.728062, 50.735039)


NORTH_UP = Affine(10, 0, 500000, 0, -10, 5000000)
SOUTH_UP = Affine(10, 0, 500000, 0, 10, 5000000)


def write_raster(path, *, crs="EPSG:32631", transform=NORTH_UP):
    with rasterio.open(
        path, "w", driver="GTiff", height=4, width=3, count=1, dtype="uint8", crs=crs, transform=transform
    ) as target:
        target.write(np.zeros((1, 4, 3), np.uint8))
    return path


def test_utm_zone_of_the_centroid_is_the_default():
    assert Grid.for_aoi(read_aoi(LIEGE), pixel_m=10).crs == "EPSG:32631"
    assert Grid.for_aoi(read_aoi((-70.7, -33.5, -70.6, -33.4)), pixel_m=10).crs == "EPSG:32719"
    assert Grid.for_aoi(read_aoi((179.8, 10, 180, 10.1)), pixel_m=100).crs == "EPSG:32660"


def test_grid_of_a_known_area():
    grid = Grid.for_aoi(read_aoi((5.0, 50.0, 5.01, 50.01)), pixel_m=30, crs="EPSG:3035")
    assert grid.crs == "EPSG:3035"
    assert grid.pixel_size == (30.0, 30.0)
    assert grid.shape == (39, 27)  # 1.1 x 0.7 km, turned against the axes of EPSG:3035
    npt.assert_array_equal(np.array(grid.bounds) % 30, 0)


def test_area_whose_edges_lie_on_pixel_edges_gains_no_pixel(tmp_path):
    import geopandas
    import shapely

    path = tmp_path / "square.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(4000020, 3000000, 4000320, 3000600)], crs="EPSG:3035").to_file(path)
    grid = Grid.for_aoi(read_aoi(path), pixel_m=30, crs="EPSG:3035")
    assert grid.bounds == (4000020, 3000000, 4000320, 3000600)
    assert read_aoi(path).inside(grid).all()


def test_centres_lie_half_a_pixel_inside():
    grid = Grid.from_bounds((10, 20, 16, 28), "EPSG:4326", (4, 3))
    npt.assert_array_equal(grid.x, [11, 13, 15])
    npt.assert_array_equal(grid.y, [27, 25, 23, 21])
    assert grid.is_geographic
    assert grid.bounds == (10, 20, 16, 28)


def test_geobox_has_the_same_pixels():
    grid = Grid.for_aoi(read_aoi(LIEGE), pixel_m=10)
    assert grid.geobox.shape == grid.shape
    assert tuple(grid.geobox.boundingbox) == grid.bounds
    npt.assert_array_equal(grid.geobox.coordinates["x"].values, grid.x)
    npt.assert_array_equal(grid.geobox.coordinates["y"].values, grid.y)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263", "not a crs"])
def test_anchored_grids_need_a_projection_in_metres(crs):
    with pytest.raises(GridError, match=r"EPSG:4326 is not a projected|not in metres|unknown CRS"):
        Grid.for_aoi(read_aoi(LIEGE), pixel_m=10, crs=crs)


@pytest.mark.parametrize("pixel_m", [0, -10, float("nan")])
def test_pixel_size_must_be_positive(pixel_m):
    with pytest.raises(GridError, match="pixel size"):
        Grid.for_aoi(read_aoi(LIEGE), pixel_m=pixel_m)


def test_areas_without_utm_zone_ask_for_a_crs():
    polar = read_aoi((10, 84.5, 11, 85))
    with pytest.raises(AoiError, match="no UTM zone"):
        Grid.for_aoi(polar, pixel_m=10)
    assert Grid.for_aoi(polar, pixel_m=10, crs="EPSG:3413").height > 1


@pytest.mark.parametrize("bounds", [(1, 1, 1, 2), (2, 1, 1, 2), (1, float("nan"), 2, 2)])
def test_empty_bounds_are_refused(bounds):
    with pytest.raises(GridError, match="empty or inverted"):
        Grid.from_bounds(bounds, "EPSG:4326", (2, 2))


def test_malformed_grids_are_refused():
    with pytest.raises(GridError, match="at least one pixel"):
        Grid.from_bounds((1, 1, 2, 2), "EPSG:4326", (0, 2))
    with pytest.raises(GridError, match="rotated"):
        Grid("EPSG:32631", (10, 1, 0, 0, -10, 0), 2, 2)
    with pytest.raises(GridError, match="six finite"):
        Grid("EPSG:32631", (10, 0, float("inf"), 0, -10, 0), 2, 2)
    for text in ("", "{}", "[1]", '{"crs": "EPSG:4326", "transform": [1], "height": 1, "width": 1}'):
        with pytest.raises(GridError):
            Grid.from_json(text)


def test_crs_without_code_survives_json():
    wkt = rasterio.crs.CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=3 +datum=WGS84 +units=m").to_wkt()
    grid = Grid.from_bounds((0, 0, 10, 10), wkt, (2, 2))
    assert not grid.crs.startswith("EPSG")
    assert Grid.from_json(grid.to_json()) == grid
    assert Grid.from_bounds((0, 0, 1, 1), rasterio.crs.CRS.from_epsg(3035).to_wkt(), (1, 1)).crs == "EPSG:3035"


def test_grid_of_a_raster(tmp_path):
    grid = Grid.from_raster(write_raster(tmp_path / "a.tif"))
    assert grid == Grid.from_bounds((500000, 4999960, 500030, 5000000), "EPSG:32631", (4, 3))


def test_raster_problems_are_named(tmp_path):
    with pytest.raises(SourceError, match="not a readable raster"):
        Grid.from_raster(tmp_path / "none.tif")
    with pytest.raises(GridError, match="no CRS"):
        Grid.from_raster(write_raster(tmp_path / "b.tif", crs=None))
    flipped = write_raster(tmp_path / "c.tif", transform=SOUTH_UP)
    with pytest.raises(GridError, match="north-up"):
        Grid.from_raster(flipped)


def test_published_tiling_is_the_plan_without_halo():
    plan = tiles((70, 64), tile=32, halo=0)
    assert [[tile.patch for tile in row] for row in plan[:2]] == [
        [(slice(y, y + 32), slice(x, x + 32)) for x in (0, 32)] for y in (0, 32)
    ]
    assert plan[2][0].core == (slice(64, 70), slice(0, 32))
    assert plan[2][0].patch == (slice(38, 70), slice(0, 32))


def test_halo_is_clamped_at_the_edges():
    (first, second, third) = tiles((96, 40), tile=32, halo=8)
    assert [row[0].patch[0] for row in (first, second, third)] == [slice(0, 48), slice(24, 72), slice(48, 96)]
    assert first[0].patch[1] == slice(0, 40)


def test_blocks_group_whole_tiles():
    plan = blocks((300, 200), tile=48, halo=8, block=128)
    assert len(plan) == 3 * 2
    assert len(plan[0].tiles) == 9
    assert plan[0].core == (slice(0, 144), slice(0, 144))
    assert plan[0].patch == (slice(0, 152), slice(0, 152))


@pytest.mark.parametrize(("tile", "halo", "block"), [(0, 0, 1), (8, -1, 1), (8, 0, 0)])
def test_impossible_tiles_are_refused(tile, halo, block):
    with pytest.raises(GridError):
        blocks((10, 10), tile=tile, halo=halo, block=block)
