"""The network as a torch module, for training and for the torch engine; importing this needs the extra `train`.

Names in the state are those of the weights file (`network.parameter_shapes`), so a state is saved and loaded as it is.
Shapes stand at the ends of lines: B windows, T steps, C channels, F filters, H rows, W columns.

References
----------
.. [1] Zitzlsberger et al., Remote Sensing 13(15), 3000 (2021), doi:10.3390/rs13153000
.. [2] Shi et al., Convolutional LSTM Network, NeurIPS 2015, arXiv:1506.04214
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from urbandelta.errors import ShapeError
from urbandelta.network import BATCH_NORM_EPSILON, BLOCKS, GATES, KERNEL, NetworkConfig, Path, check_parameters
from urbandelta.types import FloatArray

_PADDING = KERNEL // 2


class Block(nn.Module):
    """Convolution with bias, batch norm, ReLU."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, KERNEL, padding=_PADDING)
        # Keras' momentum of 0.99 is torch's 0.01: the share of the new batch.
        self.bn = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPSILON, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, F, H, W)."""
        return torch.relu(self.bn(self.conv(x)))


def hard_sigmoid(v: Tensor) -> Tensor:
    """clip(0.2 v + 0.5, 0, 1), as in Keras 2; torch's own and that of Keras 3 have the slope 1/6."""
    return torch.clamp(0.2 * v + 0.5, 0.0, 1.0)


class ConvLstm(nn.Module):
    """ConvLSTM without peepholes: gates in the order input, forget, cell, output; returns the last hidden state."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.filters = filters
        self.input = nn.Conv2d(filters, GATES * filters, KERNEL, padding=_PADDING)
        self.recurrent = nn.Conv2d(filters, GATES * filters, KERNEL, padding=_PADDING, bias=False)

    def step(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one step: input half of the gates (B, 4 F, H, W) and states (B, F, H, W) -> new h, c."""
        i, f, g, o = (gates + self.recurrent(h)).chunk(GATES, dim=1)
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * torch.tanh(g)
        return hard_sigmoid(o) * torch.tanh(c), c

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, F, H, W) and flags (B, T) -> last h (B, F, H, W); steps without flag change nothing."""
        B, T, _, H, W = x.shape
        gates = self.input(x.flatten(0, 1)).view(B, T, -1, H, W)  # (B, T, 4 F, H, W)
        h = x.new_zeros(B, self.filters, H, W)
        c = torch.zeros_like(h)
        for t in range(T):
            new_h, new_c = self.step(gates[:, t], h, c)
            keep = valid[:, t, None, None, None]  # (B, 1, 1, 1)
            h, c = torch.where(keep, new_h, h), torch.where(keep, new_c, c)
        return h


class SensorPath(nn.Module):
    """One kind of sensor: blocks on every frame, then a ConvLSTM over the steps."""

    block1: Block
    block2: Block

    def __init__(self, bands: int, filters: int, *, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        for number in range(1, blocks + 1):
            self.add_module(f"block{number}", Block(bands if number == 1 else filters, filters))
        self.lstm = ConvLstm(filters)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (N, C, H, W) -> (N, F, H, W), each on its own."""
        for number in range(1, self.blocks + 1):
            frames = self.get_submodule(f"block{number}")(frames)
        return frames

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Windows (B, T, C, H, W) and flags (B, T) -> (B, F, H, W)."""
        encoded = self.encode(x.flatten(0, 1))  # (B T, F, H, W)
        last: Tensor = self.lstm(encoded.view(*x.shape[:2], *encoded.shape[1:]), valid)
        return last


class Head(nn.Module):
    """Both paths' last states to one score a pixel."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.block1 = Block(inputs, filters)
        self.block2 = Block(filters, filters)
        self.output = nn.Conv2d(filters, 1, 1)

    def logits(self, merged: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, H, W), before the sigmoid."""
        scores: Tensor = self.output(self.block2(self.block1(merged)))
        return scores[:, 0]

    def forward(self, merged: Tensor) -> Tensor:
        """(B, F, H, W) -> scores (B, H, W), 0..1."""
        return torch.sigmoid(self.logits(merged))


class Network(nn.Module):
    """ERCNN-DRS for one era and variant.

    Parameters
    ----------
    config : NetworkConfig
        Sizes; `NetworkConfig.for_era` gives the published ones.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        for path in config.paths:
            self.add_module(path, SensorPath(config.path_bands(path), config.path_filters(path), blocks=BLOCKS[path]))
        merged = sum(config.path_filters(path) for path in config.paths)
        self.head = Head(merged, config.head_filters)

    def path(self, name: Path) -> SensorPath:
        """The path called `name`."""
        module = self.get_submodule(name)
        assert isinstance(module, SensorPath)
        return module

    def merged(self, x: Tensor, valid: Tensor) -> Tensor:
        """Last hidden states of all paths (B, F, H, W), SAR first."""
        if x.ndim != 5 or x.shape[2] != self.config.bands:
            raise ShapeError(
                f"network input has shape {tuple(x.shape)}; "
                f"expected (windows, steps, {self.config.bands} bands, rows, columns)"
            )
        if valid.shape != x.shape[:2]:
            raise ShapeError(f"valid has shape {tuple(valid.shape)}, the windows and steps are {tuple(x.shape[:2])}")
        states = [self.path(name)(x[:, :, self.config.channels(name)], valid) for name in self.config.paths]
        return torch.cat(states, dim=1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Scores of whole windows.

        Parameters
        ----------
        x : Tensor, shape (B, T, C, H, W)
            Channels in the era's order, SAR first, in physical units.
        valid : Tensor of bool, shape (B, T)
            Steps to process; the others keep both states as they are.

        Returns
        -------
        Tensor, shape (B, H, W), 0..1
        """
        scores: Tensor = self.head(self.merged(x, valid))
        return scores


def network_from(parameters: Mapping[str, FloatArray], config: NetworkConfig) -> Network:
    """Network in evaluation mode with the given parameters.

    Raises
    ------
    WeightsError
        If they are not those of `config`.
    """
    check_parameters(parameters, config, origin="parameters")
    network = Network(config)
    # `num_batches_tracked` is torch's bookkeeping and no part of a weights file: hence not strict.
    network.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in parameters.items()}, strict=False
    )
    return network.eval()


def parameters_of(network: Network) -> dict[str, FloatArray]:
    """Parameters of a network as float32 arrays, by the names of the weights file."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
