"""The ConvLSTM over whole windows for training: one autograd node with bounded memory.

Autograd on its own keeps some fifteen images a step. This node keeps the states h and c of every step, and works out
the gates a second time on the way back; the input half of the gates comes in once for each distinct image, and so does
its gradient. Shapes: B windows, T steps, N distinct images, F filters, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from urbandelta.network import GATES, KERNEL

_PADDING = KERNEL // 2
_SPAN = [_PADDING, _PADDING]
_IMAGES = 32


def _convolve(h: Tensor, kernel: Tensor, groups: int) -> Tensor:
    return functional.conv2d(h, kernel, None, padding=_PADDING, groups=groups)


def _activate(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gates i, f, g, o of their sums (B, 4 F, H, W), which is overwritten."""
    i, f, g, o = z.chunk(GATES, dim=1)
    for gate in (i, f, o):
        gate.mul_(0.2).add_(0.5).clamp_(0.0, 1.0)
    return i, f, g.tanh_(), o


def _dropped(h: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """What the recurrent convolution sees: h, or four copies of it, each with a mask of its own (B, 4 F, H, W)."""
    return h if mask is None else h.repeat(1, GATES, 1, 1).mul_(mask).mul_(scale)


class _ByImages(torch.autograd.Function):
    """A convolution of many images, some at a time: at once, both ways take a copy of all of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        out = x.new_empty(len(x), len(kernel), *x.shape[2:])
        for part, place in zip(torch.split(x, _IMAGES), torch.split(out, _IMAGES), strict=True):
            place.copy_(functional.conv2d(part, kernel, bias, padding=_PADDING))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, kernel = ctx.saved_tensors
        d_x, d_kernel, d_bias = torch.empty_like(x), torch.zeros_like(kernel), kernel.new_zeros(len(kernel))
        parts = [torch.split(images, _IMAGES) for images in (x, upstream[0], d_x)]
        for part, d_out, place in zip(*parts, strict=True):
            here, d_kernel_here, d_bias_here = torch.ops.aten.convolution_backward(
                d_out, part, kernel, [len(kernel)], [1, 1], _SPAN, [1, 1], False, [0, 0], 1, [True, True, True]
            )
            place.copy_(here)
            d_kernel += d_kernel_here
            d_bias += d_bias_here
        return d_x, d_kernel, d_bias


def input_gates(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """Input half of the gates (N, 4 F, H, W) of encoded images (N, F, H, W)."""
    if torch.is_autocast_enabled(images.device.type):
        gates: Tensor = convolution(images)
    else:
        gates = _ByImages.apply(images, convolution.weight, convolution.bias)  # type: ignore[no-untyped-call]
    return gates


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, kernel: Tensor, index: Tensor, valid: Tensor, dropout: float, overwrite: bool
    ) -> Tensor:
        (B, T), (_, _, H, W) = index.shape, gates.shape
        F = kernel.shape[1]
        # Under autocast the convolutions run in its type.
        reduced = torch.get_autocast_dtype(gates.device.type) if torch.is_autocast_enabled(gates.device.type) else None
        # Without gradients two slots are enough, by turns.
        slots = T + 1 if any(ctx.needs_input_grad) else 2
        states = gates.new_zeros(2, slots, B, F, H, W)
        masks = None
        if dropout:
            masks = torch.empty(T, B, GATES * F, H, W, dtype=torch.bool, device=gates.device)
            for mask in masks:  # step by step: random numbers are four times a mask's bytes
                mask.copy_(torch.rand(mask.shape, device=gates.device) >= dropout)
        groups, scale = (GATES, 1 / (1 - dropout)) if dropout else (1, 1.0)
        with torch.autocast(gates.device.type, enabled=False):
            used = kernel if reduced is None else kernel.to(reduced)
            every = valid.all(dim=0).tolist()
            for t in range(T):
                h, c = states[:, t % slots]
                z = gates[index[:, t]]
                seen = _dropped(h, None if masks is None else masks[t], scale)
                z += _convolve(seen.to(used.dtype), used, groups)
                i, f, g, o = _activate(z)
                new_h, new_c = states[:, (t + 1) % slots]
                torch.mul(f, c, out=new_c)
                new_c.addcmul_(i, g)
                torch.tanh(new_c, out=new_h)
                new_h.mul_(o)
                if not every[t]:
                    skip = ~valid[:, t]
                    new_h[skip], new_c[skip] = h[skip], c[skip]
        ctx.save_for_backward(gates, used, index, valid, states, *(() if masks is None else (masks,)))
        ctx.groups, ctx.scale, ctx.kernel_dtype, ctx.overwrite = groups, scale, kernel.dtype, overwrite
        last: Tensor = states[0, T % slots].clone()
        return last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        gates, kernel, index, valid, states, *rest = ctx.saved_tensors
        masks = rest[0] if rest else None
        T = index.shape[1]
        every = valid.all(dim=0).tolist()
        sums = _RunSums(gates, index) if ctx.overwrite and _one_run_each(index) else _ImageSums(gates)
        d_kernel = torch.zeros_like(kernel, dtype=ctx.kernel_dtype)
        d_h = upstream[0].to(gates.dtype).contiguous()
        d_c = torch.zeros_like(d_h)
        with torch.autocast(gates.device.type, enabled=False):
            for t in reversed(range(T)):
                h, c = states[:, t]
                mask = None if masks is None else masks[t]
                seen = _dropped(h, mask, ctx.scale).to(kernel.dtype)
                z = gates[index[:, t]]
                z += _convolve(seen, kernel, ctx.groups)
                # Slopes of the clipped gates, taken before they are activated in place.
                slope = _inside(z)
                i, f, g, o = _activate(z)
                squashed = torch.tanh(states[1, t + 1])
                if not every[t]:
                    skip = ~valid[:, t]
                    kept_h, kept_c = d_h[skip], d_c[skip]
                d_c = d_c + d_h * o * (1 - squashed**2)
                d_z = torch.empty_like(z)
                d_i, d_f, d_g, d_o = d_z.chunk(GATES, dim=1)
                torch.mul(d_c, g, out=d_i)
                torch.mul(d_c, c, out=d_f)
                torch.mul(d_c, i, out=d_g)
                torch.mul(d_h, squashed, out=d_o)
                d_g *= 1 - g**2
                d_z *= slope
                d_c = d_c * f
                if not every[t]:
                    d_z[skip] = 0
                sums.add(index, t, d_z)
                d_seen, d_here, _ = torch.ops.aten.convolution_backward(
                    d_z.to(kernel.dtype), seen, kernel, None, [1, 1], _SPAN, [1, 1], False, [0, 0], ctx.groups,
                    [True, True, False],
                )  # fmt: skip
                d_kernel += d_here
                if mask is None:
                    d_h = d_seen.to(gates.dtype)
                else:
                    d_h = (d_seen * mask).unflatten(1, (GATES, -1)).sum(1).to(gates.dtype).mul_(ctx.scale)
                if not every[t]:
                    d_h[skip], d_c[skip] = kept_h, kept_c
        return sums.gradient(), d_kernel, None, None, None, None


def _one_run_each(index: Tensor) -> bool:
    """Whether every image is shown by one window only, and there at steps that follow each other."""
    starts = torch.ones_like(index, dtype=torch.bool)
    starts[:, 1:] = index[:, 1:] != index[:, :-1]
    return int(starts.sum()) == len(torch.bincount(index.flatten()).nonzero())


class _ImageSums:
    """Gradient of the gates of every image, beside the gates."""

    def __init__(self, gates: Tensor) -> None:
        self._sums = torch.zeros_like(gates)

    def add(self, index: Tensor, t: int, d_z: Tensor) -> None:
        """Add the share of step t (B, 4 F, H, W)."""
        self._sums.index_add_(0, index[:, t], d_z)

    def gradient(self) -> Tensor:
        """(N, 4 F, H, W)."""
        return self._sums


class _RunSums:
    """The same where each image has one run of steps: at its end the gradient takes the place of the gates."""

    def __init__(self, gates: Tensor, index: Tensor) -> None:
        self._gates = gates
        self._sums = gates.new_zeros(len(index), *gates.shape[1:])
        self._shown = torch.zeros(len(gates), dtype=torch.bool, device=gates.device)
        self._shown[index.flatten()] = True

    def add(self, index: Tensor, t: int, d_z: Tensor) -> None:
        """Add the share of step t (B, 4 F, H, W); steps come from the last to the first."""
        self._sums += d_z
        over = index[:, t] != index[:, t - 1] if t else torch.ones_like(index[:, t], dtype=torch.bool)
        if over.any():
            self._gates[index[over, t]] = self._sums[over]
            self._sums[over] = 0

    def gradient(self) -> Tensor:
        """(N, 4 F, H, W)."""
        if not self._shown.all():
            self._gates[~self._shown] = 0
        return self._gates


def _followed(index: Tensor, valid: Tensor) -> Tensor:
    """`index` with the image of the step before where a step is not processed; of the first processed one at first."""
    steps = torch.arange(index.shape[1], device=index.device).expand_as(index)
    last = torch.where(valid, steps, -1).cummax(dim=1).values
    first = torch.where(valid, steps, index.shape[1] - 1).min(dim=1, keepdim=True).values
    return index.gather(1, torch.where(last >= 0, last, first))


def _inside(z: Tensor) -> Tensor:
    """Derivative of the hard sigmoid of i, f and o; 1 at g, whose own is of its value."""
    F = z.shape[1] // GATES
    slope = ((z > -2.5) & (z < 2.5)).to(z.dtype).mul_(0.2)
    slope[:, 2 * F : 3 * F] = 1
    return slope


def recur(
    gates: Tensor, kernel: Tensor, index: Tensor, valid: Tensor, *, dropout: float = 0.0, overwrite: bool = False
) -> Tensor:
    """Last hidden states of a ConvLSTM.

    Parameters
    ----------
    gates : Tensor, shape (N, 4 F, H, W)
        Input half of the gates, bias included, of every distinct image.
    kernel : Tensor, shape (4 F, F, 3, 3)
        Recurrent kernel.
    index : Tensor of int64, shape (B, T)
        The image that a step shows.
    valid : Tensor of bool, shape (B, T)
        Steps to process; the others keep both states.
    dropout : float
        Share of h that the recurrent convolution does not see: four masks, one a gate, new at every step and element,
        the rest scaled by 1 / (1 - dropout). From torch's global generator.
    overwrite : bool
        Let the way back put the gradient in the place of `gates`, which nothing else may need then, nor a second way
        back. Saves as much memory as they take.

    Returns
    -------
    Tensor, shape (B, F, H, W)
    """
    # Under autocast gates come in its type; the states, sums over many steps, are in that of the kernel.
    gates = gates.to(kernel.dtype).contiguous()
    last: Tensor = _Recurrence.apply(gates, kernel, _followed(index, valid), valid, dropout, overwrite)  # type: ignore[no-untyped-call]
    return last
