"""Class-wise ECE equals torchmetrics' binary ECE per class; the parts of the Brier score add up to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from kdx.metrics import functional
from kdx.metrics.classwise import brier_parts, class_bins, classwise_calibration_error


def example(kind: str, num_classes: int, size: int = 500) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N,K] of a kind, and labels."""
    g = torch.Generator().manual_seed(num_classes)
    logits = 2 * torch.randn(size, num_classes, generator=g, dtype=torch.float64)
    label = torch.multinomial(logits.softmax(-1), 1, generator=g)[:, 0]
    logits = {
        "random": 1.5 * logits,
        "saturated": 1e4 * logits,
        "uniform": torch.zeros_like(logits),
        "tied": logits.round() / 2,
    }[kind]
    return logits.log_softmax(-1), label


def loop(log_probs: Tensor, label: Tensor, num_bins: int) -> tuple[float, dict[str, float]]:
    """The definitions in NumPy, class by class and bin by bin: class-wise ECE, and the parts of the Brier score."""
    probs, label = log_probs.exp().numpy(), label.numpy()
    errors = []
    parts = dict.fromkeys(("reliability", "resolution", "uncertainty", "within"), 0.0)
    for k in range(probs.shape[1]):
        p, y = probs[:, k], (label == k).astype(float)
        index = np.clip(np.ceil(p * num_bins) - 1, 0, None)
        error = 0.0
        for b in np.unique(index):
            inside = index == b
            share, pb, yb = inside.mean(), p[inside].mean(), y[inside].mean()
            error += share * abs(pb - yb)
            parts["reliability"] += share * (pb - yb) ** 2
            parts["resolution"] += share * (yb - y.mean()) ** 2
            within = (p[inside] - pb) ** 2 - 2 * (p[inside] - pb) * (y[inside] - yb)
            parts["within"] += share * within.mean()
        parts["uncertainty"] += y.mean() * (1 - y.mean())
        errors.append(error)
    return float(np.mean(errors)), parts


KINDS = ["random", "saturated", "uniform", "tied"]


@pytest.mark.parametrize("num_bins", [1, 15])
@pytest.mark.parametrize("num_classes", [1, 2, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_what_a_loop_over_classes_and_bins_gives(kind: str, num_classes: int, num_bins: int) -> None:
    log_probs, label = example(kind, num_classes)
    sums = class_bins(log_probs, label, num_bins)
    error, parts = loop(log_probs, label, num_bins)
    assert classwise_calibration_error(sums).item() == pytest.approx(error, abs=1e-12)
    assert {name: part.item() for name, part in brier_parts(sums).items()} == pytest.approx(parts, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_classwise_ece_is_the_mean_of_torchmetrics_binary_ones(num_classes: int) -> None:
    log_probs, label = example("random", num_classes)
    each = [binary_calibration_error(log_probs[:, k].exp(), (label == k).long(), 15, norm="l1") for k in range(num_classes)]
    found = classwise_calibration_error(class_bins(log_probs, label, 15)).item()
    assert found == pytest.approx(torch.stack(each).mean().item(), abs=1e-6)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_add_up_to_the_brier_score(kind: str, num_classes: int, num_bins: int) -> None:
    log_probs, label = example(kind, num_classes)
    parts = brier_parts(class_bins(log_probs, label, num_bins))
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"]
    assert total.item() == pytest.approx(functional.brier(log_probs.exp(), label).mean().item(), abs=1e-12)


def test_one_that_always_says_the_class_frequencies_is_reliable_and_resolves_nothing() -> None:
    label = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    log_probs = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log().expand(10, 3)
    parts = {name: part.item() for name, part in brier_parts(class_bins(log_probs, label, 15)).items()}
    uncertainty = 0.25 + 0.21 + 0.16
    expected = {"reliability": 0, "resolution": 0, "uncertainty": uncertainty, "within": 0}
    assert parts == pytest.approx(expected, abs=1e-12)


def test_one_that_knows_is_all_resolution_and_one_that_is_certain_of_another_class_has_a_brier_score_of_two() -> None:
    label = torch.arange(12) % 3
    knows = F.one_hot(label).double().log().clamp(min=-1e4)
    parts = brier_parts(class_bins(knows, label, 15))
    assert parts["reliability"] == 0
    assert parts["resolution"].item() == pytest.approx(parts["uncertainty"].item())
    wrong = class_bins(knows, (label + 1) % 3, 15)
    assert classwise_calibration_error(wrong).item() == pytest.approx(2 / 3)
    parts = brier_parts(wrong)
    assert (parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"]).item() == pytest.approx(2)


def test_shards_in_any_order_add_up_to_the_whole() -> None:
    log_probs, label = example("random", 10)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    shards = zip(log_probs[order].split(77), label[order].split(77), strict=True)
    torch.testing.assert_close(
        torch.stack([class_bins(*shard, 15) for shard in shards]).sum(0), class_bins(log_probs, label, 15)
    )


def test_of_nothing_all_are_nan() -> None:
    sums = class_bins(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.long), 15)
    assert classwise_calibration_error(sums).isnan()
    assert all(part.isnan() for part in brier_parts(sums).values())
