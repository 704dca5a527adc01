from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_scene import small_grid

from urbandelta.cartography import MapFrame, round_length
from urbandelta.grid import Grid


def test_a_metric_grid_measures_its_metres_up_to_the_projection():
    frame = MapFrame(small_grid(100, 64))
    assert frame.width_m == pytest.approx(640, rel=1e-3)  # UTM's scale factor is within 0.1 %
    assert frame.height_m == pytest.approx(1000, rel=1e-3)
    assert frame.row_area_ha.sum() * 64 == pytest.approx(64, rel=2e-3)
    percent, label = frame.scale_bar
    assert label == "200 m"
    assert percent == pytest.approx(100 * 200 / frame.width_m)


def test_a_grid_in_degrees_is_measured_on_the_ellipsoid():
    frame = MapFrame(Grid("EPSG:4326", (0.001, 0, 10, 0, -0.001, 60.05), 100, 100))
    # A tenth of a degree at 60 N: 5.58 km from west to east, 11.14 km from south to north (WGS 84 tables).
    assert frame.width_m == pytest.approx(5580, rel=2e-3)
    assert frame.height_m == pytest.approx(11_141, rel=2e-3)
    assert frame.aspect == pytest.approx(0.5, rel=5e-3)
    assert frame.row_area_ha[0] < frame.row_area_ha[-1]  # pixels grow towards the equator
    assert frame.row_area_ha.sum() * 100 == pytest.approx(frame.width_m * frame.height_m / 1e4, rel=1e-3)
    assert [tick.label for tick in frame.x_ticks] == ["10.05°E"]


def test_ticks_stand_at_round_coordinates():
    frame = MapFrame(small_grid(100, 100))
    west, south, east, north = frame.grid.bounds
    assert [t.label for t in frame.x_ticks] == ["604\u202f500", "605\u202f000"]
    assert frame.x_ticks[0].percent == pytest.approx(100 * (604_500 - west) / (east - west))
    assert frame.y_ticks[0].percent == pytest.approx(100 * (north - 5_749_000) / (north - south))


def test_places_have_names():
    frame = MapFrame(small_grid(30, 30))
    assert [frame.place(*at) for at in ((2, 28), (15, 15), (29, 15), (15, 0))] == [
        "north-east",
        "centre",
        "south",
        "west",
    ]


@given(st.floats(0.5, 1e6))
def test_round_lengths_are_round_and_fill_at_least_two_fifths(limit):
    length = round_length(limit)
    assert 0.4 * limit <= length <= limit * (1 + 1e-6)
    assert float(f"{length:.0e}"[0]) in (1, 2, 5)


@given(st.integers(1, 400))
def test_one_pixel_wide_maps_have_measures_too(width):
    frame = MapFrame(small_grid(1, width))
    assert np.isfinite([frame.aspect, frame.scale_bar[0], *frame.row_area_ha]).all()
