"""Laws of simulated scenes that hold for every seed."""

from itertools import islice

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandelta.eras import ERAS
from urbandelta.simulate import NO_CHANGE, simulate
from urbandelta.simulate.crops import crop_calendar, leaves, meadow_green, season
from urbandelta.simulate.noise import block_mean, generator, shifted, smooth_noise
from urbandelta.simulate.surfaces import LandCover
from urbandelta.simulate.weather import wetness

scenes = st.builds(
    simulate,
    st.sampled_from(sorted(ERAS)),
    size=st.integers(32, 72),
    months=st.integers(1, 30),
    seed=st.integers(0, 2**40),
    lost_satellite=st.booleans(),
)
days = st.floats(7_000, 25_000)


@settings(max_examples=25, deadline=None)
@given(scenes, st.floats(-0.1, 1.2))
def test_surfaces_share_each_pixel_at_any_time(scene, moment):
    cover = scene.landscape.cover(scene.day(scene.start) + moment * scene.days)
    assert cover.dtype == np.float32
    assert cover.min() >= -1e-6
    npt.assert_allclose(cover.sum(axis=0), 1, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(scenes)
def test_something_is_built_inside_the_series_and_never_on_water_or_in_town(scene):
    truth = scene.truth
    changed = truth != NO_CHANGE
    first = int(scene.day(scene.start))
    assert changed.any()
    assert not changed.all()
    assert (truth[changed] >= first).all()
    assert (truth[changed] < first + scene.days).all()
    assert np.isin(scene.land_cover[changed], [LandCover.FIELD, LandCover.GRASS, LandCover.BARE]).all()
    assert (scene.completed[changed] > truth[changed]).all()


@settings(max_examples=15, deadline=None)
@given(scenes)
def test_acquisitions_come_in_time_order_inside_the_series(scene):
    end = scene.start + np.timedelta64(scene.days, "D")
    for name in scene.era.stream_names:
        visits = scene.passes(name)
        times = [visit.time for visit in visits]
        assert times == sorted(set(times))
        assert all(scene.start <= time < end + np.timedelta64(60, "s") for time in times)
        for visit, acquisition in zip(visits, islice(scene.acquisitions(name), 2), strict=False):
            assert acquisition.time == visit.time
            assert acquisition.platform == visit.platform
            assert np.isfinite(acquisition.values).all()
            assert (acquisition.values > 0).all()


@pytest.mark.parametrize("stream", ["s1_asc", "optical"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_drawing_twice_gives_the_same_images(stream, seed):
    first, again = (simulate("s12", size=32, months=2, seed=seed) for _ in range(2))
    for one, other in zip(islice(first.acquisitions(stream), 3), islice(again.acquisitions(stream), 3), strict=True):
        npt.assert_array_equal(one.values, other.values)
        npt.assert_array_equal(one.mask, other.mask)


@settings(deadline=None)
@given(st.integers(0, 2**32), days, st.integers(1, 40))
def test_fields_are_never_more_than_covered(seed, day, parcels):
    calendar = crop_calendar(seed, parcels=parcels, first_day=int(day), last_day=int(day) + 400)
    for moment in (day, day + 200, day + 399):
        green, dry = calendar.cover(moment)
        assert green.shape == dry.shape == (parcels,)
        assert (green >= 0).all()
        assert (dry >= 0).all()
        assert (green + dry <= 1 + 1e-6).all()


@settings(deadline=None)
@given(days, st.floats(0, 1))
def test_season_leaves_and_meadows_are_shares(day, phase):
    for share in (season(day), leaves(day), float(meadow_green(day, np.float32(phase)))):
        assert 0 <= share <= 1
    assert abs(season(day) - season(day + 365.25)) < 1e-6


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_soil_is_never_wetter_than_soaked(seed, length):
    moisture = wetness(seed, first_day=17_000, days=length)
    assert moisture.shape == (length,)
    assert (moisture >= 0).all()
    assert (moisture <= 1).all()
    npt.assert_array_equal(wetness(seed, first_day=17_000, days=length), moisture)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 40), st.integers(3, 40), st.integers(1, 7))
def test_coarse_pixels_keep_the_range_and_are_their_own_means(seed, height, width, factor):
    image = smooth_noise(generator(seed), (height, width), wavelength_px=5, octaves=2)
    coarse = block_mean(image, factor)
    assert coarse.shape == image.shape
    assert coarse.min() >= image.min() - 1e-5
    assert coarse.max() <= image.max() + 1e-5
    if height % factor == 0 and width % factor == 0:
        npt.assert_allclose(coarse.mean(), image.mean(), atol=1e-4)
        npt.assert_allclose(block_mean(coarse, factor), coarse, atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_shifting_invents_no_values(seed, dy, dx):
    image = generator(seed).random((6, 7), dtype=np.float32)
    moved = shifted(image, dy, dx)
    assert moved.min() >= image.min() - 1e-6
    assert moved.max() <= image.max() + 1e-6
    npt.assert_array_equal(shifted(image, 0.0, 0.0), image)
