"""The default engine: Winograd convolutions fused with the ConvLSTM's gates, compiled by numba for the CPU at hand."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from urbandelta.engines import winograd
from urbandelta.engines.base import Session
from urbandelta.network import GATES, Conv, FoldedNetwork, Path, PathParameters
from urbandelta.types import FloatArray

_Kernel: TypeAlias = tuple[FloatArray, FloatArray]


def _filter_major(conv: FloatArray, filters: int) -> FloatArray:
    """Gate by gate (Keras) to filter by filter, so that one product group is one filter's four gates."""
    return conv.reshape(GATES, filters, *conv.shape[1:]).swapaxes(0, 1).reshape(conv.shape)


def _kernel(conv: Conv) -> _Kernel:
    return winograd.transform_kernel(conv.weight), np.ascontiguousarray(conv.bias, dtype=np.float32)


class _PathKernels:
    """A path's kernels in the form that the compiled functions take."""

    def __init__(self, parameters: PathParameters, *, bf16: bool) -> None:
        filters = parameters.filters
        self.filters = filters
        self.blocks = [_kernel(block) for block in parameters.blocks]
        self.input = _kernel(
            Conv(_filter_major(parameters.input.weight, filters), _filter_major(parameters.input.bias, filters))
        )
        recurrent = winograd.round_to_bf16(parameters.recurrent) if bf16 else parameters.recurrent
        self.recurrent = winograd.transform_kernel(_filter_major(recurrent, filters))


class NativeSession:
    """`Session` on tiled feature maps (see `winograd`)."""

    def __init__(self, network: FoldedNetwork, *, height: int, width: int, slots: int, bf16: bool) -> None:
        self._bf16 = bf16
        tiling = winograd.Tiling(height, width)
        self._tiling = tiling
        self._geometry = (tiling.tiles, tiling.pitch, tiling.margin, tiling.columns)
        self._factors = (tiling.edges().ravel(), tiling.inside().ravel())
        self._paths = {path: _PathKernels(parameters, bf16=bf16) for path, parameters in network.paths.items()}
        self._head = [_kernel(conv) for conv in network.head]
        self._output = network.output
        merged = sum(kernels.filters for kernels in self._paths.values())
        widest = max(merged, *(kernel.shape[2] for k in self._paths.values() for kernel, _ in [*k.blocks, k.input]))
        self._scratch = winograd.scratch_for(widest)
        self._merged = tiling.padded(merged)
        self._hidden = {path: tiling.padded(2, slots, kernels.filters) for path, kernels in self._paths.items()}
        self._sides = {path: np.zeros(slots, np.int64) for path in self._paths}
        self._cell = {path: tiling.packed_cell(slots, kernels.filters) for path, kernels in self._paths.items()}

    def _convolve(self, kernel: _Kernel, source: FloatArray, out: FloatArray, *, gates: bool = False) -> FloatArray:
        winograd.convolve(*kernel, source, out, not gates, gates, self._geometry, self._factors, self._scratch)
        return out

    def encode(self, path: Path, frame: FloatArray) -> FloatArray:
        """Gates, packed."""
        kernels = self._paths[path]
        source = self._tiling.padded(frame.shape[2])
        self._tiling.to_tiles(frame.transpose(2, 0, 1), source)
        for kernel in kernels.blocks:
            source = self._convolve(kernel, source, self._tiling.padded(kernels.filters))
        return self._convolve(kernels.input, source, self._tiling.packed(GATES * kernels.filters), gates=True)

    def clear(self, slot: int) -> None:
        """Start a new window in a slot."""
        for path in self._paths:
            self._hidden[path][self._sides[path][slot], slot] = 0
            self._cell[path][slot] = 0

    def advance(self, path: Path, gates: FloatArray, first: int, last: int) -> None:
        """One step for the windows in slots `first` to `last` - 1."""
        winograd.lstm_step(
            self._paths[path].recurrent,
            gates,
            self._hidden[path],
            self._sides[path],
            self._cell[path],
            (first, last),
            self._geometry,
            self._factors,
            self._bf16,
            self._scratch,
        )

    def score(self, slot: int) -> FloatArray:
        """Score (y, x) of the window in a slot."""
        start = 0
        for path, kernels in self._paths.items():
            self._merged[start : start + kernels.filters] = self._hidden[path][self._sides[path][slot], slot]
            start += kernels.filters
        maps = self._merged
        for kernel in self._head:
            maps = self._convolve(kernel, maps, self._tiling.padded(kernel[1].size))
        logits = np.einsum("c,cpt->pt", self._output.weight[0, :, 0, 0], self._tiling.unpad(maps)) + self._output.bias
        # exp of a large negative logit overflows to infinity, and 1 / infinity is the right answer.
        with np.errstate(over="ignore"):
            score: FloatArray = self._tiling.from_tiles(np.float32(1) / (np.float32(1) + np.exp(-logits)))[0]
        return score


class NativeEngine:
    """Winograd on the CPU; no dependency beyond numba.

    With `precision="bf16"`, the operands of the recurrent convolution (its weights and the hidden state) are rounded to
    bfloat16 and their products are added in fp32, which is what a processor with bf16 instructions computes. Here it
    takes as long as fp32: it shows what such a processor's scores are worth.
    """

    name = "native"

    def __init__(self, *, precision: str = "fp32") -> None:
        self.precision = precision

    def session(self, network: FoldedNetwork, *, height: int, width: int, slots: int) -> Session:
        """A session on images of `height` x `width` px."""
        return NativeSession(network, height=height, width=width, slots=slots, bf16=self.precision == "bf16")
