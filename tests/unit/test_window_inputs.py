"""Which acquisitions show pixels for the first time, against looking at every mask whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from urbandelta import window_inputs
from urbandelta.store import Cube


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("blind", [None, (0, 3, 0, 5), (18, 20, 22, 24)])
def test_first_views_are_those_of_all_masks(
    make_cube: Callable[..., Cube],
    monkeypatch: pytest.MonkeyPatch,
    blind: tuple[int, int, int, int] | None,
    batch: int,
) -> None:
    cube = make_cube(blind=blind)
    name = cube.streams[0]
    height, width = cube.grid.shape
    monkeypatch.setattr(window_inputs, "_READ_BYTES", batch * height * width)
    whole = slice(0, height), slice(0, width)
    hidden = cube.read_mask(name, slice(None), *whole) != 0
    # Up to and with each acquisition: hidden in all of them.
    waiting = np.logical_and.accumulate(hidden, axis=0)
    before = np.concatenate([np.ones((1, height, width), np.bool_), waiting[:-1]])
    expected = np.flatnonzero((before & ~waiting).any(axis=(1, 2))).tolist()
    assert len(expected) > 1

    asked = []

    def read_mask(this: Cube, stream: str, time: slice, y: slice, x: slice) -> np.ndarray:
        asked.append((y, x))
        return original(this, stream, time, y, x)

    original = Cube.read_mask
    monkeypatch.setattr(Cube, "read_mask", read_mask)
    assert window_inputs._first_views(cube, name) == expected
    if blind is not None and batch == 1:
        top, bottom, left, right = blind
        assert asked[-1] == (slice(top, bottom), slice(left, right))
