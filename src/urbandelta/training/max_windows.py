"""The loss on the maximum over several windows, with gradients worked out window by window.

Autograd over the stacked windows keeps all of them in memory: the published recipe asks for eight GPUs with 320 GB.
But a pixel's maximum comes from one window, so the loss reaches the network through that window alone. A first pass
without gradients finds the maximum and which window gave it; the loss is differentiated with respect to the maximum;
then each window that gave any pixel is scored again, with gradients, and handed its share. The sum is the same, and
memory is that of one window.

References
----------
.. [1] Zitzlsberger et al., International Journal of Remote Sensing (2023), doi:10.1080/01431161.2023.2243021
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ScoreWindow: TypeAlias = Callable[[int], Tensor]
"""Scores (b, H, W) of the samples that have window number k; the same whenever it is asked, dropout included."""


def maximum_over(score: ScoreWindow, rows: Sequence[Tensor], samples: int) -> tuple[Tensor, Tensor]:
    """Highest score of every pixel over the windows, and the window that gave it.

    Parameters
    ----------
    score : callable
    rows : sequence of Tensor of int64, shape (b,)
        For each window, which samples have it; every sample must have one at least.
    samples : int
        B.

    Returns
    -------
    maximum : Tensor, shape (B, H, W)
    winner : Tensor of int64, shape (B, H, W)
        Of windows with equal scores the first wins, and takes all of the gradient: as `torch.max` over a dimension
        does, while `torch.amax` would share it out.
    """
    maximum = winner = torch.empty(0)
    for number, mine in enumerate(rows):
        scores = score(number)
        if not number:
            maximum = scores.new_full((samples, *scores.shape[1:]), -torch.inf)
            winner = torch.full(maximum.shape, -1, dtype=torch.int64, device=scores.device)
        higher = scores > maximum[mine]
        maximum[mine] = torch.where(higher, scores, maximum[mine])
        winner[mine] = torch.where(higher, number, winner[mine])
    return maximum, winner


def window_gradients(
    score: ScoreWindow,
    rows: Sequence[Tensor],
    samples: int,
    loss: Callable[[Tensor], Tensor],
    network: nn.Module,
    parameters: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The loss of the maximum over the windows, and its gradients.

    Batch norm in training takes its statistics from each window's batch, in both passes alike; its moving statistics
    are updated once for each window, by the first pass.

    Parameters
    ----------
    score, rows, samples
        As in `maximum_over`.
    loss : callable
        From the maximum (B, H, W) to a scalar.
    network : Module
        Whose moving statistics the second pass must leave alone.
    parameters : sequence of Tensor

    Returns
    -------
    loss : Tensor, scalar
    gradients : list of Tensor
        In the order of `parameters`.
    """
    with torch.no_grad():
        maximum, winner = maximum_over(score, rows, samples)
    with torch.enable_grad():
        leaf = maximum.detach().requires_grad_()
        value = loss(leaf)
    (slope,) = torch.autograd.grad(value, leaf)
    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    with _kept_buffers(network):
        for number, mine in enumerate(rows):
            share = torch.where(winner[mine] == number, slope[mine], 0)
            if not share.any():
                continue
            with torch.enable_grad():
                scores = score(number)
            found = torch.autograd.grad(scores, list(parameters), grad_outputs=share, allow_unused=True)
            del scores
            for total, gradient in zip(gradients, found, strict=True):
                if gradient is not None:
                    total += gradient
    return value.detach(), gradients


@contextmanager
def _kept_buffers(network: nn.Module) -> Iterator[None]:
    """Moving statistics as they were, whatever is computed meanwhile."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in zip(network.buffers(), before, strict=True):
                buffer.copy_(kept)


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *rest: Tensor) -> Tensor:
        ctx.save_for_backward(*rest[count:])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return (None, None, *(upstream[0] * gradient for gradient in gradients), *(None for _ in gradients))


def with_gradients(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A loss whose backward hands the parameters these gradients.

    So the optimiser, clipping and the averaging over processes stay those of any training.
    """
    given: Tensor = _Given.apply(value, len(parameters), *parameters, *gradients)  # type: ignore[no-untyped-call]
    return given
