"""Labels of a window without a hand-drawn map: radar change times a shift of the built-up index; or known dates.

References
----------
.. [1] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Era
from urbandelta.errors import ConfigError, ShapeError
from urbandelta.indices import check_shift, endisi_bands, endisi_of, era_row
from urbandelta.label_kernels import plain_mean, seen_mean
from urbandelta.omnibus import check_mode, omnibus_counts
from urbandelta.types import Array, BoolArray, FloatArray, Window

DEFAULT_SHIFT = 0.25
MARGIN = 0.15
HOLD = 0.25


def synthetic_label(
    sar_asc: Array,
    sar_dsc: Array,
    optical_before: Array,
    optical_after: Array,
    *,
    era: Era | str,
    betas: tuple[float, float] | Array,
    shift: float,
    mode: str = "corrected",
    looks: float | None = None,
) -> FloatArray:
    """Label of a window: clip(gain |e_after - e_before| (changes_asc + changes_dsc) / 2, 0, 1).

    `changes` are those of the omnibus test per observation, `e` the ENDISI of the mean image of the window before and
    of the one after.

    Parameters
    ----------
    sar_asc, sar_dsc : ndarray, shape (time, y, x, polarisation)
        Backscatter of both orbit directions at the window's steps, in the era's bands. An orbit may have no steps.
    optical_before, optical_after : ndarray, shape (time, y, x, band) or (y, x, band)
        Reflectance at the steps of the windows before and after, or its mean over them.
    era : Era or str
    betas : (float, float)
        ENDISI's beta of the area in the window before and in the one after; see `indices.endisi_beta`.
    shift : float
        See `indices.endisi`.
    mode : str
        "corrected": the corrected omnibus test; a step that repeats the one before exactly is a carried image, not an
        observation; steps at which a pixel is NaN or 0 in all bands that matter do not count; NaN where one of the
        windows does not see the ground, or neither orbit has two observations. "reference": as published.
    looks : float, optional
        The era's by default.

    Returns
    -------
    ndarray of float32, shape (y, x)
        0..1.

    Raises
    ------
    ShapeError
        If the arrays do not belong together or have not the era's bands.
    ConfigError
        If a parameter is out of range.

    References
    ----------
    .. [1] doi:10.3390/rs13153000
    """
    row = era_row(era)
    check_mode(mode)
    check_shift(shift)
    before, after = (_bands_of_mean(optical, row, mode) for optical in (optical_before, optical_after))
    for series in (sar_asc, sar_dsc):
        if series.ndim != 4 or series.shape[3] != row.label.polarisations or series.shape[1:3] != before.shape[1:]:
            raise ShapeError(
                f"SAR {series.shape} is not (time, y, x, polarisation) with {before.shape[1:]} px and the "
                f"{row.label.polarisations} of {row.name}"
            )
    if before.shape != after.shape:
        raise ShapeError(f"the image before has {before.shape[1:]} px, the one after {after.shape[1:]}")
    corrected = mode == "corrected"
    orbits = [(series, fresh_steps(series) if corrected else None) for series in (sar_asc, sar_dsc)]
    return label_of_parts(orbits, before, after, era=row, betas=betas, shift=shift, mode=mode, looks=looks)


def label_of_parts(
    orbits: Sequence[tuple[Array, BoolArray | None]],
    before: FloatArray,
    after: FloatArray,
    *,
    era: Era,
    betas: tuple[float, float] | Array,
    shift: float,
    mode: str,
    looks: float | None = None,
) -> FloatArray:
    """Label from radar series with their validity, and the mean of `indices.ROLES` (4, y, x) before and after."""
    rule = era.label
    changes = np.zeros(before.shape[1:])
    known = np.zeros(before.shape[1:], np.int32)
    for series, valid in orbits:
        count, observations = omnibus_counts(
            series, enl=rule.looks if looks is None else looks, significance=rule.significance, mode=mode, valid=valid
        )
        changes += count / np.maximum(observations, 1)
        known += observations >= 2
    changes /= 2 if mode == "reference" else np.maximum(known, 1)
    index = [
        endisi_of(image[0], image[1], image[2], image[3], beta, shift=shift, mode=mode)
        for image, beta in ((before, float(betas[0])), (after, float(betas[1])))
    ]
    label: FloatArray = np.clip(rule.gain * np.abs(index[1] - index[0]) * changes, 0, 1).astype(np.float32)
    if mode == "corrected":
        label[known == 0] = np.nan
    return label


def window_mean(stack: FloatArray, bands: Sequence[int], *, mode: str) -> FloatArray:
    """Mean over time of some bands of `stack` (time, y, x, band): (band, y, x); NaN never seen in corrected mode."""
    times, height, width, width_bands = stack.shape
    out = np.empty((len(bands), height, width), np.float32)
    mean = plain_mean if mode == "reference" else seen_mean
    flat = np.ascontiguousarray(stack, np.float32).reshape(times, height * width, width_bands)
    mean(flat, np.asarray(bands, np.int64), out.reshape(len(bands), -1))
    return out


def fresh_steps(series: Array) -> BoolArray:
    """Steps (time, y, x) that do not repeat the one before exactly: a carried image is no new observation."""
    fresh = np.ones(series.shape[:3], np.bool_)
    if len(series) > 1:
        changed = series[1:] != series[:-1]
        fresh[1:] = changed[..., 0]
        for polarisation in range(1, series.shape[3]):
            fresh[1:] |= changed[..., polarisation]
    return fresh


def date_label(
    first_change_days: npt.NDArray[np.integer[Any]],
    window: Window,
    *,
    margin: float = MARGIN,
    hold: float | None = None,
) -> FloatArray:
    """Label of a window from dates of change: 1 where change begins inside the window, 0 where it does not.

    Parameters
    ----------
    first_change_days : ndarray of int, shape (y, x)
        Day on which change began, days since 1970-01-01; -1 where there was none.
    window : Window
    margin : float
        Part of the window's length, 0 to 0.5. What begins nearer than this to either end is NaN. Being symmetric, it
        centres the run of windows that flag a change on the change.
    hold : float, optional
        Days for which construction goes on: what began this long before the window is NaN. A quarter of the window's
        length by default.

    Returns
    -------
    ndarray of float32, shape (y, x)
        0, 1, or NaN where the pixel does not count.

    Raises
    ------
    ConfigError
        If `margin` or `hold` is out of range.
    """
    if not 0 <= margin < 0.5:
        raise ConfigError(f"margin {margin} is out of range; give a part of the window's length, from 0 to below 0.5")
    start, end = (moment.astype("datetime64[ns]").astype(np.int64) / 86_400e9 for moment in (window.start, window.end))
    length = end - start
    hold = HOLD * length if hold is None else hold
    if not hold >= 0:
        raise ConfigError(f"hold {hold} is out of range; give days, 0 or more")
    days = np.asarray(first_change_days).astype(np.float64)
    changes = np.asarray(first_change_days) >= 0
    label = np.zeros(days.shape, np.float32)
    label[changes & (days >= start - hold) & (days <= end)] = np.nan
    label[changes & (days >= start + margin * length) & (days <= end - margin * length)] = 1
    return label


def _bands_of_mean(optical: Array, era: Era, mode: str) -> FloatArray:
    optical = np.asarray(optical)
    if optical.ndim not in (3, 4) or optical.shape[-1] != era.optical_bands:
        raise ShapeError(
            f"optical {optical.shape} is not ([time,] y, x, band) with the {era.optical_bands} bands of {era.name}"
        )
    bands = endisi_bands(era)
    if optical.ndim == 4:
        mean = window_mean(optical, bands, mode=mode)
    else:
        mean = np.stack([optical[..., band] for band in bands]).astype(np.float32)
    if mode == "reference":
        mean[np.isnan(mean)] = 0
    return mean
