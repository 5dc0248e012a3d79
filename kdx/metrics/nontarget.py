"""How well the student knows what its teacher says of the wrong classes."""

from __future__ import annotations

from torch import Tensor

from kdx.metrics import functional
from kdx.metrics.base import ExampleMetric, PredictionBatch


class NonTargetKL(ExampleMetric):
    """KL(teacher || student) in nats over the classes that are not the label, renormalized: the non-target part of DKD.

    Reference:
        Zhao et al. 2022, Decoupled Knowledge Distillation, arXiv:2203.08679, eq. 6.
    """

    higher_is_better, needs_label, needs_teacher = False, True, True

    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return the divergence [B]."""
        student, teacher = (_others(z, batch.label) for z in (batch.log_probs, batch.teacher_log_probs))
        return functional.kl(student, teacher, teacher.exp())


def _others(log_probs: Tensor, label: Tensor) -> Tensor:
    """Log-probabilities [B,K-1] of the classes that are not the label, given that it is none of it."""
    size, num_classes = log_probs.shape
    keep = log_probs.new_ones(size, num_classes).scatter(-1, label[:, None], 0).bool()
    return log_probs[keep].view(size, num_classes - 1).log_softmax(-1)
