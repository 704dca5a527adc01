"""Label-free maps of change between two dates: what a network has to beat. Higher means more change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from data import BANDS, City
from prepare import registered, standardised
from torch.nn import functional

from urbandelta.types import FloatArray

MEAN_OVER = 5
"""Pixels a side of the mean that a radar ratio needs against speckle."""


def _mean_around(image: FloatArray) -> FloatArray:
    batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    mean = functional.avg_pool2d(batch, MEAN_OVER, 1, MEAN_OVER // 2, count_include_pad=False)
    return np.asarray(mean[0, 0].numpy())


def _difference(above: FloatArray, below: FloatArray) -> FloatArray:
    return (above - below) / np.maximum(above + below, 1e-3)


def _endisi(optical: FloatArray) -> FloatArray:
    """ENDISI (date, y, x), with beta from the two dates' own means."""
    blue, green, swir1, swir2 = (optical[:, BANDS.index(band)] for band in ("B02", "B03", "B11", "B12"))
    ratio, water = swir1 / np.maximum(swir2, 1e-3), _difference(green, swir1) ** 2
    means = [part.mean((-2, -1), keepdims=True) for part in (blue, ratio, water)]
    beta = 2 * means[0] / (means[1] + means[2])
    return _difference(blue, beta * (ratio + water))


def baselines(city: City) -> Mapping[str, FloatArray]:
    """Scores (y, x) of every baseline; those of the radar only where the city has any."""
    pair = registered(city)
    nir, red, swir = (pair.optical[:, BANDS.index(band)] for band in ("B08", "B04", "B11"))
    ndvi, ndbi = _difference(nir, red), _difference(swir, nir)
    plain = np.stack([standardised(date) for date in city.optical])
    endisi = _endisi(pair.optical)
    maps = {
        "ENDISI difference": np.abs(endisi[1] - endisi[0]),
        "change vector, reflectance": np.sqrt(((city.optical[1] - city.optical[0]) ** 2).sum(0)),
        "change vector, standardised": np.sqrt(((plain[1] - plain[0]) ** 2).mean(0)),
        "NDBI difference": np.abs(ndbi[1] - ndbi[0]),
        "NDBI - NDVI difference": np.abs((ndbi - ndvi)[1] - (ndbi - ndvi)[0]),
    }
    both = np.stack([standardised(date) for date in pair.optical])
    maps["change vector, standardised, registered"] = np.sqrt(((both[1] - both[0]) ** 2).mean(0))
    maps["change vector, standardised, registered, 5 x 5 mean"] = _mean_around(
        maps["change vector, standardised, registered"]
    )
    if city.sar is not None:
        maps["SAR log-ratio, 5 x 5 mean"] = _mean_around(np.abs(city.sar[1] - city.sar[0]))
    return maps
