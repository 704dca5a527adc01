"""Shifts of images, and the check of a cube."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from urbandelta.coregistration import CheckOptions, check_cube, median_image, shift
from urbandelta.errors import ConfigError, ShapeError
from urbandelta.grid import Grid
from urbandelta.store import create_cube
from urbandelta.types import Acquisition

SHAPE = (64, 72)


def town(seed=0, size=(80, 88)):
    rng = np.random.default_rng(seed)
    image = np.full(size, 0.05, np.float32)
    for _ in range(120):
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(2, 8, 2)
        image[y : y + height, x : x + width] = rng.uniform(0.05, 0.5)
    return image


def cube_of_two(path, dy, dx, *, dates=3, platforms=("S1A", "S1C")):
    rng = np.random.default_rng(1)
    image = town()
    cube = create_cube(str(path), era="s12", grid=Grid.from_bounds((500_000, 0, 500_720, 640), "EPSG:32631", SHAPE))
    acquisitions = []
    for day in range(2 * dates):
        moved = day % 2 == 1
        top, left = (8 - dy, 8 - dx) if moved else (8, 8)
        window = image[top : top + SHAPE[0], left : left + SHAPE[1]]
        power = np.repeat(window[..., None], 2, axis=2) * rng.gamma(20, 1 / 20, (*SHAPE, 2))
        mask = np.zeros(SHAPE, np.uint8)
        mask[:4] = day == 0
        acquisitions.append(
            Acquisition(
                time=np.datetime64("2020-01-01", "ns") + np.timedelta64(6 * day, "D"),
                values=power.astype(np.float32),
                mask=mask,
                bands=("VV", "VH"),
                platform=platforms[int(moved)],
                orbit_state="ascending",
                processing_level="GRD",
                backscatter_coefficient="gamma0",
            )
        )
    cube.append("s1_asc", acquisitions)
    return cube


def test_a_moved_satellite_is_found_and_warned_of(tmp_path, caplog):
    cube = cube_of_two(tmp_path / "cube", 2, -1)
    with caplog.at_level(logging.WARNING, logger="urbandelta"):
        (pair,) = check_cube(cube)
    assert (pair.stream, pair.reference, pair.moved) == ("s1_asc", "S1A", "S1C")
    assert pair.dy == pytest.approx(2, abs=0.15)
    assert pair.dx == pytest.approx(-1, abs=0.15)
    assert pair.counts == (3, 3)
    assert pair.too_far
    assert "S1C against S1A: +2." in caplog.text or "S1C against S1A: +1.9" in caplog.text
    assert "px right" in str(pair)


def test_satellites_that_agree_are_not_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="urbandelta"):
        (pair,) = check_cube(cube_of_two(tmp_path / "cube", 0, 0))
    assert pair.certain
    assert pair.pixels < 0.1
    assert not caplog.text


def test_medians_of_few_images_are_not_believed(tmp_path, caplog):
    (pair,) = check_cube(cube_of_two(tmp_path / "cube", 2, -1, dates=2))
    assert not pair.too_far
    assert "undecided (2 and 2 acquisitions)" in str(pair)
    assert not caplog.text


def test_one_satellite_is_not_compared(tmp_path):
    assert check_cube(cube_of_two(tmp_path / "cube", 0, 0, platforms=("S1A", "S1A"))) == []


def test_only_asked_streams_are_compared(tmp_path):
    assert check_cube(cube_of_two(tmp_path / "cube", 0, 0), CheckOptions(streams=("optical",))) == []


def test_small_cubes_are_not_compared(make_cube):
    assert check_cube(make_cube()) == []


def test_median_is_over_valid_pixels_of_spread_acquisitions(tmp_path):
    cube = cube_of_two(tmp_path / "cube", 0, 0)
    rows, columns = slice(0, 64), slice(0, 72)
    alone = median_image(cube, "s1_asc", [0], rows, columns)
    assert np.isnan(alone[:4]).all()
    assert np.isfinite(alone[4:]).all()
    assert np.isfinite(median_image(cube, "s1_asc", range(6), rows, columns, 2)).all()


def test_images_without_edges_give_nothing():
    flat = np.full((32, 32), 0.2, np.float32)
    assert np.isnan(shift(flat, flat).dy)
    unseen = np.full((32, 32), np.nan, np.float32)
    assert shift(unseen, flat).quality == 0


def test_shapes_and_options_are_checked():
    with pytest.raises(ShapeError, match="same shape"):
        shift(town(), town()[1:])
    with pytest.raises(ShapeError, match="valid"):
        shift(town(), town(), np.ones((2, 2), bool))
    with pytest.raises(ConfigError, match="side"):
        CheckOptions(side=4)
