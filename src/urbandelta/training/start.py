"""What a training starts from: an untrained network or earlier weights, and the scale of the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from urbandelta.model import Network, network_from, parameters_of
from urbandelta.network import NetworkConfig, Path
from urbandelta.samples import Batch
from urbandelta.types import FloatArray

FORGET_BIAS = 2.2
"""Hard sigmoid of 2.2 is 0.94: a memory of some 16 steps before anything is learned."""
OUTPUT_BIAS = -2.0
"""Change is rare: start from a score of 0.12."""


def new_network(config: NetworkConfig, *, seed: int) -> Network:
    """Untrained network whose cells remember from the start. Leaves torch's generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(config)
        for name in config.paths:
            lstm = network.path(name).lstm
            assert lstm.input.bias is not None
            nn.init.zeros_(lstm.input.bias)
            lstm.input.bias[lstm.filters : 2 * lstm.filters] = FORGET_BIAS
            nn.init.orthogonal_(lstm.recurrent.weight, gain=0.5)
        assert network.head.output.bias is not None
        nn.init.constant_(network.head.output.bias, OUTPUT_BIAS)
    return network


def input_scale(batches: Iterable[Batch], config: NetworkConfig) -> dict[Path, FloatArray]:
    """Standard deviation of every channel over the distinct images of some batches; 1 where a channel is constant.

    Only a scale and no shift: zeros mean the same with and without it, and it folds exactly into the first convolution.
    The batch norm behind that convolution takes the mean out.
    """
    sums = {path: np.zeros((3, config.path_bands(path))) for path in config.paths}
    for batch in batches:
        for path, moments in sums.items():
            frames = batch.frames[path].astype(np.float64)
            seen = frames != 0  # zeros stand for what no sensor has seen yet
            for power in range(3):
                moments[power] += np.where(seen, frames**power, 0).sum(axis=(0, 2, 3))
    scale: dict[Path, FloatArray] = {}
    for path, (count, first, second) in sums.items():
        count = np.maximum(count, 1)
        variance = second / count - (first / count) ** 2
        # A band may be constant or stand in for a missing one; a tiny scale would only magnify rounding.
        usable = variance > 1e-6 * (first / count) ** 2
        scale[path] = np.where(usable, np.sqrt(np.maximum(variance, 0)), 1).astype(np.float32)
        scale[path][~(scale[path] > 0)] = 1
    return scale


def scaled_parameters(
    network: Network, scale: Mapping[Path, FloatArray], *, undo: bool = False
) -> dict[str, FloatArray]:
    """Parameters with the input scale folded into the first convolutions, or taken out again (`undo`)."""
    parameters = parameters_of(network)
    for path, factor in scale.items():
        name = f"{path}.block1.conv.weight"
        wide = factor[None, :, None, None]
        parameters[name] = parameters[name] * wide if undo else parameters[name] / wide
    return parameters


def warm_network(network: Network, scale: Mapping[Path, FloatArray]) -> Network:
    """The network for scaled input that scores as `network` does for physical input."""
    return network_from(scaled_parameters(network, scale, undo=True), network.config)
