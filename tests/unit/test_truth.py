from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import numpy.testing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from report_scene import small_grid

from urbandelta.errors import TruthError
from urbandelta.grid import Grid, tiles
from urbandelta.truth import TruthOptions, read_truth, tile_labels

GRID = small_grid(10, 12)
LEFT, TOP = 604_120.0, 5_749_870.0
CRS = "EPSG:32631"


def day(text: str) -> int:
    return int(np.datetime64(text, "D").astype(int))


def write(path: Path, values: np.ndarray, *, row=0.0, column=0.0, pixel=10.0, crs=CRS, nodata=None, description=None):
    transform = Affine(pixel, 0, LEFT + column * 10, 0, -pixel, TOP - row * 10)
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype,
        crs=crs, transform=transform, nodata=nodata,
    ) as target:  # fmt: skip
        target.write(values, 1)
        if description:
            target.set_band_description(1, description)
    return path


def box(row: float, column: float, bottom: float, right: float) -> shapely.Polygon:
    """Rows and columns of pixel edges to map coordinates."""
    return shapely.box(LEFT + column * 10, TOP - bottom * 10, LEFT + right * 10, TOP - row * 10)


def vector(path: Path, shapes: list, crs: str = CRS, **fields) -> Path:
    frame = geopandas.GeoDataFrame(fields, geometry=shapes, crs=CRS)
    frame.to_crs(crs).to_file(path)
    return path


def test_a_raster_of_classes_keeps_nodata_unknown(tmp_path):
    values = np.zeros((10, 12), np.uint8)
    values[2, 3], values[5, 5] = 1, 9
    truth = read_truth(write(tmp_path / "t.tif", values, nodata=9), GRID)
    assert (truth.kind, truth.dated, truth.changed.sum(), truth.known.sum()) == ("classes", False, 1, 119)
    assert truth.changed[2, 3]
    assert not truth.known[5, 5]


def test_changed_values_are_named_where_they_are_not_one(tmp_path):
    values = np.full((10, 12), 1, np.uint8)
    values[0, :4] = 2
    path = write(tmp_path / "oscd.tif", values)
    with pytest.raises(TruthError, match="--changed"):
        read_truth(path, GRID)
    assert read_truth(path, GRID, TruthOptions(changed_values=("2",))).changed.sum() == 4
    with pytest.raises(TruthError, match="no pixel has"):
        read_truth(path, GRID, TruthOptions(changed_values=("7",)))
    with pytest.raises(TruthError, match="numbers"):
        read_truth(path, GRID, TruthOptions(changed_values=("built",)))


def test_a_raster_of_dates_knows_that_minus_one_is_no_change(tmp_path):
    values = np.full((10, 12), -1, np.int32)
    values[1:3, 1:3] = day("2021-05-01")
    truth = read_truth(write(tmp_path / "t.tif", values, nodata=-1), GRID)
    assert (truth.kind, truth.changed.sum(), truth.known.sum()) == ("dates", 4, 120)
    npt.assert_array_equal(truth.earliest, values)
    none = np.full((10, 12), -1, np.int32)
    unchanged = read_truth(write(tmp_path / "n.tif", none, nodata=-1), GRID)
    assert (unchanged.kind, unchanged.changed.sum(), unchanged.known.sum()) == ("dates", 0, 120)


def test_a_raster_that_covers_other_pixels_of_the_same_lattice_is_cropped(tmp_path):
    values = np.ones((6, 6), np.uint8)
    truth = read_truth(write(tmp_path / "t.tif", values, row=-3, column=8), GRID)
    expected = np.zeros((10, 12), bool)
    expected[:3, 8:] = True
    npt.assert_array_equal(truth.changed, expected)
    npt.assert_array_equal(truth.known, expected)


def test_a_raster_on_another_grid_is_refused_unless_asked_for(tmp_path):
    values = np.zeros((20, 24), np.uint8)
    values[4:8, 4:8] = 1
    path = write(tmp_path / "fine.tif", values, pixel=5.0)
    with pytest.raises(TruthError, match="another grid"):
        read_truth(path, GRID)
    truth = read_truth(path, GRID, TruthOptions(resample=True))
    expected = np.zeros((10, 12), bool)
    expected[2:4, 2:4] = True
    npt.assert_array_equal(truth.changed, expected)
    assert truth.known.all()
    assert "nearest" in truth.notes[0]


def test_dates_survive_resampling(tmp_path):
    values = np.full((20, 24), -1, np.int32)
    values[4:8, 4:8] = 18_000
    truth = read_truth(write(tmp_path / "fine.tif", values, pixel=5.0, nodata=-1), GRID, TruthOptions(resample=True))
    assert truth.kind == "dates"
    assert (truth.earliest == 18_000).sum() == 4
    assert truth.known.all()


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", CRS])
def test_polygons_of_any_file_and_crs_mark_the_same_pixels(tmp_path, suffix, crs):
    path = vector(tmp_path / f"t{suffix}", [box(2.2, 3.3, 5.2, 7.3)], crs)
    truth = read_truth(path, GRID)
    expected = np.zeros((10, 12), bool)
    expected[2:5, 3:7] = True
    npt.assert_array_equal(truth.changed, expected)
    assert truth.known.all()
    assert "outside the polygons" in truth.notes[0]


