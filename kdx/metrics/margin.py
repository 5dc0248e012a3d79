"""Margin of the true class."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.metrics.base import ExampleMetric, PredictionBatch


class Margin(ExampleMetric):
    """Mean probability of the true class minus the largest of any other class, in [-1,1]; below 0 where it is wrong."""

    higher_is_better, needs_label = True, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return the margin [B]."""
        label = batch.label[:, None]
        others = batch.probs.scatter(-1, label, -torch.inf)
        return batch.probs.gather(-1, label)[:, 0] - others.max(-1).values
