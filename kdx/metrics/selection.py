"""Which metrics a run measures: the built-in ones and those it adds, as far as its data and networks allow."""

from __future__ import annotations

from collections.abc import Mapping

from kdx.metrics.base import EvaluationMetric
from kdx.metrics.builtin import BUILT_IN
from kdx.metrics.table import MetricTable

# Calibration metrics that share their sums, or need every confidence; `kdx.metrics.assessment` computes them together.
CALIBRATION: Mapping[str, bool | None] = {  # name -> higher is better
    "brier_reliability": False,
    "brier_resolution": None,
    "brier_uncertainty": None,
    "brier_within": None,
    "ece_by_chance": None,
    "ece_mass": False,
    "ece_classwise": False,
    "mce": False,
    "rms_ce": False,
    "auroc": True,
}


def applicable(
    added: Mapping[str, EvaluationMetric] | None, num_classes: int, *, labels: bool, teacher: bool
) -> dict[str, EvaluationMetric]:
    """Return the built-in and added metrics that can be measured: with these classes, with or without labels and a teacher."""
    return {
        name: metric
        for name, metric in {**BUILT_IN, **(added or {})}.items()
        if num_classes >= metric.min_classes and labels >= metric.needs_label and teacher >= metric.needs_teacher
    }


def check_added(added: Mapping[str, EvaluationMetric], num_classes: int, *, labels: bool) -> None:
    """Try out the metrics that a run adds on made-up examples.

    Raises:
        ValueError: A name is taken, the data lack labels or classes, or a metric returns the wrong shape.
    """
    for name, metric in added.items():
        if name in BUILT_IN or name in CALIBRATION or "/" in name:
            problem = "contains '/'" if "/" in name else "is the name of a built-in metric"
            raise ValueError(f"metrics.{name}: '{name}' {problem}; choose another name")
        if not isinstance(metric, EvaluationMetric):
            raise ValueError(
                f"metrics.{name}: {type(metric).__name__} is not a metric; derive it from kdx.metrics.base.ExampleMetric"
            )
        if metric.needs_label and not labels:
            raise ValueError(f"metrics.{name} needs labels, but the data set has none: remove {name} from metrics=[...]")
        if num_classes < metric.min_classes:
            raise ValueError(
                f"metrics.{name} needs at least {metric.min_classes} classes, found {num_classes}: "
                f"remove {name} from metrics=[...]"
            )
    MetricTable(added, num_classes)


def directions(added: Mapping[str, EvaluationMetric]) -> dict[str, bool | None]:
    """Return by name whether higher is better, of all metrics of a run; None where neither is."""
    return {**{name: metric.higher_is_better for name, metric in {**BUILT_IN, **added}.items()}, **CALIBRATION}
