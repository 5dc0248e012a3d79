"""The base classes of all metrics, built-in or from outside the repository."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor


class PredictionBatch:
    """What one network predicts for one batch, as a metric reads it: float64, at temperature 1.

    Args:
        log_probs: log-probabilities [B,K]; those of the student where a metric compares it with its teacher.
        label: int64 [B]; None without labels.
        teacher_log_probs: log-probabilities [B,K] of the teacher, or of the mean of the peers; None without either.
    """

    def __init__(self, log_probs: Tensor, label: Tensor | None = None, teacher_log_probs: Tensor | None = None) -> None:
        self.log_probs, self._label, self._teacher_log_probs = log_probs, label, teacher_log_probs

    def __len__(self) -> int:
        return len(self.log_probs)

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities [B,K]."""
        return self.log_probs.exp()

    @property
    def label(self) -> Tensor:
        """Labels, int64 [B].

        Raises:
            ValueError: The metric does not declare that it needs them.
        """
        if self._label is None:
            raise ValueError("the metric reads `label` without declaring it: set `needs_label = True` in its class")
        return self._label

    @property
    def teacher_log_probs(self) -> Tensor:
        """Log-probabilities [B,K] of the teacher.

        Raises:
            ValueError: The metric does not declare that it needs them.
        """
        if self._teacher_log_probs is None:
            text = "the metric reads `teacher_log_probs` without declaring it: set `needs_teacher = True` in its class"
            raise ValueError(text)
        return self._teacher_log_probs

    def only_for(self, metric: EvaluationMetric) -> PredictionBatch:
        """The same without what `metric` does not declare that it needs."""
        label = self._label if metric.needs_label else None
        teacher = self._teacher_log_probs if metric.needs_teacher else None
        return PredictionBatch(self.log_probs, label, teacher)


class EvaluationMetric(ABC):
    """One number about a split, from sums of a fixed size: `sums` of each batch are added over batches and ranks.

    Derive from `ExampleMetric` if the number is a mean over examples; from this class if it is not, as for a calibration error
    or the mean over some of the examples. A metric holds no state: the sums are kept, added and reset for it.

    Attributes:
        higher_is_better: True or False; None if neither is better. kdx-compare reads it from metrics.json.
        needs_label: Without labels the metric is left out if it is built in, and refused if it was asked for.
        needs_teacher: It compares student and teacher, `val/NAME`; else it is about one network, `val/student/NAME`,
            `val/teacher/NAME`. Without a teacher and without peers it is left out.
        min_classes: With fewer classes the metric is left out if it is built in, and refused if it was asked for.

    Example:
        The mean confidence of the predictions that are wrong, in a file `mine.py`::

            class ConfidenceWhenWrong(EvaluationMetric):
                higher_is_better, needs_label = False, True

                def sums(self, batch):
                    confidence, predicted = batch.probs.max(-1)
                    wrong = (predicted != batch.label).double()
                    return torch.stack([(confidence * wrong).sum(), wrong.sum()])

                def result(self, sums, count):
                    return sums[0] / sums[1]
    """

    higher_is_better: bool | None = None
    needs_label: bool = False
    needs_teacher: bool = False
    min_classes: int = 2

    @abstractmethod
    def sums(self, batch: PredictionBatch) -> Tensor:
        """Return the sums over a batch, of the same shape for every batch."""

    @abstractmethod
    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        """Return the number [] from the sums over all batches and the `count` [] of examples; NaN where it does not exist."""


class ExampleMetric(EvaluationMetric):
    """The mean over all examples of a value per example; exact for any batch size and any number of ranks.

    Example:
        A complete metric from outside the repository. In a file `mine.py`::

            from kdx.metrics.base import ExampleMetric

            class Confidence(ExampleMetric):
                higher_is_better = None  # or True, or False

                def per_example(self, batch):
                    return batch.probs.max(-1).values  # [B]

        In `conf/metrics/confidence.yaml`::

            confidence: {_target_: mine.Confidence}

        Then `kdx-train --config-dir=conf metrics=[confidence]` writes `val/student/confidence`, `test/teacher/confidence`, ...
    """

    @abstractmethod
    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return one value per example [B]; or one number [] for the batch, which then counts for each of its examples."""

    def sums(self, batch: PredictionBatch) -> Tensor:
        """Return the sum [] of the values.

        Raises:
            ValueError: `per_example` returned another shape.
        """
        values = torch.as_tensor(self.per_example(batch)).to(batch.log_probs.dtype)
        if values.ndim == 0:
            return values * len(batch)
        if values.shape != (len(batch),):
            raise ValueError(
                f"returned shape {list(values.shape)}; expected [{len(batch)}] (one value per example) or a number: "
                "change what `per_example` returns"
            )
        return values.sum()

    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        """Return the mean []."""
        return sums / count
