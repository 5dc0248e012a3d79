"""The calibration error equals torchmetrics' and a plain loop, however the examples are sharded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from kdx.metrics.calibration import bins, expected_calibration_error


def example(num_classes: int, scale: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities [2000,K], over-confident where scale > 1, and labels."""
    g = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(2000, num_classes, generator=g, dtype=torch.float64)
    label = torch.multinomial((2 * logits).softmax(-1), 1, generator=g)[:, 0]
    return (2 * scale * logits).log_softmax(-1), label


def loop(log_probs: Tensor, label: Tensor, num_bins: int) -> float:
    """The definition: bin i holds confidences in (i/n, (i+1)/n]."""
    confidence, predicted = log_probs.exp().double().max(-1)
    confidence, correct = confidence.numpy(), (predicted == label).double().numpy()
    total = 0.0
    for i in range(num_bins):
        inside = (confidence > i / num_bins) & (confidence <= (i + 1) / num_bins)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total


@pytest.mark.parametrize("num_bins", [10, 15])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_ece_equals_torchmetrics(num_classes: int, scale: float, num_bins: int) -> None:
    log_probs, label = example(num_classes, scale)
    expected = multiclass_calibration_error(log_probs.exp(), label, num_classes, num_bins, norm="l1")
    assert expected_calibration_error(bins(log_probs, label, num_bins)).item() == pytest.approx(float(expected), abs=1e-6)


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
    result = expected_calibration_error(bins(log_probs, label, num_bins)).item()
    assert result == pytest.approx(loop(log_probs, label, num_bins), abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_certainty_to_the_last() -> None:
    count, confidence, correct = bins(TIED, torch.tensor([0, 0, 1] * 5), 8)
    assert count.tolist() == [0, 0, 0, 3, 3, 3, 3, 3]
    assert confidence.tolist() == pytest.approx([0, 0, 0, 1.5, 1.875, 2.25, 2.625, 3])
    assert correct.tolist() == [0, 0, 0, 2, 2, 2, 2, 2]


def test_sums_over_shards_are_the_sums_of_the_whole() -> None:
    log_probs, label = example(10, 2.0)
    shards = zip(log_probs.split(300), label.split(300), strict=True)
    torch.testing.assert_close(torch.stack([bins(*shard, 15) for shard in shards]).sum(0), bins(log_probs, label, 15))


def test_ece_of_nothing_is_nan() -> None:
    assert expected_calibration_error(torch.zeros(3, 15, dtype=torch.float64)).isnan()
