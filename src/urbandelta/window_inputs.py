"""What the scores of each window depend on, as one short text: equal texts mean equal scores.

A window sees its steps, and at each step the newest valid value of every pixel: acquisitions up to its last step, and
none after it, with one exception. A pixel that a stream has not seen yet shows the first value that it will have, so
acquisitions that show pixels for the first time matter to all windows before them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from urbandelta.store import Cube
from urbandelta.types import TimeArray, Window

_READ_BYTES = 64 * 2**20


def window_inputs(
    cube: Cube, sources: Sequence[str], steps: TimeArray, windows: Sequence[Window], *, look_back: bool
) -> list[str]:
    """Of each window a text that changes when anything changes that its scores depend on.

    Parameters
    ----------
    cube : Cube
    sources : sequence of str
        Streams that are read.
    steps : ndarray, shape (step,)
    windows : sequence of Window
    look_back : bool
        Whether pixels show their first value before they are seen, see `timeline.block_timeline`.
    """
    digests = [hashlib.sha256() for _ in windows]
    for window, digest in zip(windows, digests, strict=True):
        digest.update(steps[window.first : window.last + 1].astype("datetime64[ns]").tobytes())
    for name in sources:
        times = cube.times(name)
        records = [f"{time} {content}" for time, content in zip(times, _contents(cube, name), strict=True)]
        chain = _chain(records)
        seen = np.searchsorted(times, np.array([window.end for window in windows]), side="right")
        fresh = _first_views(cube, name) if look_back else ()
        for digest, count in zip(digests, seen, strict=True):
            digest.update(f"{name} {chain[count]}".encode())
            digest.update(" ".join(records[index] for index in fresh if index >= count).encode())
    return [digest.hexdigest()[:32] for digest in digests]


def _contents(cube: Cube, name: str) -> list[str]:
    return [str(digest) for digest in cube.acquisitions(name)["digest"].values]


def _chain(records: Sequence[str]) -> list[str]:
    """Hash of the first n records, for each n from 0."""
    chain = [""]
    for record in records:
        chain.append(hashlib.sha256(f"{chain[-1]} {record}".encode()).hexdigest())
    return chain


def _first_views(cube: Cube, name: str) -> list[int]:
    """Acquisitions that show some pixel for the first time, in order; reading stops when every pixel has been seen."""
    valid = cube.valid_fraction(name)
    waiting = np.ones(cube.grid.shape, np.bool_)
    found = []
    batch = max(1, _READ_BYTES // (cube.grid.height * cube.grid.width))
    for first in range(0, len(valid), batch):
        if (valid[first : first + batch] == 0).all():
            continue
        # A corner that no acquisition shows must not make all of every mask be read.
        box = _span(waiting, axis=0), _span(waiting, axis=1)
        for index, mask in enumerate(cube.read_mask(name, slice(first, first + batch), *box), start=first):
            fresh = (mask == 0) & waiting[box]
            if fresh.any():
                found.append(index)
                waiting[box] &= ~fresh
        if not waiting.any():
            break
    return found


def _span(flags: npt.NDArray[np.bool_], *, axis: int) -> slice:
    """From the first to the last row (axis 0) or column (1) in which something is true; there is one."""
    where = np.flatnonzero(flags.any(axis=1 - axis))
    return slice(int(where[0]), int(where[-1]) + 1)
