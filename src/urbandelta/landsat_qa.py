"""Quality bands of Landsat Collections 1 and 2 as one bitfield of reasons.

The published pipeline masks saturation, cloud, cloud of medium confidence, shadow and snow, but neither fill nor
dropped frames; here both are masked. Collection 2 renamed the bands and moved every bit.

References
----------
.. [1] Landsat Collection 1 Level-1 Quality Assessment Band, USGS; Landsat 4-7 and 8-9 Collection 2 Level-1 Data Format
       Control Books, USGS LSDS-1415 and LSDS-1822.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.types import Array, MaskArray, MaskReason

Bits: TypeAlias = Sequence[tuple[int, MaskReason]]

# Confidences take two bits (1 low, 2 medium, 3 high): their upper bit says "medium or high".
_COLLECTION1: Bits = (
    (0, MaskReason.NODATA),
    (2, MaskReason.SATURATED),  # one or two bands
    (3, MaskReason.SATURATED),  # three bands or more
    (4, MaskReason.CLOUD),
    (6, MaskReason.CLOUD),
    (8, MaskReason.CLOUD_SHADOW),
    (10, MaskReason.SNOW),
)
_BEFORE: Bits = (
    (0, MaskReason.NODATA),
    (1, MaskReason.DROPPED),
    (2, MaskReason.OTHER),
    (11, MaskReason.SNOW),
    (13, MaskReason.CLOUD),
    (15, MaskReason.CLOUD),
)
_COLLECTION2: Bits = (
    (0, MaskReason.NODATA),
    (3, MaskReason.CLOUD),
    (4, MaskReason.CLOUD_SHADOW),
    (5, MaskReason.SNOW),
    (9, MaskReason.CLOUD),
    (11, MaskReason.CLOUD_SHADOW),
    (13, MaskReason.SNOW),
)
_DILATED_CLOUD = 1
_CIRRUS = (2, 15)  # Landsat 8 and 9 only
_CIRRUS1 = 12
_DROPPED1 = 1  # Landsat 4 to 7; on Landsat 8 the same bit means terrain occlusion
_DROPPED2 = 9
_OCCLUDED2 = 11
_SATURATION2 = 0b1_0111_1111  # bands 1 to 7; bit 8 is band 6 of high gain (Landsat 7) or band 9


def before_collections_reasons(quality: Array) -> MaskArray:
    """Reasons from the `BQA` band of Landsat 8 before collections, shape (y, x)."""
    return _masked(_integers(quality, "BQA"), _BEFORE)


def collection1_reasons(quality: Array, *, spacecraft: int) -> MaskArray:
    """Reasons from a `BQA` band.

    Parameters
    ----------
    quality : ndarray of integers, shape (y, x)
    spacecraft : int
        5 for Landsat 5; bits differ from 8 on.
    """
    mask = _masked(_integers(quality, "BQA"), _COLLECTION1)
    if spacecraft >= 8:
        mask |= _masked(quality, ((_DROPPED1, MaskReason.OTHER), (_CIRRUS1, MaskReason.CLOUD)))
    else:
        mask |= _masked(quality, ((_DROPPED1, MaskReason.DROPPED),))
    return mask


def collection2_reasons(
    pixel: Array, saturation: Array | None = None, *, spacecraft: int, dilated_cloud: bool = True
) -> MaskArray:
    """Reasons from a `QA_PIXEL` band and, if there is one, its `QA_RADSAT` band.

    Parameters
    ----------
    pixel, saturation : ndarray of integers, shape (y, x)
    spacecraft : int
        5 for Landsat 5; bits differ from 8 on.
    dilated_cloud : bool
        Whether the margin around clouds counts as cloud.
    """
    mask = _masked(_integers(pixel, "QA_PIXEL"), _COLLECTION2)
    if dilated_cloud:
        mask |= _masked(pixel, ((_DILATED_CLOUD, MaskReason.CLOUD),))
    if spacecraft >= 8:
        mask |= _masked(pixel, tuple((bit, MaskReason.CLOUD) for bit in _CIRRUS))
    if saturation is None:
        return mask
    if saturation.shape != pixel.shape:
        raise ShapeError(f"QA_RADSAT of shape {saturation.shape} does not fit QA_PIXEL of shape {pixel.shape}")
    bits = _integers(saturation, "QA_RADSAT")
    mask[bits & np.uint16(_SATURATION2) != 0] |= int(MaskReason.SATURATED)
    other = (_OCCLUDED2, MaskReason.OTHER) if spacecraft >= 8 else (_DROPPED2, MaskReason.DROPPED)
    return mask | _masked(bits, (other,))


def _masked(quality: Array, bits: Bits) -> MaskArray:
    mask = np.zeros(quality.shape, np.uint8)
    for bit, reason in bits:
        mask[quality & np.uint16(1 << bit) != 0] |= int(reason)
    return mask


def _integers(quality: Array, name: str) -> Array:
    if quality.dtype.kind not in "iu":
        raise ConfigError(f"{name} holds {quality.dtype}, not integers; name the quality band of the scene")
    return quality
