"""Whether images lie on each other: shift of one against another to a fraction of a pixel, by phase correlation.

Edges are compared rather than values: fields, shadows and moisture change their brightness, roads and buildings stay
where they are. Of a cube, time-median images of each two satellites of a stream are compared; a median takes out most
speckle, clouds and season.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from urbandelta.errors import ConfigError, ShapeError
from urbandelta.types import Array, BoolArray, FloatArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

log = logging.getLogger(__name__)

WARN_PIXELS = 0.5
"""A shift above this is worth a warning: half a pixel mixes each pixel with its neighbour."""
LEAST_QUALITY = 8.0
"""Peaks lower than this many times the surface's spread are no finding; of unrelated images they reach about 5."""
LEAST_IMAGES = 3
"""Acquisitions that a median needs to be believed: a single radar image errs by up to 0.6 pixels (docs/masks.md)."""

_FLOOR = 0.01
_BLUR = 0.12
_SMALLEST = 32
_SIDE = 1024
_MOST_IMAGES = 24
_ROLES = ("red", "green", "blue", "nir")


class Shift(NamedTuple):
    """How far `moved` lies off `reference`: what is at (y, x) in the one is at (y + dy, x + dx) in the other.

    `quality` is the height of the correlation's peak in units of the surface's spread; below `LEAST_QUALITY` the shift
    is a guess.
    """

    dy: float
    dx: float
    quality: float


