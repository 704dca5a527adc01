"""The network's parameters as arrays: names, shapes, and the algebra that makes them ready for inference.

ERCNN-DRS, read from the input up:

    SAR path      Block(f)             -> ConvLSTM(f)
    optical path  Block(f) -> Block(f) -> ConvLSTM(f)
    head          concat [SAR, optical] -> Block(8) -> Block(8) -> conv 1x1 -> sigmoid

`Block(f)` is a 3x3 cross-correlation with bias and zero padding, batch norm (eps 1e-3) and ReLU. Kernels are OIHW.

References
----------
.. [1] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from urbandelta.eras import Era
from urbandelta.errors import WeightsError
from urbandelta.types import FloatArray

Path: TypeAlias = Literal["sar", "optical"]
Variant: TypeAlias = Literal["combined", "sar", "optical"]

PATHS: tuple[Path, ...] = get_args(Path)
VARIANTS: tuple[Variant, ...] = get_args(Variant)
BLOCKS: Mapping[Path, int] = {"sar": 1, "optical": 2}
"""Convolution blocks ahead of each path's ConvLSTM."""
GATES = 4
"""Gates of a ConvLSTM, in this order on the channel axis: input, forget, cell, output."""
BATCH_NORM_EPSILON = 1e-3
KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of one network; everything else about its shape is fixed."""

    sar_bands: int
    optical_bands: int
    sar_filters: int
    optical_filters: int
    head_filters: int = 8
    variant: Variant = "combined"

    @classmethod
    def for_era(cls, era: Era, variant: Variant = "combined") -> NetworkConfig:
        """Network of an era's row."""
        return cls(
            sar_bands=era.sar_bands,
            optical_bands=era.optical_bands,
            sar_filters=era.sar_filters,
            optical_filters=era.optical_filters,
            head_filters=era.head_filters,
            variant=variant,
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths that the variant has, SAR first."""
        return PATHS if self.variant == "combined" else (self.variant,)

    @property
    def bands(self) -> int:
        """Channels of the network's input; single-path variants still take both kinds and read one."""
        return self.sar_bands + self.optical_bands

    def channels(self, path: Path) -> slice:
        """Where a path's bands lie on the input's channel axis."""
        return slice(0, self.sar_bands) if path == "sar" else slice(self.sar_bands, self.bands)

    def path_bands(self, path: Path) -> int:
        """Input channels of a path."""
        return self.sar_bands if path == "sar" else self.optical_bands

    def path_filters(self, path: Path) -> int:
        """Filters of a path, the same in its blocks and its ConvLSTM."""
        return self.sar_filters if path == "sar" else self.optical_filters


def _block_shapes(name: str, inputs: int, filters: int) -> dict[str, tuple[int, ...]]:
    norm = {f"{name}.bn.{part}": (filters,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.conv.weight": (filters, inputs, KERNEL, KERNEL), f"{name}.conv.bias": (filters,)} | norm


def parameter_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; the names of the weights file and of the torch module's state."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in config.paths:
        inputs, filters = config.path_bands(path), config.path_filters(path)
        for number in range(1, BLOCKS[path] + 1):
            shapes |= _block_shapes(f"{path}.block{number}", inputs if number == 1 else filters, filters)
        shapes[f"{path}.lstm.input.weight"] = (GATES * filters, filters, KERNEL, KERNEL)
        shapes[f"{path}.lstm.input.bias"] = (GATES * filters,)
        shapes[f"{path}.lstm.recurrent.weight"] = (GATES * filters, filters, KERNEL, KERNEL)
    merged = sum(config.path_filters(path) for path in config.paths)
    shapes |= _block_shapes("head.block1", merged, config.head_filters)
    shapes |= _block_shapes("head.block2", config.head_filters, config.head_filters)
    shapes["head.output.weight"] = (1, config.head_filters, 1, 1)
    shapes["head.output.bias"] = (1,)
    return shapes


def check_parameters(parameters: Mapping[str, FloatArray], config: NetworkConfig, *, origin: str) -> None:
    """Raise `WeightsError` unless `parameters` are exactly those of `config`: names, shapes, finite values."""
    expected = parameter_shapes(config)
    if missing := sorted(expected.keys() - parameters.keys()):
        raise WeightsError(
            f"{origin}: parameter {missing[0]} is missing ({len(missing)} in all); is this another network?"
        )
    if extra := sorted(parameters.keys() - expected.keys()):
        raise WeightsError(f"{origin}: unknown parameter {extra[0]} ({len(extra)} in all); is this another network?")
    for name, shape in expected.items():
        if parameters[name].shape != shape:
            raise WeightsError(f"{origin}: {name} has shape {parameters[name].shape}, this network needs {shape}")
        if not np.isfinite(parameters[name]).all():
            raise WeightsError(f"{origin}: {name} holds values that are not finite; the file is damaged")


@dataclass(frozen=True)
class Conv:
    """A convolution ready to run: float32 `weight` (out, in, k, k) and `bias` (out,)."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class PathParameters:
    """One path for inference.

    `blocks` are convolution + ReLU, batch norm folded in. `input` gives the gates' input half, bias included,
    `recurrent` (4 F, F, 3, 3) the other half. The 0.2 and 0.5 of the hard sigmoid are folded into the gates i, f and o,
    so that these only need clipping to 0..1.
    """

    blocks: tuple[Conv, ...]
    input: Conv
    recurrent: FloatArray

    @property
    def filters(self) -> int:
        """Channels of the hidden state."""
        return int(self.recurrent.shape[1])


@dataclass(frozen=True)
class FoldedNetwork:
    """The whole network for inference: `paths`, then two head blocks and the output convolution."""

    config: NetworkConfig
    paths: Mapping[Path, PathParameters]
    head: tuple[Conv, Conv]
    output: Conv


def _folded_block(parameters: Mapping[str, FloatArray], name: str) -> Conv:
    gamma, beta, mean, variance = (
        parameters[f"{name}.bn.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    weight = parameters[f"{name}.conv.weight"] * scale[:, None, None, None]
    bias = (parameters[f"{name}.conv.bias"] - mean) * scale + beta
    return Conv(weight.astype(np.float32), bias.astype(np.float32))


def _folded_path(parameters: Mapping[str, FloatArray], path: Path) -> PathParameters:
    kernel = parameters[f"{path}.lstm.input.weight"].astype(np.float64)
    bias = parameters[f"{path}.lstm.input.bias"].astype(np.float64)
    recurrent = parameters[f"{path}.lstm.recurrent.weight"].astype(np.float64)
    filters = recurrent.shape[1]
    # Keras 2: hard_sigmoid(v) = clip(0.2 v + 0.5, 0, 1). Keras 3 has v / 6 + 0.5: the published weights need the
    # former.
    slope = np.repeat([0.2, 0.2, 1.0, 0.2], filters)
    shift = np.repeat([0.5, 0.5, 0.0, 0.5], filters)
    return PathParameters(
        blocks=tuple(_folded_block(parameters, f"{path}.block{n}") for n in range(1, BLOCKS[path] + 1)),
        input=Conv((kernel * slope[:, None, None, None]).astype(np.float32), (bias * slope + shift).astype(np.float32)),
        recurrent=(recurrent * slope[:, None, None, None]).astype(np.float32),
    )


def fold(parameters: Mapping[str, FloatArray], config: NetworkConfig) -> FoldedNetwork:
    """Parameters ready for inference; products are formed in float64 and rounded once."""
    return FoldedNetwork(
        config=config,
        paths={path: _folded_path(parameters, path) for path in config.paths},
        head=(_folded_block(parameters, "head.block1"), _folded_block(parameters, "head.block2")),
        output=Conv(parameters["head.output.weight"], parameters["head.output.bias"]),
    )
