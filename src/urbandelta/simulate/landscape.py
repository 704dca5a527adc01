"""The ground of a simulated scene: what lies where, what grows there, and what is being built when.

`Landscape.cover(day)` is the whole interface to the sensors: how much of each surface every pixel shows on that day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from urbandelta.simulate.crops import CropCalendar, crop_calendar, leaves, meadow_green
from urbandelta.simulate.noise import generator, smooth_noise
from urbandelta.simulate.surfaces import ROOFS, LandCover, Surface
from urbandelta.types import Array, BoolArray, FloatArray

_CHEBYSHEV_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_BUILDABLE = (LandCover.FIELD, LandCover.GRASS, LandCover.BARE)
_SHARE_BUILT = (0.025, 0.045)
_MOST_ATTEMPTS = 600


@dataclass(frozen=True)
class Construction:
    """Pixels on which something is built, each with its own dates (days since 1970-01-01).

    The site is cleared from `start` for `clearing_days`, lies open as bare soil and gravel, and from `rise` on is
    covered by `built` within `rise_days`.
    """

    pixels: Array
    """Flat index into the grid (pixel,)."""
    start: FloatArray
    clearing_days: FloatArray
    rise: FloatArray
    rise_days: FloatArray
    site: FloatArray
    """Surfaces of the open site (surface, pixel)."""
    built: FloatArray
    """Surfaces when done (surface, pixel)."""

    @property
    def end(self) -> FloatArray:
        """Day on which each pixel has its final look."""
        return self.rise + self.rise_days


@dataclass(frozen=True)
class Landscape:
    """One scene's ground; built by `draw_landscape`."""

    land_cover: Array
    """(y, x) uint8 of `LandCover`, before any construction."""
    parcel: Array
    """(y, x) int32: fields and meadows are managed parcel by parcel."""
    calendar: CropCalendar
    meadow_phase: FloatArray
    """(parcel,) 0..1."""
    fixed: FloatArray
    """(surface, y, x) share of each pixel that never changes."""
    meadow: FloatArray
    """(y, x) share under grass or gardens."""
    deciduous: FloatArray
    """(y, x) share under trees that drop their leaves."""
    crops: FloatArray
    """(y, x) share under crops."""
    construction: Construction

    def cover(self, day: float) -> FloatArray:
        """Share of each surface in every pixel on `day` (days since 1970-01-01); float32 (surface, y, x), sum 1."""
        cover = self.fixed.copy()
        out = leaves(day)
        cover[Surface.LEAFY] += out * self.deciduous
        cover[Surface.LEAFLESS] += (1 - out) * self.deciduous
        green = meadow_green(day, self.meadow_phase)[self.parcel]
        cover[Surface.GREEN] += green * self.meadow
        cover[Surface.STRAW] += (1 - green) * self.meadow
        crop_green, crop_dry = (values[self.parcel] for values in self.calendar.cover(day))
        cover[Surface.GREEN] += crop_green * self.crops
        cover[Surface.STRAW] += crop_dry * self.crops
        cover[Surface.SOIL] += (1 - crop_green - crop_dry) * self.crops
        self._build(cover, day)
        return cover

    def _build(self, cover: FloatArray, day: float) -> None:
        """Replace, in place, what construction has changed by `day`."""
        work = self.construction
        cleared = np.clip((np.float32(day) - work.start) / work.clearing_days, 0, 1)
        risen = np.clip((np.float32(day) - work.rise) / work.rise_days, 0, 1)
        flat = cover.reshape(len(Surface), -1)
        now = work.site * (1 - risen) + work.built * risen
        flat[:, work.pixels] = flat[:, work.pixels] * (1 - cleared) + now * cleared


def _turned(shape: tuple[int, int], angle: float) -> tuple[FloatArray, FloatArray]:
    """Coordinates (v, u) of pixel centres in a frame turned by `angle`, in pixels."""
    y, x = np.indices(shape, dtype=np.float32)
    cosine, sine = math.cos(angle), math.sin(angle)
    return (y * cosine - x * sine).astype(np.float32), (y * sine + x * cosine).astype(np.float32)


def _parcels(rng: np.random.Generator, v: FloatArray, u: FloatArray, size_px: float) -> Array:
    """Number of the parcel of every pixel (y, x): cells of a jittered grid, long along u, with straight edges."""
    rows, columns = v / size_px, u / (1.7 * size_px)
    row0, column0 = int(np.floor(rows.min())) - 1, int(np.floor(columns.min())) - 1
    count_y, count_x = int(np.floor(rows.max())) - row0 + 2, int(np.floor(columns.max())) - column0 + 2
    jitter = rng.uniform(0.15, 0.85, (2, count_y, count_x)).astype(np.float32)
    cell_y, cell_x = np.floor(rows).astype(np.intp) - row0, np.floor(columns).astype(np.intp) - column0
    nearest = np.full(v.shape, np.inf, np.float32)
    parcel = np.zeros(v.shape, np.int32)
    for dy, dx in _CHEBYSHEV_NEIGHBOURS:
        y, x = np.clip(cell_y + dy, 0, count_y - 1), np.clip(cell_x + dx, 0, count_x - 1)
        distance = np.maximum(
            np.abs(rows - row0 - y - jitter[0, y, x]), np.abs(columns - column0 - x - jitter[1, y, x])
        )
        closer = distance < nearest
        nearest[closer] = distance[closer]
        parcel[closer] = (y * count_x + x)[closer]
    return parcel


