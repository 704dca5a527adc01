"""The network over distinct images: each is encoded once, whatever the number of steps and windows that show it.

Batch norm has two ways to weigh the images. `images` counts each distinct image once and never sees padding.
`published` counts an image as often as steps show it, and padding, an image of -1 in all bands, as often as it fills a
window: what the published program does with padded windows, at the cost of distinct images only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from urbandelta.model import Block, Head, Network, SensorPath
from urbandelta.network import Path
from urbandelta.training.recurrence import input_gates, recur
from urbandelta.training.settings import BatchNormMode

PADDING = -1.0
MOMENTUM = 0.01
"""Share of a new batch in the moving statistics: Keras' momentum of 0.99."""
TWICE = 1 - (1 - MOMENTUM) ** 2
"""The same after two updates with one batch, which the published per-frame blocks do: 0.0199."""


@dataclass(frozen=True)
class TensorBatch:
    """A `samples.Batch` as tensors; the same meaning.

    `shown` (B, T) are the steps with an image, where these are more than the steps to process: the published masking
    rule skips some.
    """

    frames: Mapping[Path, Tensor]
    index: Mapping[Path, Tensor]
    valid: Tensor
    truth: Tensor
    shown: Tensor | None = None

    def to(self, device: torch.device | str) -> TensorBatch:
        """The batch on another device."""
        return TensorBatch(
            {path: item.to(device, non_blocking=True) for path, item in self.frames.items()},
            {path: item.to(device, non_blocking=True) for path, item in self.index.items()},
            self.valid.to(device, non_blocking=True),
            self.truth.to(device, non_blocking=True),
            None if self.shown is None else self.shown.to(device, non_blocking=True),
        )


class _CountedNorm(torch.autograd.Function):
    """Batch norm in which image n counts `count[n]` times; returns the output, the mean and the variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, count: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        share = count / (count.sum() * x.shape[2] * x.shape[3])  # (N,)
        wide = share[:, None].double()
        # Sums in float64 over images: thousands of images, and a variance from a difference would lose its digits.
        mean = (x.sum((2, 3)).double() * wide).sum(0).to(x.dtype)  # (F,)
        centred = x - mean[:, None, None]
        variance = (centred.square().sum((2, 3)).double() * wide).sum(0).to(x.dtype)
        inverse = (variance + epsilon).rsqrt()
        ctx.save_for_backward(x, weight, share, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return centred.mul_((inverse * weight)[:, None, None]).add_(bias[:, None, None]), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, share, mean, inverse = ctx.saved_tensors
        d_y = upstream[0]
        normal = (x - mean[:, None, None]).mul_(inverse[:, None, None])
        d_bias = d_y.sum((2, 3)).double().sum(0).to(x.dtype)
        d_weight = (d_y * normal).sum((2, 3)).double().sum(0).to(x.dtype)
        spread = normal.mul_(d_weight[:, None, None]).add_(d_bias[:, None, None]).mul_(share[:, None, None, None])
        d_x = (d_y - spread).mul_((inverse * weight)[:, None, None])
        return d_x, d_weight, d_bias, None, None


def _normal(norm: nn.BatchNorm2d, x: Tensor, count: Tensor | None, momentum: float) -> Tensor:
    """Batch norm of (N, F, H, W); in training with moving statistics updated, else by these."""
    if not norm.training or count is None:
        return nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, momentum, norm.eps
        )
    y, mean, variance = _CountedNorm.apply(x, norm.weight, norm.bias, count, norm.eps)  # type: ignore[no-untyped-call]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    elements = count.sum() * x.shape[2] * x.shape[3]
    with torch.no_grad():
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_((variance * elements / (elements - 1)).to(norm.running_var.dtype), momentum)
    normalised: Tensor = y
    return normalised


def _block(block: Block, x: Tensor, count: Tensor | None, momentum: float) -> Tensor:
    return torch.relu_(_normal(block.bn, block.conv(x), count, momentum))


def _encode(path: SensorPath, frames: Tensor, count: Tensor | None, momentum: float) -> Tensor:
    for number in range(1, path.blocks + 1):
        block = path.get_submodule(f"block{number}")
        assert isinstance(block, Block)
        frames = _block(block, frames, count, momentum)
    return frames


def _head(head: Head, merged: Tensor, momentum: float) -> Tensor:
    x = _block(head.block2, _block(head.block1, merged, None, momentum), None, momentum)
    scores: Tensor = head.output(x)
    return scores[:, 0]


def _counted(frames: Tensor, index: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Frames with the padding image at their end, and how often each is shown (N + 1,)."""
    padding = frames.new_full((1, *frames.shape[1:]), PADDING)
    count = torch.bincount(index[shown], minlength=len(frames) + 1).to(torch.float32)
    count[-1] = (~shown).sum()
    return torch.cat([frames, padding]), count


def logits(
    network: Network,
    batch: TensorBatch,
    *,
    batch_norm: BatchNormMode = "images",
    momentum: float = MOMENTUM,
    dropout: float = 0.0,
) -> Tensor:
    """Scores before the sigmoid (B, H, W).

    Parameters
    ----------
    network : Network
        In training mode batch norm uses the batch and updates its moving statistics, else these are used.
    batch : TensorBatch
        Without NaN in `frames`.
    batch_norm : str
        `images` or `published`, see the module.
    momentum : float
        Share of this batch in the moving statistics; `published` has its own.
    dropout : float
        Recurrent dropout, in training only.
    """
    states = []
    published = batch_norm == "published" and network.training
    for name in network.config.paths:
        path, frames, index = network.path(name), batch.frames[name], batch.index[name]
        count = None
        if published:
            frames, count = _counted(frames, index, batch.valid if batch.shown is None else batch.shown)
        encoded = _encode(path, frames, count, TWICE if published else momentum)  # (N, F, H, W)
        gates = input_gates(path.lstm.input, encoded[: len(batch.frames[name])])  # (N, 4 F, H, W)
        states.append(
            recur(
                gates,
                path.lstm.recurrent.weight,
                index,
                batch.valid,
                dropout=dropout if network.training else 0.0,
                overwrite=True,
            )
        )
    return _head(network.head, torch.cat(states, dim=1), MOMENTUM if published else momentum)
