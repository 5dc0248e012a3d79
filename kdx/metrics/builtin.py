"""The metrics that every run measures."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdx.metrics import calibration, functional
from kdx.metrics.base import EvaluationMetric, ExampleMetric, PredictionBatch
from kdx.metrics.topk import TopK


class Accuracy(ExampleMetric):
    """Share of examples whose likeliest class is the label."""

    higher_is_better, needs_label = True, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return 1 where the likeliest class is the label, else 0 [B]."""
        return functional.accuracy(batch.predicted, batch.label)


class NegativeLogLikelihood(ExampleMetric):
    """Negative log-likelihood of the label in nats."""

    higher_is_better, needs_label = False, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return -log p of the label [B]."""
        return functional.nll(batch.log_probs, batch.label)


class BrierScore(ExampleMetric):
    """Squared distance of probabilities and one-hot label in [0,2] (Brier 1950)."""

    higher_is_better, needs_label = False, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return the squared distance [B]."""
        return functional.brier(batch.probs, batch.label)


class PredictiveEntropy(ExampleMetric):
    """Entropy of the prediction in nats, in [0, log K]."""

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return the entropy [B]."""
        return functional.entropy(batch.log_probs, batch.probs)


class CalibrationError(EvaluationMetric):
    """Expected calibration error over equal-width bins of confidence (Guo et al. 2017, arXiv:1706.04599)."""

    higher_is_better, needs_label = False, True

    def __init__(self, num_bins: int = 15) -> None:
        self.num_bins = num_bins

    def sums(self, batch: PredictionBatch) -> Tensor:
        """Return per bin how many examples, their confidence, how many are right [3,num_bins]."""
        return calibration.bins(batch.confidence, batch.predicted == batch.label, self.num_bins)

    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        """Return the error []."""
        return calibration.expected_calibration_error(sums)


class TeacherAgreement(ExampleMetric):
    """Share of examples for which student and teacher predict the same class."""

    higher_is_better, needs_teacher = True, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return 1 where both predict the same class, else 0 [B]."""
        return functional.agreement(batch.predicted, batch.teacher_predicted)


class TeacherDivergence(ExampleMetric):
    """KL(teacher || student) in nats, at temperature 1."""

    higher_is_better, needs_teacher = False, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return the divergence [B]."""
        return functional.kl(batch.log_probs, batch.teacher_log_probs, batch.teacher_probs)


BUILT_IN: Mapping[str, EvaluationMetric] = {
    "accuracy": Accuracy(),
    "top5": TopK(5),
    "nll": NegativeLogLikelihood(),
    "brier": BrierScore(),
    "entropy": PredictiveEntropy(),
    "ece": CalibrationError(),
    "agreement": TeacherAgreement(),
    "kl": TeacherDivergence(),
}