def test_outside_the_extent_nothing_is_known(tmp_path):
    extent = vector(tmp_path / "e.gpkg", [box(0, 0, 10, 6)])
    truth = read_truth(vector(tmp_path / "t.gpkg", [box(2, 4, 4, 8)]), GRID, TruthOptions(extent=extent))
    assert (truth.known.sum(), truth.changed.sum(), truth.notes) == (60, 4, ())
    empty = write(tmp_path / "c.tif", np.ones((10, 12), np.uint8))
    assert read_truth(empty, GRID, TruthOptions(extent=extent)).known.sum() == 60


def test_years_and_days_and_spans_are_dates(tmp_path):
    shapes = [box(0, 0, 1, 1), box(0, 2, 1, 3), box(0, 4, 1, 5), box(0, 6, 1, 7)]
    path = vector(
        tmp_path / "t.geojson", shapes, seen=["2019", "2020-02", "2021-03-04", None], by=["2020", "2020-03", "2021", ""]
    )
    truth = read_truth(path, GRID, TruthOptions(date_field="seen"))
    npt.assert_array_equal(
        truth.earliest[0, [0, 2, 4, 6]], [day("2019-01-01"), day("2020-02-01"), day("2021-03-04"), -1]
    )
    npt.assert_array_equal(truth.latest[0, [0, 2, 4, 6]], [day("2019-12-31"), day("2020-02-29"), day("2021-03-04"), -1])
    assert any("no date" in note for note in truth.notes)
    seen = truth.visible(np.datetime64("2020-01-01"), np.datetime64("2021-01-01"))
    npt.assert_array_equal(seen[0, [0, 2, 4, 6]], [False, True, False, True])
    between = read_truth(path, GRID, TruthOptions(date_field="seen", last_date_field="by"))
    assert (between.earliest[0, 0], between.latest[0, 0]) == (day("2019-01-01"), day("2020-12-31"))


def test_date_columns_and_numbers_are_dates_too(tmp_path):
    frame = geopandas.GeoDataFrame(
        {"when": np.array(["2021-03-04", "2021-04-05"], "datetime64[ms]"), "year": [2019, 2020]},
        geometry=[box(0, 0, 1, 1), box(0, 2, 1, 3)], crs=CRS,
    )  # fmt: skip
    frame.to_file(tmp_path / "t.gpkg")
    truth = read_truth(tmp_path / "t.gpkg", GRID, TruthOptions(date_field="when"))
    npt.assert_array_equal(truth.earliest[0, [0, 2]], [day("2021-03-04"), day("2021-04-05")])
    truth = read_truth(tmp_path / "t.gpkg", GRID, TruthOptions(date_field="year"))
    assert truth.latest[0, 2] == day("2020-12-31")


def test_the_earliest_of_overlapping_changes_counts(tmp_path):
    path = vector(tmp_path / "t.gpkg", [box(0, 0, 2, 2), box(0, 0, 1, 1)], when=["2020-01-01", "2021-01-01"])
    assert read_truth(path, GRID, TruthOptions(date_field="when")).earliest[0, 0] == day("2020-01-01")


def test_classes_say_changed_unchanged_and_unknown(tmp_path):
    path = vector(
        tmp_path / "t.geojson",
        [box(0, k, 1, k + 1) for k in range(4)],
        kind=["built", "0", None, "crop"],
        n=[2, 0, 1, 0],
    )
    truth = read_truth(path, GRID, TruthOptions(class_field="kind"))
    npt.assert_array_equal(truth.changed[0, :4], [True, False, False, True])
    npt.assert_array_equal(truth.known[0, :4], [True, True, False, True])
    truth = read_truth(path, GRID, TruthOptions(class_field="kind", changed_values=("built",)))
    npt.assert_array_equal(truth.changed[0, :4], [True, False, False, False])
    npt.assert_array_equal(read_truth(path, GRID, TruthOptions(class_field="n")).changed[0, :4], [1, 0, 1, 0])


def test_points_say_nothing_about_the_rest(tmp_path):
    points = [box(0, 0, 1, 1).centroid, box(4, 4, 5, 5).centroid]
    path = vector(tmp_path / "t.gpkg", points, built=[1, 0])
    truth = read_truth(path, GRID, TruthOptions(class_field="built"))
    assert (truth.kind, truth.known.sum(), truth.changed.sum()) == ("points", 2, 1)
    with pytest.raises(TruthError, match="--class-field"):
        read_truth(path, GRID)


