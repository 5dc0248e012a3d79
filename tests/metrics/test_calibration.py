"""Calibration errors equal torchmetrics' and plain loops, however the examples are sharded and ordered."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from kdx.metrics import calibration
from kdx.metrics.calibration import (
    auroc,
    equal_mass_bins,
    error_by_chance,
    expected_calibration_error,
    maximum_calibration_error,
    rms_calibration_error,
)

Own = Callable[[Tensor], Tensor]


def example(num_classes: int, scale: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities [2000,K], over-confident where scale > 1, and labels."""
    g = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(2000, num_classes, generator=g, dtype=torch.float64)
    label = torch.multinomial((2 * logits).softmax(-1), 1, generator=g)[:, 0]
    return (2 * scale * logits).log_softmax(-1), label


def bins(log_probs: Tensor, label: Tensor, num_bins: int) -> Tensor:
    confidence, predicted = log_probs.exp().max(-1)
    return calibration.bins(confidence, predicted == label, num_bins)


def gaps(log_probs: Tensor, label: Tensor, num_bins: int) -> list[tuple[float, float]]:
    """The definition, (share, gap) of each bin that is not empty: bin i holds confidences in (i/n, (i+1)/n]."""
    confidence, predicted = log_probs.exp().double().max(-1)
    confidence, correct = confidence.numpy(), (predicted == label).double().numpy()
    found = []
    for i in range(num_bins):
        inside = (confidence > i / num_bins) & (confidence <= (i + 1) / num_bins)
        if inside.any():
            found.append((inside.mean(), abs(confidence[inside].mean() - correct[inside].mean())))
    return found


def loop(log_probs: Tensor, label: Tensor, num_bins: int) -> float:
    return sum(share * gap for share, gap in gaps(log_probs, label, num_bins))


@pytest.mark.parametrize("num_bins", [10, 15])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_ece_equals_torchmetrics(num_classes: int, scale: float, num_bins: int) -> None:
    log_probs, label = example(num_classes, scale)
    expected = multiclass_calibration_error(log_probs.exp(), label, num_classes, num_bins, norm="l1")
    assert expected_calibration_error(bins(log_probs, label, num_bins)).item() == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("own", "norm"), [(maximum_calibration_error, "max"), (rms_calibration_error, "l2")], ids=["max", "rms"]
)
@pytest.mark.parametrize("num_bins", [10, 15])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_mce_and_rms_equal_torchmetrics(num_classes: int, num_bins: int, own: Own, norm: str) -> None:
    log_probs, label = example(num_classes, 1.5)
    expected = multiclass_calibration_error(log_probs.exp(), label, num_classes, num_bins, norm=norm)
    assert own(bins(log_probs, label, num_bins)).item() == pytest.approx(float(expected), abs=1e-6)


SURE = torch.tensor([[0.0, -1e4, -1e4], [-1e4, 0.0, -1e4], [0.0, -1e4, -1e4], [0.0, -1e4, -1e4]])
TIED = torch.tensor([[c, 1 - c] for c in (0.5, 0.625, 0.75, 0.875, 1.0) for _ in range(3)]).log()  # on edges of 8 bins


