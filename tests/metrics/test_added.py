"""The metrics that ship as options, each against an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor

from kdx.metrics.base import EvaluationMetric, PredictionBatch
from kdx.metrics.margin import Margin
from kdx.metrics.nontarget import NonTargetKL
from kdx.metrics.overconfidence import ConfidenceWhenWrong
from kdx.metrics.table import MetricTable
from kdx.metrics.topk import TopK


def example(num_classes: int, size: int = 101) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of student and teacher [N,K], some saturated, and labels."""
    g = torch.Generator().manual_seed(num_classes)
    logits = 3 * torch.randn(2, size, num_classes, generator=g, dtype=torch.float64)
    logits[:, :5] *= 1e3
    student, teacher = logits.log_softmax(-1)
    return student, teacher, torch.randint(0, num_classes, (size,), generator=g)


def measured(metric: EvaluationMetric, num_classes: int) -> float:
    student, teacher, label = example(num_classes)
    table = MetricTable({"mine": metric}, num_classes)
    batches = zip(student.split(20), label.split(20), teacher.split(20), strict=True)
    total = torch.stack([table.sums(PredictionBatch(*batch)) for batch in batches]).sum(0)
    return table.results(total, torch.tensor(float(len(label))))["mine"]


@pytest.mark.parametrize("num_classes", [2, 10])
def test_margin_is_the_gap_to_the_strongest_other_class(num_classes: int) -> None:
    student, _, label = example(num_classes)
    probs = student.exp().numpy()
    gaps = [row[k] - np.delete(row, k).max() for row, k in zip(probs, label.tolist(), strict=True)]
    assert measured(Margin(), num_classes) == pytest.approx(np.mean(gaps), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_top_k_is_scikit_learns(k: int) -> None:
    student, _, label = example(10)
    expected = top_k_accuracy_score(label.numpy(), student.numpy(), k=k, labels=range(10))
    assert measured(TopK(k), 10) == pytest.approx(expected, rel=1e-12)
    assert TopK(k).min_classes == k + 1


def test_top_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="k: Input should be greater than or equal to 1"):
        TopK(k=0)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_kl_is_the_binary_part_plus_the_non_target_part_as_in_dkd(num_classes: int) -> None:
    student, teacher, label = (value[5:] for value in example(num_classes))
    p, q = teacher.exp(), student.exp()
    p_label, q_label = (x.gather(-1, label[:, None])[:, 0] for x in (p, q))
    binary = p_label * (p_label / q_label).log() + (1 - p_label) * ((1 - p_label) / (1 - q_label)).log()
    whole = (p * (teacher - student)).sum(-1)
    others = NonTargetKL().per_example(PredictionBatch(student, label, teacher))
    torch.testing.assert_close(binary + (1 - p_label) * others, whole, rtol=1e-9, atol=1e-10)


def test_non_target_kl_is_finite_and_0_of_itself() -> None:
    student, _, label = example(10)
    assert NonTargetKL().per_example(PredictionBatch(student, label, student)).abs().max() == 0
    assert math.isfinite(measured(NonTargetKL(), 10))


@pytest.mark.parametrize("num_classes", [2, 10])
def test_confidence_when_wrong_averages_over_the_wrong_only(num_classes: int) -> None:
    student, _, label = example(num_classes)
    probs = student.exp().numpy()
    wrong = probs.argmax(-1) != label.numpy()
    assert measured(ConfidenceWhenWrong(), num_classes) == pytest.approx(probs.max(-1)[wrong].mean(), rel=1e-12)


def test_confidence_when_wrong_does_not_exist_where_all_are_right() -> None:
    metric, label = ConfidenceWhenWrong(), torch.arange(10)
    sums = metric.sums(PredictionBatch(torch.eye(10, dtype=torch.float64).log_softmax(-1), label))
    assert math.isnan(metric.result(sums, torch.tensor(10.0)))
