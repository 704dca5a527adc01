"""3x3 convolutions by Winograd's F(4x4, 3x3), with the ConvLSTM's gates fused behind them.

A feature map is kept **tiled**: cut into 4 x 4 px tiles, and stored as `(channel, 16 positions, tile)`, tiles
innermost, so that sixteen tiles are one vector and every transform is arithmetic on whole vectors. A convolution
takes 36 products a tile in place of 144: a quarter of the multiplications, and the recurrence is nearly all
multiplications.

    input   6x6 neighbourhood d of each tile    V = B' d B             (36, channel, tile)
    product per position, a small matmul        M[p] = U[p] V[p]       (36, output, tile)
    output  4x4 px                              Y = A' M A + addend

Everything is single precision with fused multiply-add; the error against float64 on the golden windows is in
docs/engines.md.

References
----------
.. [1] Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, arXiv:1509.09308
.. [2] Shi et al., Convolutional LSTM Network, NeurIPS 2015, arXiv:1506.04214
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from urbandelta.engines.simd import LANES, exp2_split, fma, load, load_one, maximum, minimum, round_bf16, splat, store
from urbandelta.types import FloatArray

TILE = 4
POSITIONS = TILE * TILE
TRANSFORMED = (TILE + 2) ** 2
GROUP = 4
"""Outputs computed together: the four gates of one filter, or four channels of a plain convolution."""
RUN = 64
"""Tiles computed together: four vectors."""
HALF = 6 * LANES
"""Elements of a row of a half-transformed block of sixteen tiles."""

# Interpolation points 0, +-sqrt(1/2), +-sqrt(2) and infinity. Against the textbook's 0, +-1, +-2 they halve the
# rounding error and take the largest one down to a sixth, at the same number of products.
_A, _B = np.sqrt(0.5), np.sqrt(2.0)
_A2, _B2 = 0.5, 2.0
_G = np.array(
    [
        [1 / (_A2 * _B2), 0, 0],
        *(np.array([1, sign * _A, _A2]) / (2 * _A2 * (_A2 - _B2)) for sign in (1, -1)),
        *(np.array([1, sign * _B, _B2]) / (2 * _B2 * (_B2 - _A2)) for sign in (1, -1)),
        [0, 0, 1],
    ]
)

_F32 = np.float32
_ZERO, _ONE, _TWO, _HALF = _F32(0), _F32(1), _F32(2), _F32(0.5)
_ROOT_HALF, _ROOT_TWO = _F32(_A), _F32(_B)
_ROOT_EIGHTH, _ROOT_EIGHT = _F32(_A / 2), _F32(_B * 2)
_MINUS_SUM = _F32(-(_A2 + _B2))
_LOWEST = np.finfo(_F32).min


def transform_kernel(weight: FloatArray) -> FloatArray:
    """Kernels (out, in, 3, 3) as the product's left side: (groups of 4 outputs, 36, in, 4), transformed in float64."""
    weight = np.pad(weight, ((0, -weight.shape[0] % GROUP), (0, 0), (0, 0), (0, 0)))
    outputs, inputs = weight.shape[:2]
    transformed = np.einsum("ak,oikl,bl->oiab", _G, weight.astype(np.float64), _G).astype(_F32)
    grouped = transformed.reshape(outputs // GROUP, GROUP, inputs, TRANSFORMED)
    return np.ascontiguousarray(grouped.transpose(0, 3, 2, 1))


@dataclass(frozen=True)
class Tiling:
    """How an image of `height` x `width` px is cut into 4 x 4 px tiles.

    Rows of tiles follow each other; each channel and position has `margin` zeros before and after its tiles, so that
    the tile above the first row reads zeros without a test.
    """

    height: int
    width: int

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // TILE)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        """Tiles, rounded up to whole runs."""
        return -(-self.rows * self.columns // RUN) * RUN

    @property
    def margin(self) -> int:
        """Zeros before the first and after the last tile."""
        return -(-(self.columns + 1) // 16) * 16

    @property
    def pitch(self) -> int:
        """Elements from one position to the next in a padded map."""
        return self.tiles + 2 * self.margin

    def padded(self, *leading: int) -> FloatArray:
        """Zeros for a map that is to be convolved: (*leading, 16, pitch)."""
        return np.zeros((*leading, POSITIONS, self.pitch), _F32)

    def packed(self, outputs: int) -> FloatArray:
        """Zeros for gates: (run, group of 4 outputs, 4 vectors of tiles, 16 positions, 4 outputs, 16 tiles)."""
        shape = (self.tiles // RUN, outputs // GROUP, RUN // LANES, POSITIONS, GROUP, LANES)
        return np.zeros(shape, _F32)

    def packed_cell(self, slots: int, filters: int) -> FloatArray:
        """Zeros for cell states: (slot, run, filter, 4 vectors of tiles, 16 positions, 16 tiles)."""
        return np.zeros((slots, self.tiles // RUN, filters, RUN // LANES, POSITIONS, LANES), _F32)

    def to_tiles(self, image: FloatArray, out: FloatArray) -> None:
        """Write `image` (channel, y, x) into a padded map."""
        rows, columns = self.rows, self.columns
        full = np.zeros((image.shape[0], rows * TILE, columns * TILE), _F32)
        full[:, : self.height, : self.width] = image
        tiled = full.reshape(-1, rows, TILE, columns, TILE).transpose(0, 2, 4, 1, 3)
        out[..., self.margin : self.margin + rows * columns] = tiled.reshape(-1, POSITIONS, rows * columns)

    def from_tiles(self, tiled: FloatArray) -> FloatArray:
        """The image (channel, y, x) of (channel, 16, tiles)."""
        rows, columns = self.rows, self.columns
        split = tiled[..., : rows * columns].reshape(-1, TILE, TILE, rows, columns).transpose(0, 3, 1, 4, 2)
        return split.reshape(-1, rows * TILE, columns * TILE)[:, : self.height, : self.width]

    def unpad(self, padded: FloatArray) -> FloatArray:
        """The tiles of a padded map without its margins, as a view (..., 16, tiles)."""
        return padded[..., self.margin : self.margin + self.tiles]

    def edges(self) -> FloatArray:
        """Factors (2, tiles): 0 where a tile has no neighbour at its left (first row) or right (second row), else 1."""
        column = np.arange(self.tiles) % self.columns
        return np.stack([column != 0, column != self.columns - 1]).astype(_F32)

    def inside(self) -> FloatArray:
        """Factors (16, tiles): 1 for pixels of the image, 0 for those that only fill up tiles."""
        ones = np.ones((1, self.height, self.width), _F32)
        padded = self.padded(1)
        self.to_tiles(ones, padded)
        return np.ascontiguousarray(self.unpad(padded)[0])


@njit(inline="always")
def _input_1d(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any) -> Any:
    """B' d along one axis."""
    minus_two, minus_half, minus_sum = splat(-_TWO), splat(-_HALF), splat(_MINUS_SUM)
    even_a, odd_a = fma(minus_two, d2, d4), splat(_ROOT_HALF) * fma(minus_two, d1, d3)
    even_b, odd_b = fma(minus_half, d2, d4), splat(_ROOT_TWO) * fma(minus_half, d1, d3)
    return (
        d0 + fma(minus_sum, d2, d4),
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        d1 + fma(minus_sum, d3, d5),
    )


@njit(inline="always")
def _output_1d(m0: Any, m1: Any, m2: Any, m3: Any, m4: Any, m5: Any) -> Any:
    """A' m along one axis."""
    sum_a, diff_a, sum_b, diff_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + sum_a + sum_b,
        fma(splat(_ROOT_TWO), diff_b, splat(_ROOT_HALF) * diff_a),
        fma(splat(_TWO), sum_b, splat(_HALF) * sum_a),
        fma(splat(_ROOT_EIGHT), diff_b, fma(splat(_ROOT_EIGHTH), diff_a, m5)),
    )


@njit(cache=True)
def _transform_input(
    source: Any,
    base: int,
    channels: int,
    pitch: int,
    columns: int,
    first: int,
    edges: Any,
    tiles: int,
    out: Any,
    work: Any,
) -> None:
    """V (36, channel, RUN) of one run of tiles. `base` is the offset of the flat source's tile 0 at position 0."""
    for channel in range(channels):
        plane = base + channel * 16 * pitch
        for lane in range(first, first + RUN, 16):
            left, right = load(edges, lane), load(edges, tiles + lane)
            for row in range(6):
                # Row 0 belongs to the tile above, row 5 to the tile below.
                shift = -columns if row == 0 else (columns if row == 5 else 0)
                at = plane + ((row - 1) & 3) * 4 * pitch + lane + shift
                b0, b1, b2, b3, b4, b5 = _input_1d(
                    load(source, at + 3 * pitch - 1) * left,
                    load(source, at),
                    load(source, at + pitch),
                    load(source, at + 2 * pitch),
                    load(source, at + 3 * pitch),
                    load(source, at + 1) * right,
                )
                store(work, row * 96, b0)
                store(work, row * 96 + 16, b1)
                store(work, row * 96 + 32, b2)
                store(work, row * 96 + 48, b3)
                store(work, row * 96 + 64, b4)
                store(work, row * 96 + 80, b5)
            for column in range(6):
                c0, c1, c2, c3, c4, c5 = _input_1d(
                    load(work, column * 16),
                    load(work, 96 + column * 16),
                    load(work, 192 + column * 16),
                    load(work, 288 + column * 16),
                    load(work, 384 + column * 16),
                    load(work, 480 + column * 16),
                )
                to = (column * channels + channel) * RUN + lane - first
                step = 6 * channels * RUN
                store(out, to, c0)
                store(out, to + step, c1)
                store(out, to + 2 * step, c2)
                store(out, to + 3 * step, c3)
                store(out, to + 4 * step, c4)
                store(out, to + 5 * step, c5)


@njit(cache=True)
def _multiply(kernel: Any, group: int, transformed: Any, channels: int, out: Any) -> None:
    """M of four outputs and one run of tiles: `out` (36, 4, RUN). Sixteen accumulators stay in registers."""
    for position in range(36):
        at = position * channels * RUN
        weight = (group * 36 + position) * channels * GROUP
        a0 = a1 = a2 = a3 = splat(_ZERO)
        b0 = b1 = b2 = b3 = splat(_ZERO)
        c0 = c1 = c2 = c3 = splat(_ZERO)
        d0 = d1 = d2 = d3 = splat(_ZERO)
        for _ in range(channels):
            v0, v1 = load(transformed, at), load(transformed, at + 16)
            v2, v3 = load(transformed, at + 32), load(transformed, at + 48)
            u = load_one(kernel, weight)
            a0, a1, a2, a3 = fma(u, v0, a0), fma(u, v1, a1), fma(u, v2, a2), fma(u, v3, a3)
            u = load_one(kernel, weight + 1)
            b0, b1, b2, b3 = fma(u, v0, b0), fma(u, v1, b1), fma(u, v2, b2), fma(u, v3, b3)
            u = load_one(kernel, weight + 2)
            c0, c1, c2, c3 = fma(u, v0, c0), fma(u, v1, c1), fma(u, v2, c2), fma(u, v3, c3)
            u = load_one(kernel, weight + 3)
            d0, d1, d2, d3 = fma(u, v0, d0), fma(u, v1, d1), fma(u, v2, d2), fma(u, v3, d3)
            at += RUN
            weight += GROUP
        to = position * GROUP * RUN
        store(out, to, a0)
        store(out, to + 16, a1)
        store(out, to + 32, a2)
        store(out, to + 48, a3)
        store(out, to + 64, b0)
        store(out, to + 80, b1)
        store(out, to + 96, b2)
        store(out, to + 112, b3)
        store(out, to + 128, c0)
        store(out, to + 144, c1)
        store(out, to + 160, c2)
        store(out, to + 176, c3)
        store(out, to + 192, d0)
        store(out, to + 208, d1)
        store(out, to + 224, d2)
        store(out, to + 240, d3)


@njit(inline="always")
def _output_columns(product: Any, at: int, work: Any, to: int) -> None:
    """First half of A' M A for one output and sixteen tiles: `work` (4 rows, 6 columns, 16 tiles) at `to`."""
    step = GROUP * RUN
    for column in range(6):
        p = at + column * step
        r0, r1, r2, r3 = _output_1d(
            load(product, p),
            load(product, p + 6 * step),
            load(product, p + 12 * step),
            load(product, p + 18 * step),
            load(product, p + 24 * step),
            load(product, p + 30 * step),
        )
        q = to + column * LANES
        store(work, q, r0)
        store(work, q + HALF, r1)
        store(work, q + 2 * HALF, r2)
        store(work, q + 3 * HALF, r3)


@njit(inline="always")
def _output_row(work: Any, at: int) -> Any:
    """Second half: the four pixels of one row of sixteen tiles."""
    return _output_1d(
        load(work, at),
        load(work, at + LANES),
        load(work, at + 2 * LANES),
        load(work, at + 3 * LANES),
        load(work, at + 4 * LANES),
        load(work, at + 5 * LANES),
    )


# tanh(v) = 1 - 2 / (exp(2 v) + 1), exp by 2^n times the Taylor series of 2^f, |f| <= 1/2: error below 2e-7 absolute.
_TWO_LOG2E = _F32(2 / np.log(2))
_TAYLOR = tuple(_F32(np.log(2) ** k / np.prod(np.arange(1, k + 1, dtype=np.float64))) for k in range(8))
_T1, _T2, _T3, _T4, _T5, _T6, _T7 = _TAYLOR[1:]
_TANH_LIMIT = _F32(9.5)


@njit(inline="always")
def _tanh(value: Any) -> Any:
    limit = splat(_TANH_LIMIT)
    bounded = maximum(minimum(value, limit), splat(-_TANH_LIMIT))
    power, fraction = exp2_split(bounded * splat(_TWO_LOG2E))
    series = fma(fraction, splat(_T7), splat(_T6))
    series = fma(fraction, series, splat(_T5))
    series = fma(fraction, series, splat(_T4))
    series = fma(fraction, series, splat(_T3))
    series = fma(fraction, series, splat(_T2))
    series = fma(fraction, series, splat(_T1))
    series = fma(fraction, series, splat(_ONE))
    return splat(_ONE) - splat(_TWO) / fma(power, series, splat(_ONE))


@njit(inline="always")
def _clip(value: Any) -> Any:
    return minimum(maximum(value, splat(_ZERO)), splat(_ONE))


@njit(inline="always")
def _cell_update(i: Any, f: Any, u: Any, o: Any, gates: Any, at: int, cell: Any, state: int) -> Any:
    """New hidden values of sixteen pixels from the recurrent halves of their gates; updates the cell."""
    i = _clip(i + load(gates, at))
    f = _clip(f + load(gates, at + LANES))
    u = _tanh(u + load(gates, at + 2 * LANES))
    o = _clip(o + load(gates, at + 3 * LANES))
    c = fma(f, load(cell, state), i * u)
    store(cell, state, c)
    return o * _tanh(c)


@njit(cache=True, nogil=True)
def lstm_step(
    kernel: Any,
    gates: Any,
    hidden: Any,
    sides: Any,
    cell: Any,
    windows: Any,
    geometry: Any,
    factors: Any,
    bf16: bool,
    scratch: Any,
) -> None:
    """Advance the states of the windows in slots `windows[0]` to `windows[1]` - 1 by one step.

    Parameters
    ----------
    kernel : (filter, 36, filter, 4) of `transform_kernel`, outputs ordered filter by filter, gates i, f, c, o inside
    gates : `Tiling.packed` (4 filter), the input half of the gates, shared by all windows
    hidden : (2, slot, filter, 16, pitch); a step reads one side and writes the other, since tiles read their neighbours
    sides : (slot,) int64, the side that holds each window's state; flipped here
    cell : (slot, ...) of `Tiling.packed_cell`, changed in place
    geometry : (tiles, pitch, margin, columns)
    factors : flat `edges` and `inside` of `Tiling`
    bf16 : whether hidden states are rounded to bfloat16
    scratch : from `scratch_for`

    All arrays but `sides` float32.
    """
    tiles, pitch, margin, columns = geometry
    edges, inside = factors
    slots, filters = hidden.shape[1], hidden.shape[2]
    flat_kernel, flat_gates = kernel.reshape(-1), gates.reshape(-1)
    flat_hidden, flat_cell = hidden.reshape(-1), cell.reshape(-1)
    transformed = scratch[: 36 * filters * RUN]
    product = scratch[36 * filters * RUN : 36 * (filters + GROUP) * RUN]
    work = scratch[36 * (filters + GROUP) * RUN :]
    # Runs outside, windows inside: a run's gates are read from memory once for all windows.
    for first in range(0, tiles, RUN):
        for slot in range(windows[0], windows[1]):
            side = sides[slot]
            source = (side * slots + slot) * filters * POSITIONS * pitch + margin
            target = ((1 - side) * slots + slot) * filters * POSITIONS * pitch + margin
            _transform_input(flat_hidden, source, filters, pitch, columns, first, edges, tiles, transformed, work)
            # Gates and cells are stored in the order in which this loop uses them, which the processor fetches ahead.
            at = first * filters * POSITIONS * GROUP
            state = (slot * tiles + first) * filters * POSITIONS
            for unit in range(filters):
                _multiply(flat_kernel, unit, transformed, filters, product)
                for lane in range(first, first + RUN, LANES):
                    for gate in range(GROUP):
                        _output_columns(product, gate * RUN + lane - first, work, gate * 4 * HALF)
                    for row in range(4):
                        q = row * HALF
                        i0, i1, i2, i3 = _output_row(work, q)
                        f0, f1, f2, f3 = _output_row(work, q + 4 * HALF)
                        u0, u1, u2, u3 = _output_row(work, q + 8 * HALF)
                        o0, o1, o2, o3 = _output_row(work, q + 12 * HALF)
                        h0 = _cell_update(i0, f0, u0, o0, flat_gates, at, flat_cell, state)
                        h1 = _cell_update(i1, f1, u1, o1, flat_gates, at + 4 * LANES, flat_cell, state + LANES)
                        h2 = _cell_update(i2, f2, u2, o2, flat_gates, at + 8 * LANES, flat_cell, state + 2 * LANES)
                        h3 = _cell_update(i3, f3, u3, o3, flat_gates, at + 12 * LANES, flat_cell, state + 3 * LANES)
                        if bf16:
                            h0, h1, h2, h3 = round_bf16(h0), round_bf16(h1), round_bf16(h2), round_bf16(h3)
                        to = target + (unit * POSITIONS + row * 4) * pitch + lane
                        within = row * 4 * tiles + lane
                        store(flat_hidden, to, h0 * load(inside, within))
                        store(flat_hidden, to + pitch, h1 * load(inside, within + tiles))
                        store(flat_hidden, to + 2 * pitch, h2 * load(inside, within + 2 * tiles))
                        store(flat_hidden, to + 3 * pitch, h3 * load(inside, within + 3 * tiles))
                        at += 4 * GROUP * LANES
                        state += 4 * LANES
    for slot in range(windows[0], windows[1]):
        sides[slot] = 1 - sides[slot]


@njit(cache=True, nogil=True)
def convolve(
    kernel: Any, bias: Any, source: Any, out: Any, relu: bool, packed: bool, geometry: Any, factors: Any, scratch: Any
) -> None:
    """A 3x3 convolution with bias and, if asked, ReLU.

    Parameters
    ----------
    kernel : (group, 36, input, 4) of `transform_kernel`
    bias : (output,); outputs of the kernel beyond those are padding
    source : (input, 16, pitch)
    out : `Tiling.padded` (output), pixels outside the image are written as 0; or, if `packed`, `Tiling.packed` (output)
    geometry, factors, scratch : as in `lstm_step`
    """
    tiles, pitch, margin, columns = geometry
    edges, inside = factors
    channels, outputs = source.shape[0], bias.size
    flat_kernel, flat_source, flat_out = kernel.reshape(-1), source.reshape(-1), out.reshape(-1)
    transformed = scratch[: 36 * channels * RUN]
    product = scratch[36 * channels * RUN : 36 * (channels + GROUP) * RUN]
    work = scratch[36 * (channels + GROUP) * RUN :]
    floor = splat(_ZERO) if relu else splat(_LOWEST)
    step = GROUP * LANES if packed else pitch
    for first in range(0, tiles, RUN):
        _transform_input(flat_source, margin, channels, pitch, columns, first, edges, tiles, transformed, work)
        for output in range(outputs):
            group, member = output // GROUP, output % GROUP
            if member == 0:
                _multiply(flat_kernel, group, transformed, channels, product)
            shift = load_one(bias, output)
            for lane in range(first, first + RUN, LANES):
                _output_columns(product, member * RUN + lane - first, work, 0)
                if packed:
                    to = (first * outputs + group * RUN * GROUP + (lane - first) * GROUP) * POSITIONS + member * LANES
                else:
                    to = output * POSITIONS * pitch + margin + lane
                for row in range(4):
                    within = row * 4 * tiles + lane
                    y0, y1, y2, y3 = _output_row(work, row * HALF)
                    store(flat_out, to, maximum(y0 + shift, floor) * load(inside, within))
                    store(flat_out, to + step, maximum(y1 + shift, floor) * load(inside, within + tiles))
                    store(flat_out, to + 2 * step, maximum(y2 + shift, floor) * load(inside, within + 2 * tiles))
                    store(flat_out, to + 3 * step, maximum(y3 + shift, floor) * load(inside, within + 3 * tiles))
                    to += 4 * step


def round_to_bf16(values: FloatArray) -> FloatArray:
    """The nearest bfloat16 values, ties to even, as float32."""
    bits = np.ascontiguousarray(values, _F32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(_F32)


def scratch_for(channels: int) -> FloatArray:
    """Working memory of one thread for convolutions of up to `channels` inputs."""
    return np.zeros(36 * (channels + GROUP) * RUN + max(GROUP * 4, 6) * HALF, _F32)
