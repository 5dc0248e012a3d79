"""Metrics equal those of scikit-learn and torch.distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, top_k_accuracy_score
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from kdx.metrics import functional

CLASSES = (2, 6, 100)


def example(num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities [300,K] and labels that are right more often than chance."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(300, num_classes, generator=g, dtype=torch.float64)
    label = torch.multinomial(logits.softmax(-1), 1, generator=g)[:, 0]
    return logits.log_softmax(-1), label


@pytest.mark.parametrize("num_classes", CLASSES)
def test_accuracy_nll_and_brier_equal_scikit_learn(num_classes: int) -> None:
    log_probs, label = example(num_classes)
    probs, truth, names = log_probs.exp().numpy(), label.numpy(), np.arange(num_classes)
    brier = sum(brier_score_loss(truth == k, probs[:, k]) for k in names)  # one against the rest, added up
    for metric, given, expected in (
        (functional.accuracy, log_probs.argmax(-1), accuracy_score(truth, probs.argmax(-1))),
        (functional.nll, log_probs, log_loss(truth, probs, labels=names)),
        (functional.brier, log_probs.exp(), brier),
    ):
        values = metric(given, label)
        assert values.shape == label.shape and values.mean().item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("num_classes", [6, 100])
def test_top5_equals_scikit_learn(num_classes: int) -> None:
    log_probs, label = example(num_classes)
    expected = top_k_accuracy_score(label, log_probs, k=5, labels=np.arange(num_classes))
    assert 0 < expected < 1
    assert functional.topk(log_probs, label, 5).mean().item() == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_entropy_and_kl_equal_torch_distributions(num_classes: int) -> None:
    student, teacher = example(num_classes)[0], example(num_classes, seed=1)[0]
    p, q = Categorical(logits=teacher), Categorical(logits=student)
    torch.testing.assert_close(functional.entropy(teacher, teacher.exp()), p.entropy())
    torch.testing.assert_close(functional.kl(student, teacher, teacher.exp()), kl_divergence(p, q))


def test_agreement_is_where_both_name_the_same_class() -> None:
    student = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]).log()
    teacher = torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.1, 0.9]]).log()
    assert functional.agreement(student.argmax(-1), teacher.argmax(-1)).tolist() == [1, 0, 1]


def test_metrics_are_finite_where_the_student_is_certain() -> None:
    log_probs, label = torch.tensor([[0.0, -2e4], [0.0, -float("inf")]]), torch.tensor([1, 0])
    assert functional.entropy(log_probs, log_probs.exp()).tolist() == [0, 0]
    assert functional.brier(log_probs.exp(), label).tolist() == [2, 0]
    assert functional.nll(log_probs, label).tolist() == [2e4, 0]
