"""Losses on tensors: the twin of `urbandelta.losses`, and a form that leaves out pixels of unknown truth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from urbandelta.losses import BORDER, SMOOTHING
from urbandelta.training.settings import LossName


def inner(images: Tensor) -> Tensor:
    """(B, H, W) without the border that no loss counts."""
    return images[:, BORDER:-BORDER, BORDER:-BORDER]


def _tanimoto(truth: Tensor, scores: Tensor, counted: Tensor, axes: tuple[int, ...]) -> Tensor:
    product = (counted * truth * scores).sum(axes)
    return product / ((counted * (truth**2 + scores**2)).sum(axes) - product + SMOOTHING)


def tanimoto_loss(truth: Tensor, scores: Tensor, *, per_sample: bool = False) -> Tensor:
    """Tanimoto with complement.

    Parameters
    ----------
    truth : Tensor, shape (B, H, W), 0..1
        NaN where a pixel does not count.
    scores : Tensor, shape (B, H, W), 0..1
    per_sample : bool
        Mean of the samples' losses in place of one loss over the batch.

    Returns
    -------
    Tensor, scalar
    """
    known = ~inner(truth).isnan()
    t, p, counted = inner(truth).nan_to_num(0.0), inner(scores), known.to(scores.dtype)
    axes = (1, 2) if per_sample else (0, 1, 2)
    both = _tanimoto(t, p, counted, axes) + _tanimoto(1 - t, 1 - p, counted, axes)
    return (1 - both / 2).mean()


def cross_entropy(truth: Tensor, logits: Tensor) -> Tensor:
    """Binary cross entropy, mean over the pixels that count; 0 where none does."""
    known = ~inner(truth).isnan()
    total = functional.binary_cross_entropy_with_logits(
        inner(logits), inner(truth).nan_to_num(0.0), weight=known.to(logits.dtype), reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def loss_of(name: LossName, truth: Tensor, logits: Tensor, *, per_sample: bool = False) -> Tensor:
    """The loss called `name` of scores before the sigmoid (B, H, W)."""
    loss = tanimoto_loss(truth, torch.sigmoid(logits), per_sample=per_sample)
    return loss + cross_entropy(truth, logits) if name == "tanimoto+bce" else loss