@dataclass(frozen=True, kw_only=True)
class PairShift:
    """Shift between the images of two satellites (or tracks) in one stream, in pixels.

    `counts` are the acquisitions in the two medians. `dy` and `dx` are NaN where nothing could be compared.
    """

    stream: str
    reference: str
    moved: str
    dy: float
    dx: float
    quality: float
    counts: tuple[int, int]
    pixel_m: float

    @property
    def pixels(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.dy, self.dx))

    @property
    def certain(self) -> bool:
        """Whether the peak stands out enough, and of enough acquisitions, to be believed."""
        return bool(np.isfinite(self.pixels) and self.quality >= LEAST_QUALITY and min(self.counts) >= LEAST_IMAGES)

    @property
    def too_far(self) -> bool:
        """Whether it is believed and above `WARN_PIXELS`."""
        return self.certain and self.pixels > WARN_PIXELS

    def __str__(self) -> str:
        pair = f"{self.stream}: {self.moved} against {self.reference}"
        if not self.certain:
            return f"{pair}: undecided ({self.counts[1]} and {self.counts[0]} acquisitions)"
        return (
            f"{pair}: {self.dy:+.2f} px down, {self.dx:+.2f} px right ({self.pixels * self.pixel_m:.1f} m; "
            f"{self.counts[1]} and {self.counts[0]} acquisitions)"
        )


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What of a cube is compared: a square of at most `side` pixels in its middle, at most `images` per satellite."""

    side: int = _SIDE
    images: int = _MOST_IMAGES
    streams: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.side < _SMALLEST or self.images < 1:
            raise ConfigError(f"a comparison needs a side of {_SMALLEST} pixels or more, and an image or more")


def edges(image: FloatArray) -> FloatArray:
    """Steepness of the logarithm of an image (y, x) of reflectance or linear power; NaN stays NaN."""
    down, right = np.gradient(np.log(np.maximum(image, 0) + _FLOOR))
    steepness: FloatArray = np.hypot(down, right)
    return steepness


def shift(reference: FloatArray, moved: FloatArray, valid: BoolArray | None = None) -> Shift:
    """How far one image lies off another.

    Parameters
    ----------
    reference, moved : ndarray, shape (y, x)
        Reflectance (0..1) or linear power.
    valid : ndarray of bool, shape (y, x), optional
        Where both can be compared; by default, and besides, where both are finite.

    Returns
    -------
    Shift
        In pixels; NaN with quality 0 where less than a tenth can be compared or an image has no edges.

    Raises
    ------
    ShapeError
        If the shapes differ or are smaller than 8 x 8.

    Notes
    -----
    The cross-power spectrum is weighted by a Gaussian, so that the peak is one too and its place between pixels follows
    from the logarithms of three values. Pixels that cannot be compared, and their neighbours, count as mean edges.
    """
    if reference.ndim != 2 or reference.shape != moved.shape or min(reference.shape) < 8:
        raise ShapeError(f"two images (y, x) of the same shape are needed, not {reference.shape} and {moved.shape}")
    usable = np.isfinite(reference) & np.isfinite(moved)
    if valid is not None:
        if valid.shape != reference.shape:
            raise ShapeError(f"valid has shape {valid.shape}, the images {reference.shape}")
        usable &= valid
    images = [edges(np.where(usable, image, np.nan)) for image in (reference, moved)]
    known = np.isfinite(images[0]) & np.isfinite(images[1])
    if known.mean() < 0.1:
        return Shift(float("nan"), float("nan"), 0.0)
    taper = np.outer(np.hanning(reference.shape[0]), np.hanning(reference.shape[1]))
    spectra = [np.fft.fft2(np.where(known, image - image[known].mean(), 0) * taper) for image in images]
    cross = spectra[1] * np.conj(spectra[0])
    size = np.abs(cross)
    if not size.max() > 0:
        return Shift(float("nan"), float("nan"), 0.0)
    cross /= size + 1e-9 * size.max()
    return _peak(cross)


def check_cube(cube: Cube, options: CheckOptions | None = None) -> list[PairShift]:
    """Compare the satellites of each stream of a cube, and warn of shifts above half a pixel.

    Parameters
    ----------
    cube : Cube
    options : CheckOptions, optional

    Returns
    -------
    list of PairShift
        For each two satellites of a stream, the one with more acquisitions as the reference. Empty if no stream has
        two, or the cube is smaller than 32 pixels.
    """
    options = options or CheckOptions()
    found = []
    if min(cube.grid.shape) < _SMALLEST:
        return []
    for stream in cube.streams:
        if not options.streams or stream in options.streams:
            found += list(_check_stream(cube, stream, options))
    for pair in found:
        if pair.too_far:
            log.warning("%s: more than %g px; see docs/masks.md", pair, WARN_PIXELS)
    return found


def _check_stream(cube: Cube, stream: str, options: CheckOptions) -> Iterator[PairShift]:
    platforms = np.array([str(name) for name in cube.acquisitions(stream)["platform"].values])
    groups = {name: np.flatnonzero(platforms == name) for name in sorted(set(platforms) - {""})}
    ordered = sorted(groups, key=lambda name: (-len(groups[name]), name))
    if len(ordered) < 2:
        return
    rows, columns = (_middle(length, options.side) for length in cube.grid.shape)
    medians = {name: median_image(cube, stream, groups[name], rows, columns, options.images) for name in ordered}
    for reference, moved in combinations(ordered, 2):
        found = shift(medians[reference], medians[moved])
        yield PairShift(
            stream=stream,
            reference=reference,
            moved=moved,
            dy=found.dy,
            dx=found.dx,
            quality=found.quality,
            counts=(min(len(groups[reference]), options.images), min(len(groups[moved]), options.images)),
            pixel_m=cube.grid.pixel_size[0],
        )


def median_image(
    cube: Cube, stream: str, indices: Sequence[int] | Array, rows: slice, columns: slice, most: int = _MOST_IMAGES
) -> FloatArray:
    """Median over time of one band of some acquisitions, at most `most` spread over them; NaN where never seen.

    The band is red for optical streams, else the first.
    """
    known = cube.era.stream(stream)
    bands = cube.bands(stream)
    wanted = next((known.roles[role] for role in _ROLES if known.roles.get(role) in bands), bands[0])
    band = bands.index(wanted)
    chosen = np.asarray(indices)
    if len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    stored = cube.attributes(stream)
    images = []
    for index in chosen:
        values, mask = cube.read_raw(stream, slice(int(index), int(index) + 1), rows, columns)
        image = values[0, ..., band].astype(np.float32) * np.float32(stored.scale) + np.float32(stored.offset)
        images.append(np.where(mask[0] == 0, image, np.nan).astype(np.float32))
    stack = np.stack(images)
    seen = np.isfinite(stack).any(axis=0)
    median = np.full(seen.shape, np.nan, np.float32)
    median[seen] = np.nanmedian(stack[:, seen], axis=0)
    return median


def _middle(length: int, side: int) -> slice:
    start = max(0, (length - side) // 2)
    return slice(start, min(length, start + side))


def _peak(cross: Array) -> Shift:
    fy, fx = np.fft.fftfreq(cross.shape[0])[:, None], np.fft.fftfreq(cross.shape[1])[None]
    surface = np.fft.ifft2(cross * np.exp(-(fy**2 + fx**2) / (2 * _BLUR**2))).real
    spread = float(surface.std())
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    place = []
    for axis, size in enumerate(surface.shape):
        low, here, high = (float(np.roll(surface, -offset, axis)[peak]) for offset in (-1, 0, 1))
        position = int(peak[axis]) + _between(low, here, high)
        place.append((position + size / 2) % size - size / 2)
    return Shift(place[0], place[1], float(surface[peak]) / spread if spread > 0 else 0.0)


def _between(low: float, here: float, high: float) -> float:
    """Place of a Gaussian's peak between three of its values; of a parabola's where one is not positive."""
    if min(low, high) > 0:
        low, here, high = (float(np.log(value)) for value in (low, here, high))
    bend = low - 2 * here + high
    return 0.5 * (low - high) / bend if bend < 0 else 0.0
