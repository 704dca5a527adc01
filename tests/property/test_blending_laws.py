"""Blending weights sum to one, whatever the tiling."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from urbandelta.blending import Blend
from urbandelta.grid import tiles


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(0, 12), st.data())
def test_weights_sum_to_one(height: int, width: int, tile: int, halo: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, halo))
    rows = tiles((height, width), tile=tile, halo=halo)
    blend = Blend.of_tiles(rows, overlap=overlap)
    total = np.zeros((height, width))
    for row in rows:
        for piece in row:
            y, x = blend.of(piece)
            assert piece.patch[0].start <= y.pixels.start
            assert y.pixels.stop <= piece.patch[0].stop
            total[y.pixels, x.pixels] += np.outer(y.weights, x.weights)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)


@given(st.integers(1, 70), st.integers(1, 40))
def test_without_overlap_a_tile_gives_its_core_alone(size: int, tile: int) -> None:
    rows = tiles((size, size), tile=tile, halo=0)
    blend = Blend.of_tiles(rows, overlap=0)
    for row in rows:
        for piece in row:
            y, x = blend.of(piece)
            assert (y.pixels, x.pixels) == piece.core
            assert (y.weights == 1).all()
