import json

import geopandas
import numpy as np
import numpy.testing as npt
import pytest
import shapely

from urbandelta.errors import AoiError
from urbandelta.grid import Grid, read_aoi

SQUARES = [shapely.box(5.00, 50.00, 5.01, 50.01), shapely.box(5.03, 50.00, 5.04, 50.01)]


def frame(shapes, crs="EPSG:4326"):
    return geopandas.GeoDataFrame({"name": [str(i) for i in range(len(shapes))]}, geometry=shapes, crs=crs)


@pytest.mark.parametrize(
    ("suffix", "crs"),
    [("geojson", "EPSG:4326"), ("gpkg", "EPSG:4326"), ("gpkg", "EPSG:3035"), ("shp", "EPSG:3035")],
)
def test_polygons_of_any_format_and_crs(tmp_path, suffix, crs):
    path = tmp_path / f"two.{suffix}"
    frame(SQUARES).to_crs(crs).to_file(path)
    aoi = read_aoi(path)
    assert aoi.name == "two"
    assert aoi.geometry.geom_type == "MultiPolygon"
    npt.assert_allclose(aoi.geometry.bounds, (5.00, 50.00, 5.04, 50.01), atol=1e-6)


@pytest.mark.parametrize("declared", ["UTF-8", "no such encoding", None])
def test_names_in_another_encoding_than_declared_do_no_harm(tmp_path, declared):
    path = tmp_path / "Liège.shp"
    named = geopandas.GeoDataFrame({"name": ["Liège", "Île"]}, geometry=SQUARES, crs="EPSG:4326")
    named.to_file(path, encoding="ISO-8859-1")
    path.with_suffix(".cpg").unlink()
    if declared is not None:
        path.with_suffix(".cpg").write_text(declared)
    aoi = read_aoi(path)
    assert aoi.name == "Liège"
    assert len(shapely.get_parts(aoi.geometry)) == 2


def test_inside_marks_pixels_whose_centre_is_in_a_polygon(tmp_path):
    path = tmp_path / "two.gpkg"
    frame(SQUARES).to_file(path)
    aoi = read_aoi(path)
    grid = Grid.from_bounds((5.0, 50.0, 5.04, 50.02), "EPSG:4326", (4, 8))
    expected = np.zeros((4, 8), bool)
    expected[2:, [0, 1, 6, 7]] = True
    npt.assert_array_equal(aoi.inside(grid), expected)
    assert 0.45 < aoi.inside(Grid.for_aoi(aoi, pixel_m=20)).mean() < 0.55


def test_overlapping_and_crossing_polygons_are_merged(tmp_path):
    path = tmp_path / "bow.gpkg"
    bow_tie = shapely.Polygon([(5.0, 50.0), (5.01, 50.01), (5.01, 50.0), (5.0, 50.01)])
    frame([bow_tie, shapely.box(5.0, 50.0, 5.01, 50.005)]).to_file(path)
    aoi = read_aoi(path)
    assert aoi.geometry.is_valid
    assert aoi.geometry.area == pytest.approx(0.75 * 0.01 * 0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "four numbers"),
        (("a", 2, 3, 4), "four numbers"),
        ((float("nan"), 0, 1, 1), "not finite"),
        ((1, 0, float("inf"), 1), "not finite"),
        ((2, 0, 1, 1), "empty or inverted"),
        ((0, 1, 1, 1), "empty or inverted"),
        ((0, 0, 181, 1), "no longitudes"),
        ((0, -91, 1, 1), "no longitudes"),
        ((500000, 5000000, 501000, 5001000), "no longitudes"),
    ],
)
def test_malformed_boxes_are_named(box, message):
    with pytest.raises(AoiError, match=message) as caught:
        read_aoi(box)
    assert "\n" not in str(caught.value)


def write_no_prj(path):
    frame(SQUARES).to_file(path)
    path.with_suffix(".prj").unlink()


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("none.geojson", lambda path: None, "no such file"),
        ("text.geojson", lambda path: path.write_text("nothing here"), "not a readable"),
        ("cut.gpkg", lambda path: path.write_bytes(b"SQLite format 3\x00" + b"x" * 50), "not a readable"),
        (
            "empty.geojson",
            lambda path: path.write_text(json.dumps({"type": "FeatureCollection", "features": []})),
            "no features",
        ),
        ("points.gpkg", lambda path: frame([shapely.Point(5, 50)]).to_file(path), "Point features"),
        ("noprj.shp", write_no_prj, "no CRS"),
        (
            "metres.geojson",
            lambda path: path.write_text(shapely.to_geojson(shapely.box(5e5, 5e6, 6e5, 6e6))),
            "no longitudes",
        ),
        ("line.gpkg", lambda path: frame([shapely.box(5, 50, 5, 50)]).to_file(path), "no area|no polygon|empty"),
        ("table.csv", lambda path: path.write_text("a,b\n1,2\n"), "without geometry|no features|not a readable"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(AoiError, match=message) as caught:
        read_aoi(path)
    assert name.partition(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