@pytest.mark.parametrize("num_bins", [1, 8, 15])
@pytest.mark.parametrize(
    ("log_probs", "label"),
    [
        (SURE, torch.tensor([0, 0, 0, 1])),
        (torch.zeros(40, 10).log_softmax(-1), torch.arange(40) % 10),
        (TIED, torch.tensor([0, 0, 1] * 5)),
        *(example(10, scale) for scale in (0.3, 3.0)),
    ],
    ids=["saturated", "uniform", "tied", "under-confident", "over-confident"],
)
def test_ece_equals_its_definition(log_probs: Tensor, label: Tensor, num_bins: int) -> None:
    sums, expected = bins(log_probs, label, num_bins), gaps(log_probs, label, num_bins)
    assert expected_calibration_error(sums).item() == pytest.approx(loop(log_probs, label, num_bins), abs=1e-12)
    assert maximum_calibration_error(sums).item() == pytest.approx(max(gap for _, gap in expected), abs=1e-12)
    rms = sum(share * gap**2 for share, gap in expected) ** 0.5
    assert rms_calibration_error(sums).item() == pytest.approx(rms, abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_certainty_to_the_last() -> None:
    count, confidence, correct = bins(TIED, torch.tensor([0, 0, 1] * 5), 8)
    assert count.tolist() == [0, 0, 0, 3, 3, 3, 3, 3]
    assert confidence.tolist() == pytest.approx([0, 0, 0, 1.5, 1.875, 2.25, 2.625, 3])
    assert correct.tolist() == [0, 0, 0, 2, 2, 2, 2, 2]


def test_sums_over_shards_are_the_sums_of_the_whole() -> None:
    log_probs, label = example(10, 2.0)
    shards = zip(log_probs.split(300), label.split(300), strict=True)
    torch.testing.assert_close(torch.stack([bins(*shard, 15) for shard in shards]).sum(0), bins(log_probs, label, 15))


@pytest.mark.parametrize("error", [expected_calibration_error, maximum_calibration_error, rms_calibration_error])
def test_the_error_of_nothing_is_nan(error: Own) -> None:
    assert error(torch.zeros(3, 15, dtype=torch.float64)).isnan()
    assert error(equal_mass_bins(torch.zeros(0), torch.zeros(0), 15)).isnan()


@pytest.mark.parametrize("error", [expected_calibration_error, maximum_calibration_error, rms_calibration_error])
def test_certain_and_wrong_is_an_error_of_one_and_as_sure_as_right_is_none(error: Own) -> None:
    sure, half = torch.ones(40), torch.full((40,), 0.5)
    for make in (equal_width, equal_mass_bins):
        assert error(make(sure, torch.zeros(40), 15)).item() == 1
        assert error(make(sure, torch.ones(40), 15)).item() == 0
        assert error(make(half, torch.arange(40) % 2, 15)).item() == pytest.approx(0, abs=1e-12)


def equal_width(confidence: Tensor, correct: Tensor, num_bins: int) -> Tensor:
    """`bins` of two classes with the given confidence in the first."""
    return bins(torch.stack([confidence, 1 - confidence], -1).log(), 1 - correct.long(), num_bins)


def told(kind: str, size: int) -> tuple[Tensor, Tensor]:
    """Confidences [N] float64 of a kind, and which are right."""
    g = torch.Generator().manual_seed(size)
    confidence = torch.rand(size, generator=g, dtype=torch.float64)
    confidence = {
        "different": confidence,
        "saturated": torch.where(confidence > 0.4, 1.0, confidence),
        "uniform": torch.full_like(confidence, 0.1),
        "tied": (confidence * 7).round() / 7,
    }[kind]
    return confidence, (torch.rand(size, generator=g) < 0.7).double()


def interpolated(confidence: Tensor, correct: Tensor, num_bins: int) -> np.ndarray:
    """NumPy's equal-mass bins: cumulative sums over the distinct confidences, interpolated at the edges."""
    values, counts = np.unique(confidence.numpy(), return_counts=True)
    right = np.array([correct.numpy()[confidence.numpy() == value].sum() for value in values])
    mass = np.concatenate([[0], np.cumsum(counts)])
    edges = np.linspace(0, len(confidence), num_bins + 1)
    sums = [np.interp(edges, mass, np.concatenate([[0], np.cumsum(gain)])) for gain in (counts, counts * values, right)]
    return np.diff(sums, axis=1)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
@pytest.mark.parametrize("size", [1, 4, 15, 101, 1000])
@pytest.mark.parametrize("kind", ["different", "saturated", "uniform", "tied"])
def test_equal_mass_bins_are_numpys_whatever_the_order(kind: str, size: int, num_bins: int) -> None:
    confidence, correct = told(kind, size)
    found = equal_mass_bins(confidence, correct, num_bins)
    np.testing.assert_allclose(found.numpy(), interpolated(confidence, correct, num_bins), atol=1e-9)
    assert found[0].tolist() == pytest.approx([size / num_bins] * num_bins)
    for seed in range(3):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(equal_mass_bins(confidence[order], correct[order], num_bins), found)


def test_equal_mass_bins_of_a_number_that_divides_are_the_sorted_examples_in_equal_parts() -> None:
    confidence, correct = told("different", 150)
    order = confidence.argsort()
    parts = [
        (c.abs().sum() - r.sum()).abs() for c, r in zip(confidence[order].chunk(15), correct[order].chunk(15), strict=True)
    ]
    found = expected_calibration_error(equal_mass_bins(confidence, correct, 15))
    assert found.item() == pytest.approx(torch.stack(parts).sum().item() / 150, abs=1e-12)


@pytest.mark.parametrize("size", [20, 101, 2000])
@pytest.mark.parametrize("kind", ["different", "saturated", "uniform", "tied"])
def test_auroc_is_mann_whitneys_u(kind: str, size: int) -> None:
    confidence, correct = told(kind, size)
    right, wrong = confidence[correct == 1], confidence[correct == 0]
    expected = mannwhitneyu(right.numpy(), wrong.numpy(), method="asymptotic").statistic / (len(right) * len(wrong))
    assert auroc(confidence, correct).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("correct", [torch.ones(9), torch.zeros(9), torch.zeros(0)], ids=["right", "wrong", "nothing"])
def test_auroc_of_one_kind_is_nan_without_a_warning(correct: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert auroc(torch.rand(len(correct)), correct).isnan()


def test_auroc_is_one_where_confidence_tells_right_from_wrong_and_zero_where_it_misleads() -> None:
    confidence = torch.tensor([0.2, 0.4, 0.6, 0.8])
    assert auroc(confidence, torch.tensor([0, 0, 1, 1])) == 1
    assert auroc(confidence, torch.tensor([1, 1, 0, 0])) == 0


@pytest.mark.parametrize("count", [40, 400, 4000])
def test_the_error_by_chance_is_that_of_perfectly_calibrated_networks(count: int) -> None:
    """Against a simulation: labels drawn with the network's own probabilities, 400 times."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, 5, generator=generator, dtype=torch.float64)
    log_probs = logits.log_softmax(-1)
    draws = torch.multinomial(log_probs.exp(), 400, replacement=True, generator=generator)
    simulated = [expected_calibration_error(bins(log_probs, label, 15)).item() for label in draws.T]
    found = error_by_chance(bins(log_probs, draws[:, 0], 15)).item()
    assert found == pytest.approx(sum(simulated) / 400, rel=0.1)
    again = error_by_chance(bins(log_probs, draws[:, 1], 15)).item()
    assert found == pytest.approx(again)  # it depends on the confidences, not on the answers


def test_the_error_by_chance_of_certain_and_of_no_predictions() -> None:
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).log()
    assert error_by_chance(bins(certain, torch.tensor([0, 0]), 15)) == 0
    assert error_by_chance(torch.zeros(3, 15, dtype=torch.float64)).isnan()
