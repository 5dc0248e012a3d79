"""Top-k accuracy."""

from __future__ import annotations

from torch import Tensor

from kdx.metrics import functional
from kdx.metrics.base import ExampleMetric, PredictionBatch
from kdx.ranges import Count, validated


@validated
class TopK(ExampleMetric):
    """Share of examples whose label is among the `k` likeliest classes; there must be more than `k` classes."""

    higher_is_better, needs_label = True, True

    def __init__(self, k: Count) -> None:
        self.k, self.min_classes = k, k + 1

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return 1 where the label is among the k likeliest classes, else 0 [B]."""
        return functional.topk(batch.log_probs, batch.label, self.k)