def _upper_share(field: FloatArray, share: float) -> BoolArray:
    return field > np.quantile(field, 1 - share)


def _land_cover(seed: int, v: FloatArray, u: FloatArray, parcel: Array, parcel_px: float) -> Array:
    rng = generator(seed, 1)
    shape = parcel.shape
    extent = float(max(shape))
    use = rng.random(int(parcel.max()) + 1)[parcel]
    cover = np.full(shape, LandCover.FIELD, np.uint8)
    cover[use < 0.28] = LandCover.GRASS
    cover[use > 0.97] = LandCover.BARE
    cover[_upper_share(smooth_noise(rng, shape, wavelength_px=0.45 * extent, octaves=4), 0.15)] = LandCover.FOREST
    town = _upper_share(smooth_noise(rng, shape, wavelength_px=0.5 * extent, octaves=3), 0.22)
    cover[town] = LandCover.SUBURB
    street_px = 0.75 * parcel_px
    cover[town & ((v % street_px < 1) | (u % (1.6 * street_px) < 1))] = LandCover.ROAD
    _put_blocks(rng, cover, v, u, town, parcel_px)
    road = np.abs(v - rng.uniform(0.3, 0.7) * float(v.max())) < 1.0
    road |= np.abs(u - rng.uniform(0.3, 0.7) * float(u.max())) < 0.7
    bend = 0.06 * extent * np.sin(u / (0.15 * extent)) + 0.25 * extent * rng.uniform(-1, 1)
    river = np.abs(v - float(v.mean()) - bend) < 0.012 * extent
    lake = _upper_share(smooth_noise(rng, shape, wavelength_px=0.3 * extent, octaves=2), 0.02)
    cover[river | lake] = LandCover.WATER
    cover[road] = LandCover.ROAD
    return cover


def _put_blocks(
    rng: np.random.Generator, cover: Array, v: FloatArray, u: FloatArray, town: BoolArray, parcel_px: float
) -> None:
    """Put large buildings, in place, on about a tenth of the town."""
    sites = np.flatnonzero(town)
    target, placed = 0.1 * sites.size, 0
    while placed < target:
        half_v, half_u = rng.uniform(1.5, 0.6 * parcel_px, 2)
        site = rng.choice(sites)
        block = (np.abs(v - v.flat[site]) < half_v) & (np.abs(u - u.flat[site]) < half_u) & town
        cover[block] = LandCover.BUILDING
        placed += int(block.sum())


