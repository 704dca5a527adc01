"""ENDISI and its beta: what counts, and what one bad pixel does."""

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, ShapeError
from urbandelta.indices import ROLES, check_shift, endisi, endisi_bands, endisi_beta

BLUE, GREEN, SWIR1, SWIR2 = range(4)


def image(era="s12", shape=(12, 10), seed=0, **bands):
    """A mean image; `bands` gives single roles a value."""
    row = ERAS[era]
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.05, 0.4, (*shape, row.optical_bands)).astype(np.float32)
    for role, value in bands.items():
        values[..., endisi_bands(row)[ROLES.index(role)]] = value
    return values


@pytest.mark.parametrize(("era", "bands"), [("s12", (1, 2, 11, 12)), ("ers12ls5", (0, 1, 4, 6))])
def test_bands_by_role(era, bands):
    assert endisi_bands(era) == endisi_bands(ERAS[era]) == bands


@pytest.mark.parametrize("mode", ["reference", "corrected"])
def test_formula_by_hand(mode):
    mean = image(blue=0.2, green=0.1, swir16=0.2, swir22=0.25, shape=(1, 1))
    w = (0.1 - 0.2) / 0.3
    q = 0.2 / 0.25 + w**2
    r = (0.2 - 0.3 * q) / (0.2 + 0.3 * q)
    expected = max(r + 0.5, 0) - 0 - 0
    npt.assert_allclose(endisi(mean, 0.3, era="s12", shift=0.5, mode=mode), expected, rtol=1e-6)
    found = endisi_beta(mean, era="s12", mode=mode)
    npt.assert_allclose(found.coefficients, [0.2, 0.8, w**2], rtol=1e-6)
    assert found.beta == pytest.approx(0.4 / (0.8 + w**2), rel=1e-6)


def test_both_modes_agree_on_whole_images():
    for era in ERAS:
        mean = image(era)
        published, corrected = (endisi_beta(mean, era=era, mode=mode) for mode in ("reference", "corrected"))
        npt.assert_allclose(corrected.coefficients, published.coefficients, rtol=1e-5)
        first, second = (endisi(mean, published.beta, era=era, shift=0.25, mode=m) for m in ("reference", "corrected"))
        npt.assert_allclose(second, first, atol=1e-6)
        assert first.dtype == second.dtype == np.float32


def test_one_dark_pixel_spoils_the_published_beta_only():
    mean = image()
    whole = endisi_beta(mean, era="s12", mode="corrected").beta
    mean[3, 4, 12] = 0
    assert endisi_beta(mean, era="s12").beta < 1e-30
    assert endisi_beta(mean, era="s12", mode="corrected").beta == pytest.approx(whole, rel=0.05)


def test_missing_pixels_are_left_out():
    mean = image(shape=(10, 10))
    kept = endisi_beta(mean[:5], era="s12", mode="corrected")
    for hole in (np.nan, 0):
        mean[5:] = hole
        found = endisi_beta(mean, era="s12", mode="corrected")
        npt.assert_array_equal(found.coefficients, kept.coefficients)
        index = endisi(mean, found.beta, era="s12", shift=0.25, mode="corrected")
        assert np.isnan(index[5:]).all()
        assert np.isfinite(index[:5]).all()
        assert np.isfinite(endisi(mean, found.beta, era="s12", shift=0.25)).all()


def test_nothing_at_all_gives_no_beta():
    assert endisi_beta(image() * np.nan, era="s12", mode="corrected").beta == 0
    assert endisi_beta(image() * 0, era="s12").beta == 0


def test_dark_swir2_is_the_limit_of_little():
    little = endisi(image(swir22=1e-12), 0.2, era="s12", shift=0.25, mode="corrected")
    npt.assert_array_equal(endisi(image(swir22=0), 0.2, era="s12", shift=0.25, mode="corrected"), little)


def test_wrong_arguments():
    with pytest.raises(ShapeError, match="13 bands of s12"):
        endisi(image("ers12ls5"), 0.2, era="s12", shift=0.25)
    with pytest.raises(ShapeError):
        endisi_beta(image()[0], era="s12")
    with pytest.raises(ConfigError, match="unknown era"):
        endisi_beta(image(), era="s3")
    with pytest.raises(ConfigError, match="unknown mode"):
        endisi_beta(image(), era="s12", mode="x")
    with pytest.raises(ConfigError, match="shift"):
        check_shift(2)
