"""Temperatures that follow training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kdx.temperatures.base import Temperature
from kdx.temperatures.schedules import Constant, Cosine, Linear
from kdx.types import Progress

LOGITS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("temperature", "values"),
    [
        (Constant(4), (4, 4, 4, 4, 4)),
        (Linear(8, 2), (8, 6.5, 5, 3.5, 2)),
        (Cosine(8, 2), (8, 5 + 3 * 0.70710678, 5, 5 - 3 * 0.70710678, 2)),
        (Cosine(1, 20), (1, 10.5 - 9.5 * 0.70710678, 10.5, 10.5 + 9.5 * 0.70710678, 20)),
    ],
)
def test_each_quarter_of_training_has_its_temperature(temperature: Temperature, values: tuple[float, ...]) -> None:
    for i, value in enumerate(values):
        given = temperature(LOGITS, LOGITS, Progress(i / 4, epoch=7))
        assert isinstance(given, torch.Tensor) and given.shape == () and not given.requires_grad
        assert given.item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "make",
    [Constant, Linear, lambda x: Linear(end=x), Cosine, lambda x: Cosine(end=x)],
    ids=["constant", "linear start", "linear end", "cosine start", "cosine end"],
)
def test_a_temperature_is_positive_and_finite(make: Callable[[float], Temperature], value: float) -> None:
    with pytest.raises(ValueError, match=r"Constant|Linear|Cosine"):
        make(value)