def _shares(seed: int, cover: Array, parcel: Array) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Shares of each pixel: fixed surfaces, meadow, deciduous, crops."""
    rng = generator(seed, 2)
    shape = cover.shape
    fixed = np.zeros((len(Surface), *shape), np.float32)
    conifers = 1 / (1 + np.exp(-4 * smooth_noise(rng, shape, wavelength_px=30, octaves=2)))
    forest = cover == LandCover.FOREST
    fixed[Surface.CONIFER] = forest * conifers
    fixed[Surface.WATER] = cover == LandCover.WATER
    bare = cover == LandCover.BARE
    fixed[Surface.SOIL], fixed[Surface.GRAVEL] = 0.6 * bare, 0.4 * bare
    fixed[Surface.ASPHALT] += 0.85 * (cover == LandCover.ROAD)
    roof = rng.choice(ROOFS, size=int(parcel.max()) + 1, p=(0.4, 0.15, 0.45))[parcel]
    houses = rng.choice(ROOFS, size=int(parcel.max()) + 1, p=(0.05, 0.6, 0.35))[parcel]
    density = rng.uniform(0.2, 0.5, shape).astype(np.float32)
    for surface in ROOFS:
        fixed[surface] += 0.95 * ((cover == LandCover.BUILDING) & (roof == surface))
        fixed[surface] += density * ((cover == LandCover.SUBURB) & (houses == surface))
    fixed[Surface.ASPHALT] += 0.05 * (cover == LandCover.BUILDING) + 0.15 * (cover == LandCover.SUBURB)
    deciduous = (forest * (1 - conifers)).astype(np.float32)
    crops = (cover == LandCover.FIELD).astype(np.float32)
    meadow = np.clip(1 - fixed.sum(axis=0) - deciduous - crops, 0, 1)
    return fixed, meadow, deciduous, crops


def _final_look(rng: np.random.Generator, pixels: int) -> FloatArray:
    """Surfaces (surface, pixel) of one finished building ground."""
    built = np.zeros((len(Surface), pixels), np.float32)
    kind = rng.choice(["hall", "house rows", "car park"], p=(0.6, 0.28, 0.12))
    if kind == "hall":
        built[rng.choice(ROOFS, p=(0.55, 0.05, 0.4))] = 0.92
        built[Surface.ASPHALT] = 0.08
    elif kind == "house rows":
        density = rng.uniform(0.3, 0.6, pixels)
        built[rng.choice(ROOFS, p=(0.1, 0.6, 0.3))] = density
        built[Surface.ASPHALT] = 0.25
        built[Surface.GREEN] = 0.75 - density
    else:
        built[Surface.ASPHALT] = 0.95
        built[Surface.GREEN] = 0.05
    return built


def _rectangle(rng: np.random.Generator, v: FloatArray, u: FloatArray, side_px: tuple[float, float]) -> BoolArray:
    """A rectangle at a random place, its sides between the limits, small ones oftener than large ones."""
    smallest, largest = side_px
    half_v, half_u = smallest / 2 * (largest / smallest) ** (rng.random(2) ** 1.5)
    centre = rng.integers(v.size)
    inside: BoolArray = (np.abs(v - v.flat[centre]) <= half_v) & (np.abs(u - u.flat[centre]) <= half_u)
    return inside


def _construction(
    seed: int, cover: Array, v: FloatArray, u: FloatArray, days: tuple[int, int], largest_px: float
) -> Construction:
    """Draw building grounds until a few percent of the scene are built on; a third each in every part of the series."""
    rng = generator(seed, 4)
    free = np.isin(cover, _BUILDABLE)
    target = rng.uniform(*_SHARE_BUILT) * cover.size
    first, last = days
    grounds: list[tuple[Array, ...]] = []
    placed = 0
    for attempt in range(_MOST_ATTEMPTS):
        if placed >= target:
            break
        # Later attempts try smaller grounds, so that crowded scenes fill up too.
        largest = max(3.5, min(largest_px, 0.25 * min(cover.shape)) * (1 - attempt / _MOST_ATTEMPTS))
        ground = _rectangle(rng, v, u, (3.0, largest))
        pixels = np.flatnonzero(ground)
        if pixels.size < 9 or not free[ground].all():
            continue
        free[_grown(ground)] = False
        third = len(grounds) % 3
        start = np.floor(first + (last - first) * (0.15 + 0.25 * (third + rng.random())))
        full = np.ones(pixels.size, np.float32)
        gravel = np.clip(rng.uniform(0.2, 0.6) + 0.15 * rng.standard_normal(pixels.size), 0, 1)
        site = np.zeros((len(Surface), pixels.size), np.float32)
        site[Surface.SOIL], site[Surface.GRAVEL] = 1 - gravel, gravel
        rise = start + rng.uniform(30, 150)
        grounds.append(
            (
                pixels, start * full, rng.uniform(3, 15) * full, rise * full, rng.uniform(20, 60) * full, site,
                _final_look(rng, pixels.size),
            )
        )  # fmt: skip
        placed += pixels.size
    pixels, start, clearing, rise, rise_days, site, built = (
        np.concatenate(part, axis=-1) for part in zip(*grounds, strict=True)
    )
    return Construction(
        pixels=pixels,
        start=start.astype(np.float32),
        clearing_days=clearing.astype(np.float32),
        rise=rise.astype(np.float32),
        rise_days=rise_days.astype(np.float32),
        site=site,
        built=built,
    )


def _grown(region: BoolArray) -> BoolArray:
    """`region` and the pixels beside it."""
    padded = np.pad(region, 1)
    grown: BoolArray = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown


def draw_landscape(
    seed: int, shape: tuple[int, int], days: tuple[int, int], *, parcel_px: float, largest_px: float
) -> Landscape:
    """Draw the ground of one scene.

    Parameters
    ----------
    seed : int
    shape : (y, x)
    days : (int, int)
        First and last day of the series, days since 1970-01-01.
    parcel_px : float
        Typical width of a field.
    largest_px : float
        Longest side of a building ground.
    """
    rng = generator(seed, 0)
    v, u = _turned(shape, rng.uniform(0.1, 0.6))
    parcel = _parcels(rng, v, u, parcel_px)
    count = int(parcel.max()) + 1
    cover = _land_cover(seed, v, u, parcel, parcel_px)
    fixed, meadow, deciduous, crops = _shares(seed, cover, parcel)
    return Landscape(
        land_cover=cover,
        parcel=parcel,
        calendar=crop_calendar(seed, parcels=count, first_day=days[0], last_day=days[1]),
        meadow_phase=rng.random(count).astype(np.float32),
        fixed=fixed,
        meadow=meadow,
        deciduous=deciduous,
        crops=crops,
        construction=_construction(seed, cover, v, u, days, largest_px),
    )
