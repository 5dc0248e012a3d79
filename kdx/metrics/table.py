"""Named metrics whose sums share one flat vector, so that one tensor is all that is kept and added over ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdx.metrics.base import EvaluationMetric, PredictionBatch

TRIAL = 3  # examples; one more where there are as many classes, so that [B] and [K] differ


class MetricTable:
    """Named metrics and the places [S] of their sums. Every metric is tried out on a few made-up examples first.

    Args:
        metrics: By name.
        num_classes: K.

    Raises:
        ValueError: A metric fails, returns a wrong shape, or reads what it does not declare; the message begins with its name.
    """

    def __init__(self, metrics: Mapping[str, EvaluationMetric], num_classes: int) -> None:
        self.metrics = dict(metrics)
        trial = made_up(num_classes)
        self.shapes = {name: _try_out(name, metric, trial) for name, metric in self.metrics.items()}
        self.size = sum(shape.numel() for shape in self.shapes.values())

    def sums(self, batch: PredictionBatch) -> Tensor:
        """Return the sums [S] over a batch, float64.

        Raises:
            ValueError: A metric's sums have another shape than before; the message begins with its name.
        """
        parts = [batch.log_probs.new_zeros(0)]
        for name, metric in self.metrics.items():
            sums = _sums(name, metric, batch)
            if sums.shape != self.shapes[name]:
                raise ValueError(
                    f"metrics.{name}: sums have shape {list(sums.shape)}; expected {list(self.shapes[name])}, as for every "
                    "other batch: return sums whose shape does not depend on the batch"
                )
            parts.append(sums.to(batch.log_probs).flatten())
        return torch.cat(parts)

    def split(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the sums by metric, each in its own shape."""
        parts = sums.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def results(self, sums: Tensor, count: Tensor) -> dict[str, float]:
        """Return the numbers by name, from sums [S] and the count [] of examples."""
        return {name: _number(name, self.metrics[name].result(part, count)) for name, part in self.split(sums).items()}


def made_up(num_classes: int) -> PredictionBatch:
    """Return a few predictions of no meaning, without drawing random numbers."""
    size = TRIAL + (num_classes == TRIAL)
    logits = torch.arange(2 * size * num_classes, dtype=torch.float64).sin().view(2, size, num_classes)
    log_probs, teacher_log_probs = logits.log_softmax(-1)
    return PredictionBatch(log_probs, torch.arange(size) % num_classes, teacher_log_probs)


def _try_out(name: str, metric: EvaluationMetric, trial: PredictionBatch) -> torch.Size:
    """Return the shape of the metric's sums."""
    try:
        sums = _sums(name, metric, trial)
        _number(name, metric.result(sums.to(torch.float64), torch.tensor(float(len(trial)), dtype=torch.float64)))
    except ValueError:
        raise
    except Exception as error:  # of any kind, as the code is the user's
        raise ValueError(
            f"metrics.{name} failed on a trial batch of shape {list(trial.log_probs.shape)}: {type(error).__name__}: {error}; "
            "set HYDRA_FULL_ERROR=1 for the traceback"
        ) from error
    return sums.shape


def _sums(name: str, metric: EvaluationMetric, batch: PredictionBatch) -> Tensor:
    try:
        return torch.as_tensor(metric.sums(batch.only_for(metric)))
    except ValueError as error:
        raise ValueError(f"metrics.{name}: {error}") from error


def _number(name: str, value: Tensor | float) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(
            f"metrics.{name}: result has shape {list(value.shape)}; expected [] (a number): change what `result` returns"
        )
    return float(value)
