"""From reflectance and decibels to the network's input: registration of the second date, robust standardisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from data import City
from torch.nn import functional

from urbandelta.coregistration import shift
from urbandelta.types import BoolArray, FloatArray

VISIBLE = slice(1, 4)
LARGEST_SHIFT = 2.0
CLIP = 5.0


@dataclass(frozen=True, eq=False)
class Pair:
    """A city ready for the network: standardised, second date on the first one's pixels."""

    name: str
    optical: FloatArray
    """(date, band, y, x)"""
    sar: FloatArray
    """(date, 1, y, x), zero where there is none."""
    has_sar: bool
    truth: BoolArray


def moved(image: FloatArray, by: tuple[float, float]) -> FloatArray:
    """Bands (band, y, x) moved by rows and columns, bicubic, edges repeated."""
    rows, columns = image.shape[-2:]
    y = (torch.arange(rows) - by[0]) * 2 / (rows - 1) - 1
    x = (torch.arange(columns) - by[1]) * 2 / (columns - 1) - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None].float()
    out = functional.grid_sample(
        torch.from_numpy(image)[None], grid, mode="bicubic", padding_mode="border", align_corners=True
    )
    return out[0].numpy()


def registered(city: City) -> City:
    """The city with its second date on the first one's pixels; left alone where the shift is not credible."""
    first, second = (np.asarray(city.optical[date, VISIBLE].mean(0)) for date in (0, 1))
    found = shift(first, second)
    back = (-found.dy, -found.dx)
    if not max(map(abs, back)) <= LARGEST_SHIFT:
        return city
    return replace(city, optical=np.stack([city.optical[0], moved(city.optical[1], back)]))


def standardised(image: FloatArray) -> FloatArray:
    """Bands (band, y, x) less their median, over their spread, clipped to +-5.

    The spread is half the distance between the quantiles of one standard deviation, hence deaf to clouds and water.
    """
    low, middle, high = np.percentile(image, (15.87, 50, 84.13), axis=(-2, -1), keepdims=True)
    scaled = (image - middle) / np.maximum((high - low) / 2, 1e-4)
    return np.clip(scaled, -CLIP, CLIP).astype(np.float32)


def prepare(city: City, *, register: bool = True) -> Pair:
    """A city as the network's input; both dates are standardised on their own, which takes haze and season out."""
    if register:
        city = registered(city)
    optical = city.optical
    shape = (2, 1, *city.shape)
    sar = np.zeros(shape, np.float32)
    if city.sar is not None:
        sar = np.stack([standardised(date[None]) for date in city.sar])
    return Pair(city.name, np.stack([standardised(date) for date in optical]), sar, city.sar is not None, city.truth)
