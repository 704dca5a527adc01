"""Figures of a validation, in memory that does not grow with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAveragePrecision, BinaryF1Score
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, MeanSquaredLogError

from urbandelta.training.losses import inner

THRESHOLDS = 200
BINS = 15
CHANGE = 0.5
"""A pixel whose truth is above counts as changed; synthetic labels lie anywhere in 0..1."""


class CalibrationError(Metric):
    """Expected calibration error over equal bins: mean distance between score and share of change.

    torchmetrics' own keeps every score.
    """

    full_state_update = False
    scores: Tensor
    changed: Tensor
    counts: Tensor

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        for name in ("scores", "changed", "counts"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, changed: Tensor) -> None:
        """Add scores 0..1 and whether each pixel changed."""
        place = (scores * self.bins).long().clamp(0, self.bins - 1)
        self.scores.index_add_(0, place, scores.double())
        self.changed.index_add_(0, place, changed.double())
        self.counts += torch.bincount(place, minlength=self.bins)

    def compute(self) -> Tensor:
        """Weighted mean over bins, 0..1."""
        error = (self.scores - self.changed).abs().sum() / self.counts.sum().clamp(min=1)
        return error.float()


class ValidationMetrics(torch.nn.Module):
    """MAE, RMSE and MSLE against the truth as it is; F1, PR-AUC and calibration error against change or none."""

    def __init__(self) -> None:
        super().__init__()
        self.against_truth = MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
                "msle": MeanSquaredLogError(),
            }
        )
        self.against_change = MetricCollection(
            {
                "f1": BinaryF1Score(),
                "pr_auc": BinaryAveragePrecision(thresholds=THRESHOLDS),
                "calibration_error": CalibrationError(),
            }
        )

    def update(self, truth: Tensor, scores: Tensor) -> None:
        """Add truth and scores (B, H, W), without the border; pixels of unknown truth are left out."""
        truth, scores = inner(truth), inner(scores.float())
        known = ~truth.isnan()
        truth, scores = truth[known], scores[known]
        if truth.numel():
            self.against_truth.update(scores, truth)
            self.against_change.update(scores, (truth > CHANGE).long())

    def compute(self) -> dict[str, Tensor]:
        """All figures by name."""
        return {**self.against_truth.compute(), **self.against_change.compute()}

    def reset(self) -> None:
        """Forget everything."""
        self.against_truth.reset()
        self.against_change.reset()
