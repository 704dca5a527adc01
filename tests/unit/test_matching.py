import numpy as np
import pytest

from urbandelta.errors import ConfigError, WeightsError
from urbandelta.matching import Matching, expected_means, find_matching
from urbandelta.types import Acquisition


def with_seen_means(weights, path, means):
    """Weights whose first batch norm has seen these channel means."""
    name = f"{path}.block1"
    taps = weights.parameters[f"{name}.conv.weight"].astype(np.float64).sum(axis=(2, 3))
    seen = taps @ np.asarray(means) + weights.parameters[f"{name}.conv.bias"]
    weights.parameters[f"{name}.bn.running_mean"] = seen.astype(np.float32)
    return weights


def image(values, mask=None, **extra):
    values = np.asarray(values, np.float32)[..., None]
    mask = np.zeros(values.shape[:2], np.uint8) if mask is None else np.asarray(mask, np.uint8)
    return Acquisition(time=np.datetime64("1995-01-01", "ns"), values=values, mask=mask, bands=("VV",), **extra)


def test_the_means_that_a_batch_norm_has_seen_are_found(make_weights):
    weights = with_seen_means(make_weights("ers12ls5"), "sar", [186_000.0, 154_000.0])
    ascending, descending = (expected_means(weights, name) for name in ("ers_asc", "ers_dsc"))
    assert ascending.means["VV"] == pytest.approx(186_000, rel=1e-4)
    assert descending.means["VV"] == pytest.approx(154_000, rel=1e-4)
    assert ascending.misfit < 1e-5
    optical = with_seen_means(make_weights("ers12ls5"), "optical", np.linspace(0.1, 0.4, 7))
    assert expected_means(optical, "optical").means["B7"] == pytest.approx(0.4, rel=1e-3)


def test_padding_is_taken_out_of_the_mean(make_weights):
    weights = with_seen_means(make_weights("s12"), "optical", np.full(13, 0.4 * -1 + 0.6 * 0.2))
    assert expected_means(weights, "optical", padded_share=0.4).means["B04"] == pytest.approx(0.2, rel=1e-3)
    with pytest.raises(ConfigError, match="not in"):
        expected_means(weights, "optical", padded_share=1.0)


def test_one_gain_for_all_images_from_their_valid_pixels(make_weights):
    weights = with_seen_means(make_weights("ers12ls5"), "sar", [180_000.0, 150_000.0])
    images = [image([[1, 2], [3, 90]], [[0, 0], [0, 1]]), image([[2, 2], [np.nan, 2]], scale=2.0)]
    matching = find_matching(images, weights, "ers_asc")
    assert matching.observed == pytest.approx((1 + 2 + 3 + 4 + 4 + 4) / 6)
    assert matching.gain * matching.observed == pytest.approx(180_000, rel=1e-4)
    assert (matching.pixels, matching.acquisitions) == (6, 2)
    assert Matching.from_dict(matching.as_dict()) == matching
    assert "least squares" in matching.as_dict()["method"]


def test_what_cannot_be_matched_is_refused(make_weights):
    weights = with_seen_means(make_weights("ers12ls5"), "sar", [180_000.0, 150_000.0])
    with pytest.raises(ConfigError, match="linear and positive"):
        find_matching([image([[-12.0, -9.0]])], weights, "ers_asc")
    with pytest.raises(ConfigError, match="0 valid pixels"):
        find_matching([], weights, "ers_asc")
    with pytest.raises(ConfigError, match="only one band"):
        find_matching([], make_weights("s12"), "s1_asc")
    with pytest.raises(WeightsError, match="reads no ers_asc"):
        expected_means(make_weights("ers12ls5", "optical"), "ers_asc")


def test_the_published_weights_expect_raw_intensities(reference):
    from urbandelta.weights import load_weights

    weights = load_weights(reference / "best_weights_ers12ls5.hdf5")
    ascending, descending = (expected_means(weights, name) for name in ("ers_asc", "ers_dsc"))
    assert ascending.means["VV"] == pytest.approx(1.865e5, rel=1e-3)
    assert descending.means["VV"] == pytest.approx(1.536e5, rel=1e-3)
    assert ascending.misfit < 3e-3
