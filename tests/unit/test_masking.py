"""Masks: what hides a pixel and why."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, ShapeError, SourceError
from urbandelta.grid import Grid
from urbandelta.masking import (
    CLOUD_BANDS,
    BorderOptions,
    CloudOptions,
    MaskingRules,
    apply,
    border_noise,
    cloud_probability,
    cloud_reasons_s2cloudless,
    is_empty,
    provider_cloud_reasons,
    scl_reasons,
)
from urbandelta.sources.base import Part, Recipe, Scene, read_scene
from urbandelta.sources.calibrate import Encoding
from urbandelta.types import Acquisition, MaskReason

OPTICAL = ERAS["s12"].stream("optical")
RADAR = ERAS["s12"].stream("s1_asc")


def radar(power, mask=None):
    return Acquisition(
        time=np.datetime64("2020-01-01", "ns"),
        values=power.astype(np.float32),
        mask=np.zeros(power.shape[:2], np.uint8) if mask is None else mask,
        bands=RADAR.bands,
        item_id="pass",
    )


def swath(*, shape=(60, 80), left=20, fringe=6, seed=0):
    """A scene that begins at a column, with a fringe of low values before it."""
    rng = np.random.default_rng(seed)
    power = rng.gamma(4.0, 0.02, (*shape, 2)).astype(np.float32)
    power[:, left - fringe : left] = rng.gamma(4.0, 2e-4, (shape[0], fringe, 2))
    power[:, : left - fringe] = 0
    return power


def test_scene_classification_becomes_reasons():
    expected = {
        0: MaskReason.NODATA,
        1: MaskReason.SATURATED,
        3: MaskReason.CLOUD_SHADOW,
        8: MaskReason.CLOUD,
        9: MaskReason.CLOUD,
        10: MaskReason.CLOUD,
        11: MaskReason.SNOW,
    }
    reasons = scl_reasons(np.arange(12, dtype=np.uint8))
    assert reasons.tolist() == [int(expected.get(code, MaskReason.VALID)) for code in range(12)]


def test_provider_mask_tells_cloud_from_not_observed():
    reasons = provider_cloud_reasons(np.array([0, 1, 255], np.uint8))
    assert reasons.tolist() == [0, int(MaskReason.CLOUD), int(MaskReason.NODATA)]


def test_border_takes_zeros_fringe_and_margin():
    power = swath(left=20, fringe=6)
    hidden = border_noise(power, np.ones(power.shape[:2], bool), BorderOptions(erode_px=3))
    # The mean over 3 x 3 pixels mixes fringe and image at their seam: one pixel of the margin is spent on it.
    assert hidden[:, :22].all()
    assert not hidden[:, 23:].any()


def test_margin_without_fringe_is_exact():
    power = swath(left=20, fringe=0)
    hidden = border_noise(power, np.ones(power.shape[:2], bool), BorderOptions(erode_px=4, fringe_px=0))
    assert hidden[:, :24].all()
    assert not hidden[:, 24:].any()


def test_fringe_is_followed_so_far_and_no_further():
    power = swath(left=40, fringe=30)
    hidden = border_noise(power, np.ones(power.shape[:2], bool), BorderOptions(erode_px=0, fringe_px=8))
    assert hidden[:, :18].all()
    assert not hidden[:, 19:].any()


def test_holes_inside_have_no_fringe():
    power = swath(left=0, fringe=0)
    power[20:30, 30:40] = 0
    hidden = border_noise(power, np.ones(power.shape[:2], bool))
    assert hidden[20:30, 30:40].all()
    assert hidden.sum() == 100


def test_whole_scene_has_no_border():
    power = swath(left=0, fringe=0)
    assert not border_noise(power, np.ones(power.shape[:2], bool)).any()


def test_specks_at_the_edge_are_no_border():
    power = swath(left=0, fringe=0)
    power[0, 5:8] = 0
    assert border_noise(power, np.ones(power.shape[:2], bool)).sum() == 3


def test_nodata_behind_a_corner_is_outside():
    valid = np.ones((40, 40), bool)
    valid[5:30, 10:12] = False
    valid[5:7, 10:40] = False
    power = np.full((40, 40, 2), 0.1, np.float32)
    hidden = border_noise(power, valid, BorderOptions(erode_px=1, fringe_px=0))
    assert hidden[28, 9]
    assert hidden[28, 12]
    assert not (hidden & ~valid).any()


def test_border_options_are_checked():
    with pytest.raises(ConfigError, match="border"):
        BorderOptions(erode_px=-1)
    with pytest.raises(ShapeError):
        border_noise(np.ones((3, 3), np.float32), np.ones((3, 3), bool))


def test_applying_records_rules_and_counts():
    power = swath(left=20, fringe=0)
    masked = apply(radar(power), MaskingRules(border=BorderOptions(erode_px=2)), pixel_m=10)
    assert masked.provenance["masking"]["border"]["erode_px"] == 2
    assert masked.provenance["masking"]["hidden"] == {"border_noise": int((masked.mask > 0).sum())}
    assert (masked.mask[:, :22] == int(MaskReason.BORDER_NOISE)).all()
    npt.assert_array_equal(masked.values, power)


def test_no_rules_change_nothing():
    acquisition = radar(swath())
    assert apply(acquisition, MaskingRules(), pixel_m=10) is acquisition


def test_empty_means_not_observed():
    nodata, border, cloud = (
        np.full((2, 2), int(reason), np.uint8)
        for reason in (MaskReason.NODATA, MaskReason.BORDER_NOISE, MaskReason.CLOUD)
    )
    power = np.ones((2, 2, 2))
    assert is_empty(radar(power, nodata))
    assert is_empty(radar(power, border))
    assert not is_empty(radar(power, cloud))


def test_rules_are_refused_where_they_make_no_sense():
    with pytest.raises(ConfigError, match="radar"):
        MaskingRules(border=BorderOptions()).check(OPTICAL)
    with pytest.raises(ConfigError, match="B10"):
        MaskingRules(clouds=CloudOptions()).check(RADAR)
    with pytest.raises(ConfigError, match="threshold"):
        CloudOptions(threshold=1.5)
    pytest.importorskip("s2cloudless")
    with pytest.raises(ConfigError, match="L2A"):
        MaskingRules(clouds=CloudOptions()).check(OPTICAL, level="L2A")


def test_clouds_of_real_scenes(real_data):
    pytest.importorskip("s2cloudless")
    scenes = np.load(real_data / "eolearn" / "REFERENCE_SCENES.npy")
    chosen = [OPTICAL.bands.index(band) for band in CLOUD_BANDS]
    valid = np.ones(scenes.shape[1:3], bool)
    shares = [
        float((cloud_reasons_s2cloudless(scene[..., chosen], valid, pixel_m=10) == int(MaskReason.CLOUD)).mean())
        for scene in scenes
    ]
    # The data's description: the first date is cloudy; by eye the second is under thin cloud, the others are clear.
    assert shares[0] > 0.95
    assert shares[1] > 0.95
    assert shares[2:] == [0, 0, 0]


def test_clouds_ignore_nodata_and_keep_its_pixels_clear(real_data):
    pytest.importorskip("s2cloudless")
    scene = np.load(real_data / "eolearn" / "REFERENCE_SCENES.npy")[4]
    chosen = [OPTICAL.bands.index(band) for band in CLOUD_BANDS]
    reflectance = scene[..., chosen].copy()
    valid = np.ones(scene.shape[:2], bool)
    valid[:, 40:] = False
    reflectance[~valid] = np.nan
    probability, factor = cloud_probability(reflectance, valid, pixel_m=10)
    assert factor == 16
    assert probability.shape == (7, 7)
    assert np.isfinite(probability).all()
    assert (probability[:, 3:] == 0).all()
    assert not cloud_reasons_s2cloudless(reflectance, valid, pixel_m=10).any()


def test_clouds_want_reflectance():
    pytest.importorskip("s2cloudless")
    counts = np.full((4, 4, 10), 3000, np.float32)
    with pytest.raises(SourceError, match="1e-4"):
        cloud_probability(counts, np.ones((4, 4), bool), pixel_m=10)


def test_clouds_by_stored_numbers_equal_clouds_by_reflectance(real_data):
    pytest.importorskip("s2cloudless")
    scene = np.load(real_data / "eolearn" / "REFERENCE_SCENES.npy")[0]
    acquisition = Acquisition(
        time=np.datetime64("2015-08-20", "ns"),
        values=np.round((scene + 0.1) * 10000).astype(np.uint16),
        mask=np.zeros(scene.shape[:2], np.uint8),
        bands=OPTICAL.bands,
        scale=1e-4,
        offset=-0.1,
    )
    masked = apply(acquisition, MaskingRules(clouds=CloudOptions()), pixel_m=10)
    assert (masked.mask == int(MaskReason.CLOUD)).mean() > 0.95
    assert masked.provenance["masking"]["clouds"]["method"] == "s2cloudless"


class Flat:
    """A layer whose numbers are an array on the grid of the cube."""

    nodata, scale, offset, origin = None, 1.0, 0.0, "file.tif"

    def __init__(self, values, grid):
        self.values, self.grid = values, grid

    def read(self, rows, columns):
        return self.values[rows, columns], None


def merged(first, second, rules):
    grid = Grid.from_bounds((0, 0, 800, 600), "EPSG:32631", first.shape[:2])
    parts = tuple(
        Part({band: Flat(power[..., number], grid) for number, band in enumerate(RADAR.bands)}, name)
        for name, power in (("first", first), ("second", second))
    )
    recipe = Recipe(stream=RADAR, encoding=Encoding(zero="nodata"), masking=rules)
    return read_scene(Scene(time=np.datetime64("2020-01-01", "ns"), parts=parts), recipe, grid)


def test_granules_that_touch_leave_no_gap():
    whole = swath(left=0, fringe=0)
    first, second = whole.copy(), whole.copy()
    first[:, 40:], second[:, :40] = 0, 0
    image = merged(first, second, MaskingRules(border=BorderOptions(erode_px=5)))
    assert not image.mask.any()
    npt.assert_array_equal(image.values, whole)


def test_clean_pixels_of_one_granule_replace_the_fringe_of_another():
    whole = swath(left=0, fringe=0)
    first, second = whole.copy(), whole.copy()
    first[:, 50:] = 0
    first[:, 44:50] *= 1e-3
    second[:, :40] = 0
    image = merged(first, second, MaskingRules(border=BorderOptions(erode_px=0)))
    npt.assert_array_equal(image.values[:, 45:], whole[:, 45:])
    assert not image.mask[:, 45:].any()


def test_one_granule_is_masked_as_its_acquisition():
    power = swath(left=20, fringe=6)
    rules = MaskingRules(border=BorderOptions(erode_px=3))
    nodata = np.zeros_like(power)
    read = merged(power, nodata, rules)
    mask = np.where((power == 0).any(axis=2), int(MaskReason.NODATA), 0).astype(np.uint8)
    npt.assert_array_equal(read.mask, apply(radar(power, mask), rules, pixel_m=10).mask)
