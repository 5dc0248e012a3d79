"""The base classes of all metrics, built-in or from outside the repository."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor


class Prediction:
    """Log-probabilities [B,K] of one network, and what many metrics derive from them, computed once for all of them."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs

    @classmethod
    def of(cls, logits: Tensor) -> Prediction:
        """Return the prediction of logits [B,K], in float64 and with a single exponential for each."""
        largest, label = logits.max(-1)
        shifted = logits.to(torch.float64) - largest[:, None]
        powers = shifted.exp()
        total = powers.sum(-1, keepdim=True)
        log_total = total.log()
        prediction = cls(shifted.sub_(log_total))
        prediction.probs, prediction.likeliest = powers.div_(total), (-log_total[:, 0], label)
        return prediction

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities [B,K]."""
        return self.log_probs.exp()

    @cached_property
    def likeliest(self) -> tuple[Tensor, Tensor]:
        """The largest log-probability [B], and its class, int64 [B]; the first one of equals."""
        largest, label = self.log_probs.max(-1)
        return largest, label


class PredictionBatch:
    """What one network predicts for one batch, as a metric reads it: float64, at temperature 1.

    Args:
        student: log-probabilities [B,K]; those of the student where a metric compares it with its teacher.
        label: int64 [B]; None without labels.
        teacher: log-probabilities [B,K] of the teacher, or of the mean of the peers; None without either.
    """

    def __init__(
        self, student: Tensor | Prediction, label: Tensor | None = None, teacher: Tensor | Prediction | None = None
    ) -> None:
        self._student = student if isinstance(student, Prediction) else Prediction(student)
        self._teacher = Prediction(teacher) if isinstance(teacher, Tensor) else teacher
        self._label = label

    def __len__(self) -> int:
        return len(self.log_probs)

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities [B,K]."""
        return self._student.log_probs

    @property
    def probs(self) -> Tensor:
        """Probabilities [B,K]."""
        return self._student.probs

    @property
    def confidence(self) -> Tensor:
        """The largest probability [B]."""
        return self._student.likeliest[0].exp()

    @property
    def predicted(self) -> Tensor:
        """The likeliest class, int64 [B]."""
        return self._student.likeliest[1]

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
        return self._teachers("teacher_log_probs").log_probs

    @property
    def teacher_probs(self) -> Tensor:
        """Probabilities [B,K] of the teacher; raises as `teacher_log_probs`."""
        return self._teachers("teacher_probs").probs

    @property
    def teacher_predicted(self) -> Tensor:
        """The teacher's likeliest class, int64 [B]; raises as `teacher_log_probs`."""
        return self._teachers("teacher_predicted").likeliest[1]

    def _teachers(self, name: str) -> Prediction:
        if self._teacher is None:
            raise ValueError(f"the metric reads `{name}` without declaring it: set `needs_teacher = True` in its class")
        return self._teacher

    def only_for(self, metric: EvaluationMetric) -> PredictionBatch:
        """The same without what `metric` does not declare that it needs."""
        label = self._label if metric.needs_label else None
        teacher = self._teacher if metric.needs_teacher else None
        return PredictionBatch(self._student, label, teacher)


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
                    wrong = (batch.predicted != batch.label).double()
                    return torch.stack([(batch.confidence * wrong).sum(), wrong.sum()])

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
                    return batch.confidence  # [B]

        In `conf/metrics/confidence.yaml`::

            confidence: {_target_: mine.Confidence}

        Then `kdx-train --config-dir=conf metrics=[confidence]` writes `val/student/confidence`, `test/teacher/confidence`, ...
    """

    @abstractmethod
    def per_example(self, batch: PredictionBatch) -> Tensor:
        """Return one value per example [B]; or one number [] for the batch, which then counts for each of its examples.

        A batch with thousands of classes comes in pieces, each a batch of its own.
        """

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
