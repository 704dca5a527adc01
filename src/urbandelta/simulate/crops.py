"""How vegetation goes through the year: crops sown and harvested, meadows mown, leaves out and down.

Crop years begin on 15 November, when nearly every field is bare or just sown. Each field draws a new crop and new dates
every year: that is change, and none of it is urban.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urbandelta.simulate.noise import generator
from urbandelta.types import Array, FloatArray

YEAR_DAYS = 365.25
_CROP_YEAR_START = np.datetime64("1970-11-15").astype("datetime64[D]").astype(int)


@dataclass(frozen=True)
class Crop:
    """Cover of green and of dry plants over one crop year, linear between knots; the rest is bare soil."""

    name: str
    share: float
    knots: tuple[tuple[float, float, float], ...]
    """(days since 15 November, green, dry)."""


# The third number of the last knots is stubble left until ploughing.
CROPS = (
    Crop("winter wheat", 0.26, (
        (0, 0.05, 0.03), (25, 0.25, 0), (100, 0.35, 0), (140, 0.7, 0), (180, 0.95, 0), (210, 0.85, 0.1),
        (235, 0.15, 0.8), (252, 0.04, 0.85), (255, 0.04, 0.45), (285, 0.15, 0.3), (290, 0.02, 0.05), (365, 0.05, 0.03),
    )),
    Crop("spring barley", 0.10, (
        (0, 0.05, 0.03), (115, 0.05, 0.03), (140, 0.25, 0), (180, 0.9, 0), (205, 0.85, 0.1), (230, 0.1, 0.85),
        (250, 0.04, 0.45), (270, 0.1, 0.3), (275, 0.02, 0.03), (300, 0.45, 0), (340, 0.7, 0),
        (350, 0.05, 0.05), (365, 0.05, 0.03),
    )),
    Crop("rapeseed", 0.10, (
        (0, 0.5, 0), (90, 0.4, 0.1), (140, 0.8, 0), (165, 0.8, 0.05), (200, 0.9, 0), (230, 0.3, 0.6), (243, 0.05, 0.8),
        (246, 0.05, 0.5), (280, 0.2, 0.3), (290, 0.02, 0.05), (365, 0.05, 0.03),
    )),
    Crop("maize", 0.20, (
        (0, 0.08, 0.1), (150, 0.12, 0.05), (155, 0.02, 0.03), (190, 0.05, 0.0), (215, 0.4, 0), (240, 0.9, 0),
        (295, 0.9, 0), (318, 0.6, 0.35), (330, 0.5, 0.45), (333, 0.05, 0.45), (352, 0.05, 0.3),
        (356, 0.02, 0.05), (365, 0.05, 0.03),
    )),
    Crop("sugar beet", 0.12, (
        (0, 0.4, 0), (60, 0.45, 0.05), (90, 0.3, 0.1), (120, 0.02, 0.03), (165, 0.05, 0), (205, 0.5, 0), (225, 0.92, 0),
        (320, 0.85, 0.05), (345, 0.75, 0.1), (348, 0.03, 0.05), (365, 0.05, 0.03),
    )),
    Crop("potatoes", 0.10, (
        (0, 0.05, 0.03), (160, 0.03, 0.02), (195, 0.1, 0), (220, 0.85, 0), (265, 0.8, 0.1), (285, 0.2, 0.5),
        (300, 0.02, 0.1), (320, 0.1, 0), (365, 0.05, 0.03),
    )),
    Crop("vegetables", 0.06, (
        (0, 0.03, 0.02), (135, 0.03, 0.02), (180, 0.7, 0), (200, 0.75, 0), (203, 0.02, 0.05), (235, 0.05, 0),
        (270, 0.8, 0), (300, 0.8, 0), (303, 0.02, 0.05), (365, 0.05, 0.03),
    )),
    Crop("fallow", 0.06, (
        (0, 0.15, 0.35), (140, 0.3, 0.3), (180, 0.55, 0.25), (240, 0.35, 0.5), (300, 0.35, 0.35), (365, 0.05, 0.03),
    )),
)  # fmt: skip


@dataclass(frozen=True)
class CropCalendar:
    """Which crop every parcel bears in every crop year, and how early or late."""

    first_year: int
    crop: Array
    """(crop year, parcel) index into CROPS."""
    shift_days: FloatArray
    """(crop year, parcel)."""
    vigour: FloatArray
    """(crop year, parcel) factor on green cover."""

    def cover(self, day: float) -> tuple[FloatArray, FloatArray]:
        """Green and dry plant cover of every parcel (parcel,) on a day (days since 1970-01-01)."""
        year, day_of_year = divmod(day - _CROP_YEAR_START, YEAR_DAYS)
        row = int(year) - self.first_year
        green = np.zeros(self.crop.shape[1], np.float32)
        dry = np.zeros_like(green)
        # Sowing and harvest move with the shift, the turn of the crop year does not.
        moved = day_of_year - self.shift_days[row]
        for number, crop in enumerate(CROPS):
            mine = self.crop[row] == number
            days, knots_green, knots_dry = zip(*crop.knots, strict=True)
            green[mine] = np.interp(moved[mine], days, knots_green)
            dry[mine] = np.interp(moved[mine], days, knots_dry)
        return green * self.vigour[row], dry


def crop_calendar(seed: int, *, parcels: int, first_day: int, last_day: int) -> CropCalendar:
    """Draw crops and dates for `parcels` fields between two days since 1970-01-01."""
    rng = generator(seed, 3)
    first_year = int((first_day - _CROP_YEAR_START) // YEAR_DAYS)
    years = int((last_day - _CROP_YEAR_START) // YEAR_DAYS) - first_year + 1
    share = np.array([crop.share for crop in CROPS])
    edges = np.cumsum(share / share.sum())
    drawn = np.searchsorted(edges[:-1], rng.random((years, parcels)), side="right")
    return CropCalendar(
        first_year=first_year,
        crop=drawn,
        shift_days=np.clip(rng.normal(0, 8, (years, parcels)), -20, 20).astype(np.float32),
        vigour=rng.uniform(0.8, 1.0, (years, parcels)).astype(np.float32),
    )


def season(day: float) -> float:
    """0 in mid-January, 1 in mid-July."""
    return float(0.5 - 0.5 * np.cos(2 * np.pi * ((day - 15) % YEAR_DAYS) / YEAR_DAYS))


def leaves(day: float) -> float:
    """Share of deciduous leaves that are out on a day since 1970-01-01 (0..1)."""
    return float(np.interp(day % YEAR_DAYS, (0, 100, 132, 278, 318, 366), (0, 0, 1, 1, 0, 0)))


def meadow_green(day: float, phase: FloatArray) -> FloatArray:
    """Green cover of meadows: mown every 45 to 70 days in summer, duller in winter.

    Parameters
    ----------
    day : float
        Days since 1970-01-01.
    phase : ndarray, any shape, 0..1
        When in the cycle each meadow is mown; also sets the length of its cycle.
    """
    summer = season(day)
    cycle_days = 45 + 25 * phase
    since_mowing = (day / cycle_days + 7 * phase) % 1
    regrowth = np.minimum(1, 0.55 + 0.8 * since_mowing)
    green: FloatArray = ((0.72 + 0.2 * summer) * (1 - summer * (1 - regrowth))).astype(np.float32)
    return green
