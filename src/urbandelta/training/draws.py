"""Which windows a transfer looks at, and how its few samples are varied; numpy only, a function of a generator.

References
----------
.. [1] Zitzlsberger et al., International Journal of Remote Sensing (2023), doi:10.1080/01431161.2023.2243021
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from urbandelta.samples import Batch
from urbandelta.types import FloatArray, Window


@dataclass(frozen=True, kw_only=True)
class StartRule:
    """Where windows start, as indices into the steps: the first one, then how much further the next; both inclusive."""

    first: tuple[int, int]
    increment: tuple[int, int]


def draw_windows(
    windows: Sequence[Window], rule: StartRule, count: int, rng: np.random.Generator
) -> tuple[Window, ...]:
    """Draw up to `count` windows over a series at random.

    Parameters
    ----------
    windows : sequence of Window
        All of the series, one for each step at which a window with enough observations starts; not empty.
    rule : StartRule
    count : int
        As many, or as fit; a start at which there is no window is passed over.
    rng : Generator

    Returns
    -------
    tuple of Window
        In order of time, at least one.
    """
    by_start = {window.first: window for window in windows}
    last = max(by_start)
    position = int(rng.integers(min(rule.first[0], last), min(rule.first[1], last) + 1))
    found: list[Window] = []
    while position <= last and len(found) < count:
        if position in by_start:
            found.append(by_start[position])
        position += int(rng.integers(rule.increment[0], rule.increment[1] + 1))
    return tuple(found) or (by_start[int(rng.choice(sorted(by_start)))],)


def middle_windows(windows: Sequence[Window], rule: StartRule, count: int) -> tuple[Window, ...]:
    """The windows in the middle of what is drawn, always the same: for validation."""
    fixed = StartRule(
        first=(sum(rule.first) // 2, sum(rule.first) // 2),
        increment=(sum(rule.increment) // 2, sum(rule.increment) // 2),
    )
    return draw_windows(windows, fixed, count, np.random.default_rng(0))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How samples are varied. Turns (four rotations, each mirrored or not) are drawn with the samples."""

    turns: bool = False
    frozen: float = 0.0
    """Share of the samples that show one of their frames all the time, and hence no change."""
    lost: float = 0.0
    """Up to this share of a sample's images is lost, as if never taken; each path loses its own."""
    gain: float = 0.0
    """Standard deviation of the logarithm of a factor for each band, the same over a sample's whole series."""


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "published": Augmentation(turns=True, frozen=0.5),
        "flips": Augmentation(turns=True),
        "rich": Augmentation(turns=True, frozen=0.25, lost=0.3, gain=0.05),
        "none": Augmentation(),
    }
)
"""By name. `published` draws uniformly from its sixteen forms: frozen or not, mirrored or not, four rotations."""


def augmented(batch: Batch, how: Augmentation, rngs: Sequence[np.random.Generator]) -> Batch:
    """The samples of a batch varied, each by its own generator; the batch itself is left alone."""
    if not (how.frozen or how.lost or how.gain):
        return batch
    frames = {path: images.copy() if how.gain else images for path, images in batch.frames.items()}
    index = {path: rows.copy() for path, rows in batch.index.items()}
    truth = batch.truth.copy()
    for n, rng in enumerate(rngs):
        steps = int(batch.valid[n].sum())
        for path, rows in index.items():
            first, stop = int(rows[n, :steps].min()), int(rows[n, :steps].max()) + 1
            if how.gain:
                factor = np.exp(rng.normal(0, how.gain, frames[path].shape[1])).astype(np.float32)
                frames[path][first:stop] *= factor[:, None, None]
            if how.lost:
                kept = rng.random(stop - first) >= rng.uniform(0, how.lost)
                kept[0] = True  # something must show from the start
                shown = np.maximum.accumulate(np.where(kept, np.arange(stop - first), 0))
                rows[n, :steps] = first + shown[rows[n, :steps] - first]
        if rng.random() < how.frozen:
            step = int(rng.integers(steps))
            for rows in index.values():
                rows[n, :steps] = rows[n, step]
            truth[n] = unchanged(truth[n])
    return Batch(frames=frames, index=index, valid=batch.valid, truth=truth, origin=batch.origin)


def unchanged(truth: FloatArray) -> FloatArray:
    """Truth of a series that stands still: nothing changed anywhere, also where the labels do not tell."""
    return np.zeros_like(truth)
