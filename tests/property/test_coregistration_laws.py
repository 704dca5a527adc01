"""Shifts of scenes that are known to a fraction of a pixel, under speckle and seasonal change."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandelta.coregistration import LEAST_QUALITY, shift

FINE = 8
"""Fine pixels along one side of a pixel: shifts are known to an eighth."""
SIDE = 128
MARGIN = 4

EIGHTHS = st.integers(-16, 16)
SEEDS = st.integers(0, 2**20)


class City:
    """Fields whose brightness changes with the season, roads and buildings that stay, on fine pixels."""

    def __init__(self, rng):
        size = (SIDE + 2 * MARGIN) * FINE
        self.field = np.zeros((size, size), np.int16)
        self.built = np.zeros((size, size), bool)
        for number in range(1, 200):
            self.field[self._box(rng, size, 4 * FINE, 40 * FINE)] = number
        for _ in range(200):
            self.built[self._box(rng, size, FINE, 4 * FINE)] = True
        self.levels = rng.uniform(0.03, 0.3, 200)

    @staticmethod
    def _box(rng, size, least, most):
        y, x = rng.integers(0, size, 2)
        height, width = rng.integers(least, most, 2)
        return slice(y, y + height), slice(x, x + width)

    def seen(self, rng, dy=0, dx=0, *, season=0.0, looks=0.0):
        """The city shifted by eighths of a pixel: what is at (y, x) comes to (y + dy / 8, x + dx / 8)."""
        levels = self.levels * rng.uniform(1 - season, 1 + season, self.levels.shape)
        fine = np.where(self.built, 0.4, levels[self.field])
        top, left = MARGIN * FINE - dy, MARGIN * FINE - dx
        window = fine[top : top + SIDE * FINE, left : left + SIDE * FINE]
        image = window.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))
        return (image * rng.gamma(looks, 1 / looks, image.shape) if looks else image).astype(np.float32)

    def median(self, rng, dy=0, dx=0, *, dates, **change):
        return np.median([self.seen(rng, dy, dx, **change) for _ in range(dates)], axis=0)


def error(found, dy, dx):
    return float(np.hypot(found.dy - dy / FINE, found.dx - dx / FINE))


@settings(max_examples=15, deadline=None)
@given(SEEDS, EIGHTHS, EIGHTHS)
def test_known_shifts_are_found(seed, dy, dx):
    rng = np.random.default_rng(seed)
    city = City(rng)
    found = shift(city.seen(rng), city.seen(rng, dy, dx))
    assert error(found, dy, dx) < 0.12
    assert found.quality > LEAST_QUALITY


@settings(max_examples=15, deadline=None)
@given(SEEDS, EIGHTHS, EIGHTHS)
def test_known_shifts_are_found_in_another_season(seed, dy, dx):
    rng = np.random.default_rng(seed)
    city = City(rng)
    found = shift(city.seen(rng, season=0.5), city.seen(rng, dy, dx, season=0.5))
    assert error(found, dy, dx) < 0.2


@settings(max_examples=8, deadline=None)
@given(SEEDS, EIGHTHS, EIGHTHS)
def test_known_shifts_are_found_in_medians_under_speckle_and_seasons(seed, dy, dx):
    rng = np.random.default_rng(seed)
    city = City(rng)
    kind = {"dates": 12, "season": 0.5, "looks": 4.4}
    found = shift(city.median(rng, **kind), city.median(rng, dy, dx, **kind))
    assert error(found, dy, dx) < 0.2
    assert found.quality > LEAST_QUALITY


@settings(max_examples=10, deadline=None)
@given(SEEDS, EIGHTHS, EIGHTHS)
def test_turning_the_question_turns_the_answer(seed, dy, dx):
    rng = np.random.default_rng(seed)
    city = City(rng)
    one, other = city.seen(rng), city.seen(rng, dy, dx)
    there, back = shift(one, other), shift(other, one)
    npt.assert_allclose((there.dy, there.dx), (-back.dy, -back.dx), atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_other_cities_are_no_finding(seed):
    rng = np.random.default_rng(seed)
    assert shift(City(rng).seen(rng), City(rng).seen(rng)).quality < LEAST_QUALITY


@settings(max_examples=8, deadline=None)
@given(SEEDS, EIGHTHS, EIGHTHS)
def test_what_is_not_seen_does_not_pull(seed, dy, dx):
    rng = np.random.default_rng(seed)
    city = City(rng)
    one, other = city.seen(rng), city.seen(rng, dy, dx)
    one[:40, :50] = np.nan
    other[90:, 60:] = 99.0
    valid = np.ones(one.shape, bool)
    valid[90:, 60:] = False
    assert error(shift(one, other, valid), dy, dx) < 0.2
