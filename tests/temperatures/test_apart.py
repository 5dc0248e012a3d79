"""Temperatures that differ between the networks, by setting or by the size of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdx.losses import functional
from kdx.temperatures.base import Temperature
from kdx.temperatures.curriculum import Curriculum, InstanceCurriculum
from kdx.temperatures.per_network import PerNetwork, Standardized
from kdx.temperatures.schedules import Constant, Linear
from kdx.types import Progress

NOW = Progress(0.25, 3)


def pair(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Student and teacher logits [16,10], the teacher's three times as large."""
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(16, 10, generator=g, dtype=torch.float64) for _ in range(2))
    return (scale * student).to(dtype), (3 * scale * teacher + 5).to(dtype)


def probs(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl(student: NDArray[np.float64], teacher: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL of the softmax of [B,K], [B], in NumPy."""
    p, q = probs(teacher), probs(student)
    return (p * (np.log(p) - np.log(q))).sum(-1)


def zscore(logits: Tensor) -> NDArray[np.float64]:
    z = logits.double().numpy()
    return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)


def test_each_network_has_its_own_and_the_product_is_the_square() -> None:
    student, teacher = pair()
    given = PerNetwork(teacher=Constant(2.0), student=Linear(8.0, 4.0))(student, teacher, NOW)
    assert [value.item() for value in given] == [2.0, 7.0, 14.0]
    expected = 14 * kl(student.numpy() / 7, teacher.numpy() / 2)
    assert functional.kl(student, teacher, given).numpy() == pytest.approx(expected, rel=1e-12)


def test_equal_temperatures_are_one_temperature() -> None:
    given = PerNetwork(Constant(4.0), Constant(4.0))(*pair(), NOW)
    torch.testing.assert_close(functional.kl(*pair(), given), functional.kl(*pair(), 4.0), rtol=1e-12, atol=0)


def test_both_may_be_learned_and_each_learns() -> None:
    temperature = PerNetwork(Curriculum(raw=0.0), Curriculum(raw=-1.0, lambd=0.5))
    functional.kl(*pair(), temperature(*pair(), NOW)).mean().backward()
    for child in temperature.children():
        assert isinstance(child, Curriculum) and child.raw.grad is not None and child.raw.grad.abs() > 1e-6
    numbers = temperature.telemetry(Progress(1.0, 99))
    assert numbers == {"lambda_teacher": 1.0, "lambda_student": 0.5}


@pytest.mark.parametrize("base", [1.0, 2.0, 6.0])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_standardized_is_the_divergence_of_the_z_scores(base: float, scale: float) -> None:
    student, teacher = pair(scale)
    found = functional.kl(student, teacher, Standardized(Constant(base))(student, teacher, NOW))
    assert found.numpy() == pytest.approx(base**2 * kl(zscore(student) / base, zscore(teacher) / base), rel=1e-9)


def test_standardized_does_not_see_size_and_shift_of_the_logits() -> None:
    student, teacher = pair()
    standardized = Standardized(Constant(2.0))
    expected = functional.kl(student, teacher, standardized(student, teacher, NOW))
    moved, other = 7.5 * student - 3, 0.2 * teacher + 40
    torch.testing.assert_close(functional.kl(moved, other, standardized(moved, other, NOW)), expected, rtol=1e-5, atol=0)
    same = functional.kl(3 * teacher + 1, teacher, standardized(3 * teacher + 1, teacher, NOW))
    assert same.abs().max() < 1e-9


def test_the_gradient_goes_through_the_students_deviation() -> None:
    student, teacher = pair()
    standardized = Standardized(Constant(2.0))
    student.requires_grad_()
    functional.kl(student, teacher, standardized(student, teacher, NOW)).sum().backward()
    plain = student.detach().numpy()
    numeric = np.zeros_like(plain)
    for k in range(plain.shape[1]):
        step = np.zeros_like(plain)
        step[:, k] = 1e-5
        up, down = (4 * kl(zscore(torch.from_numpy(z)) / 2, zscore(teacher) / 2) for z in (plain + step, plain - step))
        numeric[:, k] = (up - down) / 2e-5
    assert student.grad is not None and student.grad.numpy() == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_it_is_finite_at_any_size_in_any_precision(scale: float, dtype: torch.dtype) -> None:
    student, teacher = pair(scale / 3, dtype)
    student.requires_grad_()
    loss = functional.kl(student, teacher, Standardized(Constant(2.0))(student, teacher, NOW)).mean()
    loss.backward()
    assert loss.isfinite() and student.grad is not None and student.grad.isfinite().all()


def test_a_last_layer_of_zeros_gives_a_finite_gradient() -> None:
    student = torch.zeros(4, 10, requires_grad=True)
    teacher = pair(dtype=torch.float32)[1][:4]
    functional.kl(student, teacher, Standardized(Constant(2.0))(student, teacher, NOW)).mean().backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad.abs().max() > 0


@pytest.mark.parametrize("make", [Curriculum, lambda: InstanceCurriculum(hidden=4)], ids=["global", "instance"])
def test_standardized_wraps_a_learned_temperature(make: Any) -> None:
    torch.manual_seed(0)
    temperature = Standardized(make())
    temperature.connect(10)
    student, teacher = pair(dtype=torch.float32)
    given = temperature(student, teacher, Progress(1.0, 99))
    base = temperature.base(student, teacher, Progress(1.0, 99))
    torch.testing.assert_close(given.squared, base * base)
    functional.kl(student, teacher, given).mean().backward()
    assert sum(p.grad.abs().sum() for p in temperature.parameters() if p.grad is not None) > 0
    assert temperature.telemetry(Progress(1.0, 99)) == {"lambda": 1.0}


def test_standardized_keeps_a_base_that_differs_between_the_networks() -> None:
    student, teacher = pair()
    given = Standardized(PerNetwork(Constant(2.0), Constant(3.0)))(student, teacher, NOW)
    expected = 6 * kl(zscore(student) / 3, zscore(teacher) / 2)
    assert functional.kl(student, teacher, given).numpy() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [lambda bad: PerNetwork(bad, Constant()), lambda bad: PerNetwork(Constant(), bad), Standardized],
    ids=["a", "b", "c"],
)
def test_a_complaint_of_what_is_inside_comes_out(make: Any) -> None:
    temperature: Temperature = make(Curriculum(raw=9.0))
    assert temperature.complaint() is None
    temperature(*pair(dtype=torch.float32), NOW)
    assert "raise temperature.span" in str(temperature.complaint())


def test_a_pair_of_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature\.student must be a single temperature, got Standardized"):
        PerNetwork(Constant(), Standardized(Constant()))
