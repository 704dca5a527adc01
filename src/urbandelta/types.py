"""Frozen values that travel between modules: what an acquisition, a window and a mask bit are.

Axes are `(time, y, x, band)`; times are UTC `datetime64[ns]`; ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
MaskArray: TypeAlias = npt.NDArray[np.uint8]
TimeArray: TypeAlias = npt.NDArray[np.datetime64]

OrbitState: TypeAlias = Literal["ascending", "descending", ""]

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with (done, total, message); the command line passes a bar, the library prints nothing."""


class MaskReason(IntFlag):
    """Why a pixel of one acquisition must not be used; 0 means valid. Stored as uint8."""

    VALID = 0
    NODATA = 1
    CLOUD = 2
    CLOUD_SHADOW = 4
    SNOW = 8
    SATURATED = 16
    BORDER_NOISE = 32
    DROPPED = 64
    OTHER = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Acquisition:
    """One stream's image at one moment, on the grid of the cube that it is for.

    `values` (y, x, band) keeps the encoding of its origin: physical value = raw * scale + offset.
    Bands are those of `bands`, in that order; they may be fewer than the stream has in the era's table.
    """

    time: np.datetime64
    values: Array
    mask: MaskArray
    bands: tuple[str, ...]
    scale: float = 1.0
    offset: float = 0.0
    item_id: str = ""
    platform: str = ""
    relative_orbit: int = -1
    orbit_state: OrbitState = ""
    processing_baseline: str = ""
    processing_level: str = ""
    boa_offset_applied: bool = False
    backscatter_coefficient: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """A run of consecutive steps inside one time span.

    `first` and `last` are indices into the steps, both inclusive; `start` and `end` are those two steps' times;
    `count` is `last - first + 1`. In triplets, `previous` and `following` are the windows before and after.
    """

    start: np.datetime64
    end: np.datetime64
    count: int
    first: int
    last: int
    previous: Window | None = None
    following: Window | None = None

    @property
    def middle(self) -> np.datetime64:
        """The moment that the window's score is credited to: halfway between its first and last step."""
        return self.start + (self.end - self.start) // 2
