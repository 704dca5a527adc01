"""The training loss on arrays: Tanimoto with complement, without the tile's border.

References
----------
.. [1] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
.. [2] Diakogiannis et al., ResUNet-a, ISPRS J. 162 (2020), doi:10.1016/j.isprsjprs.2020.01.013
"""

from __future__ import annotations

import numpy as np

from urbandelta.errors import ShapeError
from urbandelta.types import Array

BORDER = 1
"""Pixels at a tile's edge that do not count: they see zero padding, and never come from the middle of a tile."""
SMOOTHING = 1e-4
"""Keeps the quotient finite where nothing is left in its denominator."""


def _tanimoto(truth: Array, scores: Array, axes: tuple[int, ...]) -> Array:
    product = (truth * scores).sum(axis=axes)
    quotient: Array = product / ((truth**2 + scores**2).sum(axis=axes) - product + SMOOTHING)
    return quotient


def tanimoto_loss(truth: Array, scores: Array, *, per_sample: bool = False) -> float:
    """One minus the mean of the Tanimoto coefficients of change and of no change.

    Parameters
    ----------
    truth, scores : ndarray, shape (B, y, x), 0..1
        The outermost pixel on each side does not count.
    per_sample : bool
        False: one coefficient over all samples, as in the published first training. True: one a sample, then the mean
        of the losses, as in the published transfer.

    Returns
    -------
    float, 0 (equal) .. 1

    Raises
    ------
    ShapeError
        If the arrays differ in shape, are not (B, y, x), or have no pixel inside the border.
    """
    truth, scores = np.asarray(truth, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 3 or truth.shape != scores.shape or truth.size == 0 or min(truth.shape[1:]) <= 2 * BORDER:
        raise ShapeError(
            f"loss of truth {truth.shape} and scores {scores.shape}; expected one shape (samples, rows, columns) "
            f"with at least {2 * BORDER + 1} rows and columns"
        )
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    t, p = truth[inner], scores[inner]
    axes = (1, 2) if per_sample else (0, 1, 2)
    return float(np.mean(1 - (_tanimoto(t, p, axes) + _tanimoto(1 - t, 1 - p, axes)) / 2))
