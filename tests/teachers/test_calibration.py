"""Temperature scaling finds the temperature with the least NLL."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.metrics.calibration import bins, expected_calibration_error
from kdx.teachers.calibration import TemperatureScaling

fit = TemperatureScaling().fit


def calibrated(num_examples: int = 20_000) -> tuple[Tensor, Tensor]:
    """float64 logits [N,10] and labels drawn from their softmax."""
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(num_examples, 10, generator=g, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=g)[:, 0]


def ece(logits: Tensor, label: Tensor) -> float:
    confidence, predicted = logits.softmax(-1).max(-1)
    return expected_calibration_error(bins(confidence, predicted == label, 15)).item()


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.5, 50.0])
def test_it_recovers_the_factor_that_spoiled_the_calibration(scale: float) -> None:
    logits, label = calibrated()
    assert fit(scale * logits, label) == pytest.approx(scale, rel=0.02)


def test_calibrated_logits_have_a_tenth_of_the_calibration_error_and_the_same_classes() -> None:
    logits, label = calibrated()
    spoiled = 2.5 * logits
    mended = spoiled / fit(spoiled, label)
    assert ece(mended, label) < ece(spoiled, label) / 10
    assert torch.equal(mended.argmax(-1), spoiled.argmax(-1))


@pytest.mark.parametrize("scale", [0.3, 2.5])
def test_it_agrees_with_a_search_over_a_grid(scale: float) -> None:
    logits, label = calibrated(1000)
    grid = scale * torch.arange(0.8, 1.2, 0.0005, dtype=torch.float64)
    nll = torch.stack([F.cross_entropy(scale * logits / temperature, label) for temperature in grid])
    assert 0 < nll.argmin() < len(grid) - 1
    assert fit(scale * logits, label) == pytest.approx(grid[nll.argmin()].item(), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("label", ["right", "wrong", "any"])
def test_the_temperature_stays_finite_and_in_range_whatever_the_logits(scale: float, label: str) -> None:
    logits = scale * torch.eye(10, dtype=torch.float64)
    labels = {"right": torch.arange(10), "wrong": torch.arange(1, 11) % 10, "any": torch.arange(10) // 2}
    assert 0.01 <= fit(logits, labels[label]) <= 100


def test_confidence_that_was_always_right_grows_and_one_that_was_always_wrong_goes() -> None:
    logits = torch.eye(10)
    assert fit(logits, torch.arange(10)) < 0.1 and fit(logits, torch.arange(1, 11) % 10) == 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_the_same_temperature(dtype: torch.dtype) -> None:
    logits, label = calibrated(2000)
    assert fit((2.5 * logits).to(dtype), label) == pytest.approx(fit(2.5 * logits, label), rel=2e-3)


def test_it_works_where_gradients_are_off() -> None:
    logits, label = calibrated(1000)
    with torch.no_grad():
        assert fit(2.5 * logits, label) == fit(2.5 * logits, label) != 1


def test_without_examples_it_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="calibration=none"):
        fit(torch.zeros(0, 10), torch.zeros(0, dtype=torch.long))
