"""The border of radar scenes: exact zeros, the fringe of low values beside them, and a margin for good measure.

Level-1 products are padded with zeros, and between zeros and image lies a fringe of small values from processing
(border noise; ESA masks it since 2018 from IPF 2.9 on, not in all products, and resampling spreads what is left).
Only nodata that reaches the edge of the array counts as outside: holes inside, such as radar shadow in products with
terrain correction, have no fringe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.types import Array, BoolArray, FloatArray

_SMALLEST_OUTSIDE = 16
_BOX = 3


@dataclass(frozen=True, kw_only=True)
class BorderOptions:
    """How the border of a radar scene is cleaned, in pixels of the image.

    From the outside inwards, up to `fringe_px` pixels are hidden as long as the mean of 3 x 3 pixels is more than
    `fringe_db` below the scene's median in any band; then `erode_px` more.
    """

    erode_px: int = 5
    fringe_px: int = 60
    fringe_db: float = 10.0

    def __post_init__(self) -> None:
        if self.erode_px < 0 or self.fringe_px < 0 or not self.fringe_db > 0:
            raise ConfigError("border: erode_px and fringe_px are 0 or more pixels, fringe_db is a positive drop")


def border_noise(power: FloatArray, valid: BoolArray, options: BorderOptions | None = None) -> BoolArray:
    """Valid pixels that belong to a scene's noisy border.

    Parameters
    ----------
    power : ndarray, shape (y, x, band)
        Linear power (backscatter or intensity); exact zeros and what is not finite count as nodata.
    valid : ndarray of bool, shape (y, x)
        False where the file has no data.
    options : BorderOptions, optional

    Returns
    -------
    ndarray of bool, shape (y, x)
        A subset of `valid`. Nothing where no nodata reaches the array's edge: then the scene's border lies elsewhere.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    References
    ----------
    .. [1] Ali et al. 2018, Methods to remove the border noise from Sentinel-1 SAR data, doi:10.1109/JSTARS.2017.2787650
    """
    options = options or BorderOptions()
    if power.ndim != 3 or valid.shape != power.shape[:2]:
        raise ShapeError(f"border noise needs power (y, x, band) and a mask (y, x), not {power.shape}, {valid.shape}")
    with np.errstate(invalid="ignore"):
        seen: BoolArray = valid & np.all(np.isfinite(power) & (power != 0), axis=2)
    if seen.all() or not seen.any():
        unseen: BoolArray = valid & ~seen
        return unseen
    outside = _outside(~seen)
    border = outside.copy()
    if options.fringe_px and outside.any():
        low = _low(power, seen, options.fringe_db)
        for _ in range(options.fringe_px):
            grown = border | (_dilated(border) & low)
            if np.array_equal(grown, border):
                break
            border = grown
    for _ in range(options.erode_px):
        border = _dilated(border)
    # Zeros that the file calls valid are hidden wherever they lie: linear power is never exactly 0.
    hidden: BoolArray = (border | ~seen) & valid
    return hidden


def _outside(unseen: BoolArray) -> BoolArray:
    """Nodata pixels connected to the array's edge by nodata; specks of a few pixels at the edge do not count."""
    reached = np.zeros_like(unseen)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        reached[edge] = unseen[edge]
    count = -1
    while (now := int(np.count_nonzero(reached))) != count:
        count = now
        for axis in (0, 1):
            _sweep(reached, unseen, axis)
            _sweep(np.flip(reached, axis), np.flip(unseen, axis), axis)
    return reached if count >= _SMALLEST_OUTSIDE else np.zeros_like(unseen)


def _sweep(reached: BoolArray, unseen: BoolArray, axis: int) -> None:
    """Spread along one axis in growing order, in place, as far as nodata goes without a gap."""
    along, free = np.moveaxis(reached, axis, 0), np.moveaxis(unseen, axis, 0)
    for line in range(1, along.shape[0]):
        along[line] |= along[line - 1] & free[line]


def _low(power: FloatArray, seen: BoolArray, drop_db: float) -> BoolArray:
    """Where the mean over 3 x 3 seen pixels lies far below the scene's median, in any band."""
    low = np.zeros_like(seen)
    counts = np.maximum(_box_sum(seen.astype(np.float64)), 1)
    for band in range(power.shape[2]):
        level = float(np.median(power[..., band][seen])) * 10 ** (-drop_db / 10)
        low |= _box_sum(np.where(seen, power[..., band], 0).astype(np.float64)) / counts < level
    return low & seen


def _box_sum(values: Array) -> Array:
    """Sums over 3 x 3 pixels; beyond the edge lies nothing."""
    padded = np.pad(values, _BOX // 2)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    sums: Array = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return sums


def _dilated(mask: BoolArray) -> BoolArray:
    """Grown by one pixel, corners included."""
    return _box_sum(mask.astype(np.uint8)) > 0
