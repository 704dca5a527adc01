from __future__ import annotations

import io

import numpy as np
import pytest
from event_scene import GRID, scores_of
from PIL import Image
from report_scene import make_scene, small_grid

from urbandelta.builtup import sampled_beta
from urbandelta.canvas import Canvas
from urbandelta.cartography import MapFrame
from urbandelta.errors import ConfigError, GridError, ProductError
from urbandelta.moments import acquisition_moments, month_moments, sights, window_moments
from urbandelta.pixel_plot import draw_pixel, strongest_pixel
from urbandelta.plates import draw_overlay, draw_series, pixel_at, write_png
from urbandelta.products import score_maps
from urbandelta.scores import open_scores
from urbandelta.store import create_cube, open_cube


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    scores, cube = make_scene(folder)
    return open_scores(scores), open_cube(cube)


def image(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_red_lies_where_the_score_is_high_and_nowhere_else(scene):
    scores, cube = scene
    drawn = image(draw_overlay(scores, cube, size=320))
    maximum = score_maps(scores).maximum
    side = 320 / maximum.shape[1]
    middle = drawn[74 + round(5.5 * side), 20 + round(23.5 * side)]
    assert middle[0] > 230
    assert middle[1:].max() < 90
    row = drawn[74 : 74 + 200, 20 : 20 + 320]
    pure = (row[..., 0] > 235) & (row[..., 1] < 70) & (row[..., 2] < 70)
    assert 0 < pure.mean() < 0.12  # 60 of 640 pixels changed, less their outline


@pytest.mark.parametrize("every", ["month", "window", "acquisition"])
def test_a_plate_has_a_cell_for_each_moment(scene, every):
    scores, cube = scene
    drawn = image(draw_series(scores, cube, every=every, size=64))
    assert drawn.shape[1] > 300
    alone = image(draw_series(scores, None, size=64, cells=4)) if every == "month" else drawn
    assert alone.size <= drawn.size


def test_moments_are_in_order_and_what_was_never_seen_stays_transparent(scene):
    scores, cube = scene
    months = list(month_moments(scores, 1))
    assert [m.label for m in months][:2] == ["Apr 2021", "May 2021"]
    assert len(list(window_moments(scores, 1))) == scores.sizes["window"]
    title, seen = sights(cube, months, 1)
    assert title == "True colour"
    assert len(seen) == len(months)
    assert all((sight.rgba[..., 3] == 255).all() for sight in seen)  # the last picture stays under clouds
    clear = list(acquisition_moments(scores, cube, 1))
    assert {m.seen_start for m in clear} <= set(cube.times("optical"))
    _, single = sights(cube, clear, 1, carry=False)
    assert any((sight.rgba[:10, :, 3] == 0).all() for sight in single)  # half in cloud, and shown so


def test_history_of_a_pixel_is_drawn_with_and_without_its_cube(scene):
    scores, cube = scene
    row, column = strongest_pixel(score_maps(scores).maximum)
    tall = image(draw_pixel(scores, cube, row, column, width=700))
    assert tall.shape[1] == 700
    assert image(draw_pixel(scores, None, row, column, width=700)).shape[0] < tall.shape[0]
    assert draw_pixel(scores, None, 3, 3) == draw_pixel(scores, None, 3, 3)
    assert sampled_beta(cube) is None  # no short-wave infrared
    assert strongest_pixel(np.full((4, 6), np.nan, np.float32)) == (2, 3)


def test_provisional_windows_and_the_spread_of_an_ensemble_are_drawn():
    scores = scores_of([(slice(2, 8), slice(2, 8), 200)], windows=12, provisional=3, spread=0.1)
    assert image(draw_pixel(scores, None, 4, 4, width=700)).min() < 100


def test_a_place_in_degrees_is_found_and_others_are_refused():
    frame = MapFrame(GRID)
    for place in ((0, 0), (7, 13), (23, 23)):
        assert pixel_at(GRID, frame.lonlat(*place)) == place
    for place in ((0.0, 0.0), (500.0, 91.0)):
        with pytest.raises(ConfigError, match="outside the scores"):
            pixel_at(GRID, place)


def test_wrong_input_is_refused(scene, tmp_path):
    scores, cube = scene
    with pytest.raises(ConfigError, match="size"):
        draw_overlay(scores, cube, size=10)
    with pytest.raises(ConfigError, match="need the cube"):
        draw_series(scores, None, every="acquisition")
    with pytest.raises(ConfigError, match="PNG"):
        write_png(tmp_path / "x.jpg", b"")
    empty = create_cube(str(tmp_path / "c"), era="s12", grid=small_grid())
    with pytest.raises(ProductError, match="too few acquisitions"):
        draw_overlay(scores, empty)
    with pytest.raises(ProductError, match="nothing to show"):
        draw_series(scores, empty, every="acquisition")
    other = create_cube(str(tmp_path / "o"), era="s12", grid=GRID)
    with pytest.raises(GridError):
        draw_pixel(scores, other, 0, 0)


def test_an_outline_runs_around_a_mask_inside_and_out():
    canvas = Canvas(20, 20)
    canvas.box(0, 0, 20, 20, (128, 128, 128))
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    canvas.outline(2, 2, 16, 16, mask)
    drawn = np.asarray(canvas.image)
    assert (drawn[6, 6:14] == 255).all()
    assert (drawn[5, 6:14, 0] == 28).all()
    assert (drawn[8:12, 8:12] == 128).all()
