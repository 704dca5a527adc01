"""Match radar intensities to what a set of weights expects, by one gain for a whole stream.

Weights store what their first batch norm saw: the running mean m of each filter of the first convolution. That
convolution is linear, so m = S x + b, where S is the sum of each filter's taps for each input channel, b its bias, and
x the mean of each channel over the training data. There are more filters than channels, so x follows by least squares
(edges, where taps meet zero padding, are neglected). For the published ERS weights this gives 1.87e5 for ascending and
1.54e5 for descending images, 1.7e5 on average, and explains each m within 0.6 %.

Images on another scale (sigma nought, other gains) are multiplied by expected mean / observed mean. It is one gain for
all images of a stream: speckle statistics, ratios between dates and the omnibus test do not change, and a city that
brightens still brightens. Padding steps hold -1 and are part of what the batch norm saw; see `padded_share`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from urbandelta.errors import ConfigError, WeightsError
from urbandelta.types import Acquisition
from urbandelta.weights import Weights

_PADDING = -1.0
_METHOD = "gain = expected mean / observed mean; expected: least squares on the first batch norm's running means"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Mean of each channel of one stream that weights have seen; `misfit` is the largest residual, relative."""

    weights: str
    sha256: str
    stream: str
    means: Mapping[str, float]
    misfit: float


@dataclass(frozen=True, kw_only=True)
class Matching:
    """One gain for all images of a stream, and how it came about."""

    gain: float
    expected: float
    observed: float
    pixels: int
    acquisitions: int
    weights: str
    weights_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the provenance."""
        return {"method": _METHOD, **vars(self)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Matching:
        """What `as_dict` wrote."""
        return cls(**{name: value for name, value in document.items() if name != "method"})


def expected_means(weights: Weights, stream: str, *, padded_share: float = 0.0) -> Expectation:
    """Mean of each channel of a stream over the data that weights were trained on.

    Parameters
    ----------
    weights : Weights
    stream : str
        Name of a stream of the weights' era.
    padded_share : float
        Share of steps that were padding while training; they hold -1 in all channels and are taken out of the mean.
        0 takes the running mean as it is.

    Raises
    ------
    WeightsError
        If the network has no path for this kind of stream.
    ConfigError
        If the era has no such stream, or `padded_share` is not in [0, 1).
    """
    if not 0 <= padded_share < 1:
        raise ConfigError(f"a padded share of {padded_share} is not in [0, 1)")
    era = weights.era
    kind = era.stream(stream).kind
    if kind not in weights.config.paths:
        raise WeightsError(f"{weights.name}: is a network of the {weights.config.variant} path, it reads no {stream}")
    name = f"{kind}.block1"
    taps = weights.parameters[f"{name}.conv.weight"].astype(np.float64).sum(axis=(2, 3))
    bias, seen = (weights.parameters[f"{name}.{part}"].astype(np.float64) for part in ("conv.bias", "bn.running_mean"))
    solution = _least_squares(taps, seen - bias)
    residual = taps @ solution - (seen - bias)
    scale = float(np.abs(seen - bias).max())
    real = (solution - padded_share * _PADDING) / (1 - padded_share)
    streams = era.sar_streams if kind == "sar" else era.optical_streams
    channels = [(each.name, band) for each in streams for band in each.bands]
    return Expectation(
        weights=weights.name,
        sha256=weights.sha256,
        stream=stream,
        means={band: float(mean) for (owner, band), mean in zip(channels, real, strict=True) if owner == stream},
        misfit=float(np.abs(residual).max()) / scale if scale else 0.0,
    )


def find_matching(acquisitions: Iterable[Acquisition], weights: Weights, stream: str) -> Matching:
    """The gain that brings the mean of a stream's valid pixels to what weights expect.

    Raises
    ------
    ConfigError
        If the stream has several bands (one gain would be wrong for one of them), the weights expect no positive mean,
        or the images hold no positive mean.
    """
    expectation = expected_means(weights, stream)
    if len(expectation.means) != 1:
        raise ConfigError(f"stream {stream} has bands {', '.join(expectation.means)}; only one band can be matched")
    (expected,) = expectation.means.values()
    total, pixels, count = 0.0, 0, 0
    for acquisition in acquisitions:
        valid = acquisition.mask == 0
        values = acquisition.values[valid].astype(np.float64) * acquisition.scale + acquisition.offset
        values = values[np.isfinite(values)]
        total += float(values.sum())
        pixels += values.size
        count += 1
    observed = total / pixels if pixels else 0.0
    if expected <= 0 or observed <= 0:
        raise ConfigError(
            f"stream {stream}: a mean of {observed:g} over {pixels} valid pixels cannot be matched to the {expected:g} "
            f"of {weights.name}; intensities are linear and positive (for decibels say --db)"
        )
    return Matching(
        gain=expected / observed,
        expected=expected,
        observed=observed,
        pixels=pixels,
        acquisitions=count,
        weights=weights.name,
        weights_sha256=weights.sha256,
    )


def _least_squares(matrix: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.linalg.lstsq(matrix, right, rcond=None)[0].astype(np.float64)
