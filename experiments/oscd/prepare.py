"""From reflectance and decibels to the network's input: registration of the second date, robust standardisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from data import City
from torch.nn import functional

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


def _edges(image: FloatArray) -> FloatArray:
    down, right = np.gradient(np.log(np.maximum(image, 0) + 0.01))
    return np.hypot(down, right)


def shift_between(first: FloatArray, second: FloatArray) -> tuple[float, float]:
    """Rows and columns by which `second` has to move to lie on `first`: phase correlation of edges, to a fraction.

    Parameters
    ----------
    first, second : ndarray, shape (y, x)
        Reflectance. Edges rather than values: fields and shadows change their brightness, roads stay where they are.
    """
    taper = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    spectra = [np.fft.fft2((edges - edges.mean()) * taper) for edges in (_edges(first), _edges(second))]
    cross = spectra[0] * np.conj(spectra[1])
    cross /= np.abs(cross) + 1e-9 * np.abs(cross).max()
    fy, fx = np.fft.fftfreq(first.shape[0])[:, None], np.fft.fftfreq(first.shape[1])[None]
    surface = np.fft.ifft2(cross * np.exp(-(fy**2 + fx**2) / (2 * 0.12**2))).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    shift = []
    for axis, size in enumerate(surface.shape):
        low, here, high = (np.roll(surface, -offset, axis)[peak] for offset in (-1, 0, 1))
        position = peak[axis] + (low - high) / (2 * (low - 2 * here + high))
        shift.append(float((position + size / 2) % size - size / 2))
    return shift[0], shift[1]


def moved(image: FloatArray, shift: tuple[float, float]) -> FloatArray:
    """Bands (band, y, x) moved by rows and columns, bicubic, edges repeated."""
    rows, columns = image.shape[-2:]
    y = (torch.arange(rows) - shift[0]) * 2 / (rows - 1) - 1
    x = (torch.arange(columns) - shift[1]) * 2 / (columns - 1) - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None].float()
    out = functional.grid_sample(
        torch.from_numpy(image)[None], grid, mode="bicubic", padding_mode="border", align_corners=True
    )
    return out[0].numpy()


def registered(city: City) -> City:
    """The city with its second date on the first one's pixels; left alone where the shift is not credible."""
    first, second = (np.asarray(city.optical[date, VISIBLE].mean(0)) for date in (0, 1))
    shift = shift_between(first, second)
    if max(map(abs, shift)) > LARGEST_SHIFT:
        return city
    return replace(city, optical=np.stack([city.optical[0], moved(city.optical[1], shift)]))


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
