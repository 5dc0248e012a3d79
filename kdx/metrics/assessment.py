"""One network over one split, in depth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kdx.metrics import calibration, classwise, functional

# What labels give beside what the suite says too.
DEPTH = (
    *("brier_reliability", "brier_resolution", "brier_uncertainty", "brier_within"),
    *("ece", "ece_mass", "ece_classwise", "mce", "rms_ce", "auroc"),
)


class AssessmentResult(NamedTuple):
    """What is known of a network on a split.

    `diagram` [3,num_bins]: per equal-width bin of confidence how many examples, the sum of their confidence, and how many
    are right. `per_class` [3,K]: the same per label. Both are None without labels. A number that does not exist is NaN.
    """

    numbers: dict[str, float]
    diagram: Tensor | None
    per_class: Tensor | None


class Assessment(Metric):
    """Collects logits and computes AssessmentResult: all that the suite says of a network, and its calibration in depth.

    Numbers: accuracy, top5, nll, brier and its parts (brier_reliability, brier_resolution, brier_uncertainty, brier_within);
    entropy in nats; ece (equal-width bins), ece_mass (equal-mass), ece_classwise, mce, rms_ce; auroc of the confidence. All but
    ece_mass and auroc come from float64 sums of fixed size; those two need every confidence: 16 bytes an example. Exact over
    ranks as long as every example is seen once. Without labels there is only entropy.
    """

    full_state_update = False
    higher_is_better = None
    sums: Tensor
    bins: Tensor
    class_bins: Tensor
    per_class: Tensor
    count: Tensor
    seen: list[Tensor]

    def __init__(self, num_classes: int, *, labels: bool = True, num_bins: int = 15) -> None:
        super().__init__()
        self.num_classes, self.labels, self.num_bins = num_classes, labels, num_bins
        self.names = functional.names(num_classes, labels=labels)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        self.add_state("sums", zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("count", zeros(), dist_reduce_fx="sum")
        self.add_state("bins", zeros(3, num_bins), dist_reduce_fx="sum")
        self.add_state("class_bins", zeros(5, num_classes if labels else 0, num_bins), dist_reduce_fx="sum")
        self.add_state("per_class", zeros(3, num_classes if labels else 0), dist_reduce_fx="sum")
        self.add_state("seen", [], dist_reduce_fx="cat")  # [B,2]: confidence, and whether it is right

    def update(self, logits: Tensor, label: Tensor | None = None) -> None:
        """Add a batch of logits [B,K], read at temperature 1, with labels [B]. ValueError if the shapes do not fit."""
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(f"logits are [B,{self.num_classes}], got {list(logits.shape)}: give a row per example")
        if self.labels and (label is None or label.shape != logits.shape[:1]):
            found = "none" if label is None else str(list(label.shape))
            raise ValueError(
                f"labels are [{len(logits)}], one per row of logits, got {found}: give all of them, or labels=False"
            )
        log_probs = torch.log_softmax(logits.to(torch.float64), -1)
        self.sums += torch.stack(functional.measure(self.names, log_probs, label)).sum(-1)
        self.count += len(logits)
        if not self.labels:
            return
        assert label is not None
        confidence, predicted = log_probs.exp().max(-1)
        correct = (predicted == label).to(torch.float64)
        self.bins += calibration.bins(log_probs, label, self.num_bins)
        self.class_bins += classwise.class_bins(log_probs, label, self.num_bins)
        self.per_class.index_add_(1, label, torch.stack([torch.ones_like(confidence), confidence, correct]))
        self.seen.append(torch.stack([confidence, correct], -1))

    def compute(self) -> AssessmentResult:
        """What is known over everything that was added, on all ranks."""
        numbers = dict(zip(self.names, (self.sums / self.count).tolist(), strict=True))
        if not self.labels:
            return AssessmentResult(numbers, None, None)
        seen: Tensor = dim_zero_cat(self.seen) if len(self.seen) else self.sums.new_zeros(0, 2)
        confidence, correct = seen.unbind(-1)
        parts = classwise.brier_parts(self.class_bins)
        found = {
            **{f"brier_{name}": part for name, part in parts.items()},
            "ece": calibration.expected_calibration_error(self.bins),
            "ece_mass": calibration.expected_calibration_error(calibration.equal_mass_bins(confidence, correct, self.num_bins)),
            "ece_classwise": classwise.classwise_calibration_error(self.class_bins),
            "mce": calibration.maximum_calibration_error(self.bins),
            "rms_ce": calibration.rms_calibration_error(self.bins),
            "auroc": calibration.auroc(confidence, correct),
        }
        numbers |= {name: found[name].item() for name in DEPTH}
        return AssessmentResult(numbers, self.bins, self.per_class)