def test_slivers_without_a_pixel_are_told(tmp_path):
    path = vector(tmp_path / "t.gpkg", [box(0, 0, 2, 2), box(5.1, 5.1, 5.2, 5.2)])
    assert read_truth(path, GRID).notes[0].startswith("1 features hold no pixel")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda p: p / "none.tif", {}, "no such file"),
        (lambda p: vector(p / "a.gpkg", [box(0, 0, 1, 1)]), {"date_field": "when"}, "has no field 'when'"),
        (lambda p: vector(p / "b.gpkg", [box(0, 0, 1, 1)], when=["soon"]), {"date_field": "when"}, "no date"),
        (lambda p: vector(p / "c.gpkg", [box(900, 900, 910, 910)]), {}, "does not touch"),
        (lambda p: write(p / "d.tif", np.ones((3, 3), np.uint8), row=50), {}, "does not touch"),
        (lambda p: write(p / "e.tif", np.ones((10, 12), np.uint8), crs=None), {}, "no CRS"),
        (lambda p: write(p / "f.tif", np.full((10, 12), 9, np.uint8), nodata=9), {}, "says nothing"),
        (lambda p: write(p / "g.tif", np.ones((10, 12), np.uint8)), {"date_field": "when"}, "has no fields"),
        (lambda p: vector(p / "h.gpkg", [shapely.LineString([(LEFT, TOP), (LEFT + 9, TOP)])]), {}, "polygons only"),
        (lambda p: vector(p / "i.gpkg", [box(0, 0, 1, 1)], a=["2021"], b=["2020"]),
         {"date_field": "a", "last_date_field": "b"}, "swap"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*no geotransform")
def test_what_cannot_be_read_is_told_with_its_cause(tmp_path, make, options, message):
    with pytest.raises(TruthError, match=message):
        read_truth(make(tmp_path), GRID, TruthOptions(**options))


def test_an_extent_elsewhere_is_refused(tmp_path):
    extent = vector(tmp_path / "e.gpkg", [box(500, 500, 510, 510)])
    with pytest.raises(TruthError, match="does not touch"):
        read_truth(vector(tmp_path / "t.gpkg", [box(0, 0, 1, 1)]), GRID, TruthOptions(extent=extent))


def test_a_tile_has_changed_if_any_pixel_did_inside_the_period(tmp_path):
    values = np.full((10, 12), -1, np.int32)
    values[0, 0], values[0, 7] = day("2020-06-01"), day("2022-06-01")
    truth = read_truth(write(tmp_path / "t.tif", values, nodata=-1), GRID)
    grid_tiles = [tile for row in tiles(GRID.shape, tile=6, halo=1) for tile in row]
    year = {"start": np.datetime64("2020-01-01"), "end": np.datetime64("2021-01-01")}
    npt.assert_array_equal(tile_labels(truth, grid_tiles, **year), [1, 0, 0, 0])
    npt.assert_array_equal(tile_labels(truth, grid_tiles), [1, 1, 0, 0])
    exact = {"start": np.datetime64("2020-06-01"), "end": np.datetime64("2020-06-02")}
    npt.assert_array_equal(tile_labels(truth, [tile.core for tile in grid_tiles], **exact), [1, 0, 0, 0])
    npt.assert_array_equal(
        tile_labels(truth, grid_tiles, start=np.datetime64("2020-06-02"), end=np.datetime64("2021-01-01")), [0] * 4
    )


def test_a_tile_is_not_called_unchanged_where_it_is_not_known(tmp_path):
    extent = vector(tmp_path / "e.gpkg", [box(0, 0, 10, 9)])
    path = vector(tmp_path / "t.gpkg", [box(0, 0, 1, 1)], when=["2020"])
    truth = read_truth(path, GRID, TruthOptions(extent=extent, date_field="when"))
    halves = [(slice(0, 10), slice(0, 6)), (slice(0, 10), slice(6, 12))]
    assert tile_labels(truth, halves).tolist() == [1, -1]
    assert tile_labels(truth, halves, min_known=0.5).tolist() == [1, 0]
    spring = {"start": np.datetime64("2020-03-01"), "end": np.datetime64("2020-06-01")}
    assert tile_labels(truth, halves, **spring).tolist() == [-1, -1]


def test_geographic_grids_work(tmp_path):
    grid = small_grid(10, 12, geographic=True)
    assert isinstance(grid, Grid)
    inside = shapely.box(grid.x[2] - 1e-6, grid.y[4] - 1e-6, grid.x[4] + 1e-6, grid.y[2] + 1e-6)
    geopandas.GeoDataFrame(geometry=[inside], crs="EPSG:4326").to_file(tmp_path / "t.geojson")
    assert read_truth(tmp_path / "t.geojson", grid).changed.sum() == 9
