"""How confident a network is where it is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.metrics.base import EvaluationMetric, PredictionBatch


class ConfidenceWhenWrong(EvaluationMetric):
    """Mean confidence of the wrong predictions, in [1/K,1]; NaN if none is wrong."""

    higher_is_better, needs_label = False, True

    def sums(self, batch: PredictionBatch) -> Tensor:
        """Return the confidence of the wrong predictions, and how many there are [2]."""
        wrong = (batch.predicted != batch.label).to(batch.confidence.dtype)
        return torch.stack([(batch.confidence * wrong).sum(), wrong.sum()])

    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        """Return the mean []."""
        return sums[0] / sums[1]
