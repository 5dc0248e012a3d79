"""Metrics of one network over one split, including its calibration and reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kdx.metrics import calibration, classwise
from kdx.metrics.base import EvaluationMetric, PredictionBatch
from kdx.metrics.selection import CALIBRATION, applicable
from kdx.metrics.table import MetricTable

NUM_BINS = 15


class AssessmentResult(NamedTuple):
    """The numbers of a network on a split; a number that does not exist is NaN.

    `diagram` [3,NUM_BINS]: per equal-width bin of confidence how many examples, the sum of their confidence, and how many
    are right. `per_class` [3,K]: the same per label. Both are None without labels.
    """

    numbers: dict[str, float]
    diagram: Tensor | None
    per_class: Tensor | None


class Assessment(Metric):
    """Collects logits and computes AssessmentResult: all metrics of one network that the suite has, and CALIBRATION.

    The parts of the Brier score; ece_by_chance (that of perfect calibration), ece_mass (equal-mass bins), ece_classwise, mce,
    rms_ce; auroc of the confidence. All but ece_mass and auroc come from float64 sums of fixed size; those two need every
    confidence: 16 bytes an example. Exact over ranks as long as every example is seen once.

    Args:
        num_classes: K.
        added: Metrics beside the built-in ones, by name; those that compare with a teacher are left out.
        labels: Whether there are labels; without them, metrics that need them are left out.
    """

    full_state_update = False
    higher_is_better = None
    total: Tensor
    class_bins: Tensor
    per_class: Tensor
    count: Tensor
    seen: list[Tensor]

    def __init__(self, num_classes: int, added: Mapping[str, EvaluationMetric] | None = None, *, labels: bool = True) -> None:
        super().__init__()
        self.num_classes, self.labels = num_classes, labels
        self.table = MetricTable(applicable(added, num_classes, labels=labels, teacher=False), num_classes)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        self.add_state("total", zeros(self.table.size), dist_reduce_fx="sum")
        self.add_state("count", zeros(), dist_reduce_fx="sum")
        self.add_state("class_bins", zeros(5, num_classes if labels else 0, NUM_BINS), dist_reduce_fx="sum")
        self.add_state("per_class", zeros(3, num_classes if labels else 0), dist_reduce_fx="sum")
        self.add_state("seen", [], dist_reduce_fx="cat")  # [B,2]: confidence, and whether it is right

    def update(self, logits: Tensor, label: Tensor | None = None) -> None:
        """Add a batch of logits [B,K], read at temperature 1, with labels [B].

        Raises:
            ValueError: The shapes do not fit, or a metric returns the wrong shape.
        """
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(f"logits have shape {list(logits.shape)}; expected [B,{self.num_classes}]: give a row per example")
        if self.labels and (label is None or label.shape != logits.shape[:1]):
            shape = "missing" if label is None else f"of shape {list(label.shape)}"
            raise ValueError(f"labels are {shape}; expected [{len(logits)}]: give one per row of logits, or labels=False")
        log_probs = torch.log_softmax(logits.to(torch.float64), -1)
        batch = PredictionBatch(log_probs, label if self.labels else None)
        self.total += self.table.sums(batch)
        self.count += len(logits)
        if not self.labels:
            return
        assert label is not None
        confidence, correct = batch.confidence, (batch.predicted == label).to(torch.float64)
        self.class_bins += classwise.class_bins(log_probs, label, NUM_BINS)
        self.per_class.index_add_(1, label, torch.stack([torch.ones_like(confidence), confidence, correct]))
        self.seen.append(torch.stack([confidence, correct], -1))

    def compute(self) -> AssessmentResult:
        """Return the numbers over everything that was added, on all ranks."""
        total = self.total.cpu()
        numbers = self.table.results(total, self.count.cpu())
        if not self.labels:
            return AssessmentResult(numbers, None, None)
        bins = self.table.split(total)["ece"]
        return AssessmentResult(numbers | self._calibration(bins), bins, self.per_class)

    def _calibration(self, bins: Tensor) -> dict[str, float]:
        seen: Tensor = dim_zero_cat(self.seen) if len(self.seen) else self.total.new_zeros(0, 2)
        confidence, correct = seen.unbind(-1)
        equal_mass = calibration.equal_mass_bins(confidence, correct, NUM_BINS)
        values = {
            **{f"brier_{name}": part for name, part in classwise.brier_parts(self.class_bins).items()},
            "ece_by_chance": calibration.error_by_chance(bins),
            "ece_mass": calibration.expected_calibration_error(equal_mass),
            "ece_classwise": classwise.classwise_calibration_error(self.class_bins),
            "mce": calibration.maximum_calibration_error(bins),
            "rms_ce": calibration.rms_calibration_error(bins),
            "auroc": calibration.auroc(confidence, correct),
        }
        return {name: values[name].item() for name in CALIBRATION}
