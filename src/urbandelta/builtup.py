"""Built-up ground from the optical index (ENDISI) at the beginning and at the end of a time.

Both dates share one scale of the index (its beta), taken over the whole area, so that what differs is the ground. The
index marks bright mineral surfaces; dark roofs, tarmac and green suburbs stay below it, bare bright soil may exceed it.
Its area is therefore an indication, usually too small, and no map of settlements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from urbandelta.composites import median_of_run
from urbandelta.indices import ROLES, beta_of, coefficients_of, corrected_sums, endisi_of
from urbandelta.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["INDEX_SHIFT", "INDEX_THRESHOLD", "BuiltUp", "built_up", "index_stream", "sampled_beta"]

INDEX_SHIFT = 0.25
"""The papers' alpha for most places (`indices.endisi`)."""
INDEX_THRESHOLD = 0.1
"""Ground whose index exceeds this counts as built-up. A choice, not a calibration: most ground has exactly 0."""
SAMPLED_ACQUISITIONS, BLOCK_PX = 12, 256
YEAR = np.timedelta64(365, "D")


@dataclass(frozen=True, eq=False)
class BuiltUp:
    """The index at the beginning and at the end."""

    before: FloatArray
    after: FloatArray
    """ENDISI 0..1 (y, x) of the median image; NaN where no acquisition was valid."""
    before_span: tuple[np.datetime64, np.datetime64]
    after_span: tuple[np.datetime64, np.datetime64]
    acquisitions: tuple[int, int]

    @property
    def years(self) -> float:
        """From the middle of the first span to the middle of the last."""
        first, last = (span[0] + (span[1] - span[0]) // 2 for span in (self.before_span, self.after_span))
        return float((last - first) / np.timedelta64(1, "s")) / (365.25 * 86_400)

    @property
    def known(self) -> BoolArray:
        """Where both dates have an index (y, x)."""
        return np.asarray(np.isfinite(self.before) & np.isfinite(self.after))


def index_stream(cube: Cube) -> str | None:
    """The stream of a cube that has all bands of the index, if there is one."""
    for name in cube.streams:
        stream = cube.era.stream(name)
        if stream.kind == "optical" and {stream.roles.get(role) for role in ROLES} <= set(cube.bands(name)):
            return name
    return None


def built_up(cube: Cube, start: np.datetime64, end: np.datetime64) -> BuiltUp | None:
    """The index of the first and of the last year of a time, or of its halves where it is shorter than two years.

    Parameters
    ----------
    cube : Cube
    start, end : datetime64

    Returns
    -------
    BuiltUp or None
        None if the cube lacks a band of the index (blue, green and both short-wave infrared ones), or has no
        acquisition at either end.
    """
    name = index_stream(cube)
    if name is None:
        return None
    times = cube.times(name)
    length = min(YEAR, (end - start) // 2)
    spans = ((start, start + length), (end - length, end))
    runs = [slice(*(int(k) for k in np.searchsorted(times, span))) for span in spans]
    if any(run.stop == run.start for run in runs):
        return None
    roles = cube.era.stream(name).roles
    images = [median_of_run(cube, name, tuple(roles[role] for role in ROLES), run, 1) for run in runs]
    bands = [_bands(image) for image in images]
    (before_sums, before_count), (after_sums, after_count) = (corrected_sums(*each) for each in bands)
    beta = beta_of([coefficients_of(before_sums + after_sums, before_count + after_count)])
    before, after = (endisi_of(*each, beta, shift=INDEX_SHIFT, mode="corrected") for each in bands)
    return BuiltUp(before, after, spans[0], spans[1], (runs[0].stop - runs[0].start, runs[1].stop - runs[1].start))


def sampled_beta(cube: Cube) -> float | None:
    """Scale of the index over the area, from blocks of its clearest acquisitions; None without the bands for it."""
    name = index_stream(cube)
    if name is None:
        return None
    valid = np.asarray(cube.valid_fraction(name))
    roles, stored = cube.era.stream(name).roles, cube.bands(name)
    index = [stored.index(roles[role]) for role in ROLES]
    sums, count = np.zeros(3), 0
    for k in np.sort(np.argsort(-valid, kind="stable")[:SAMPLED_ACQUISITIONS]).tolist():
        for rows in _blocks(cube.grid.height):
            for columns in _blocks(cube.grid.width):
                values, mask = cube.read(name, slice(k, k + 1), rows, columns)
                seen = values[0][..., index][mask[0] == 0]
                found, number = corrected_sums(*_bands(seen))
                sums, count = sums + found, count + number
    return beta_of([coefficients_of(sums, count)])


def _blocks(size: int) -> list[slice]:
    """The whole of a short side, or two blocks of a long one."""
    if size <= 2 * BLOCK_PX:
        return [slice(0, size)]
    return [slice(middle - BLOCK_PX // 2, middle + BLOCK_PX // 2) for middle in (size // 4, 3 * size // 4)]


def _bands(image: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """The four bands (...) of an image (..., band), in the order of `ROLES`."""
    return image[..., 0], image[..., 1], image[..., 2], image[..., 3]
