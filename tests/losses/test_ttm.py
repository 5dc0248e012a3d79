"""TTM equals the power transform of the paper in NumPy, WTTM its weight, and both stay finite where powers do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from torch import Tensor

from kdx.losses import functional
from kdx.losses.ttm import TTM, ttm
from kdx.types import Outputs, TemperaturePair

HALVES = (torch.float16, torch.bfloat16)


def draw(num_classes: int, scale: float, batch: int = 6) -> tuple[Tensor, Tensor]:
    """float64 logits of student and teacher."""
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.standard_normal((batch, num_classes)) * scale) for _ in range(2))
    return student, teacher


def reference(student: NDArray[np.float64], teacher: NDArray[np.float64], gamma: float) -> tuple[list[float], list[float]]:
    """TTM and WTTM, example by example: the teacher's probabilities to the power of gamma, normalized by their sum."""
    plain, weighted = [], []
    for s, t in zip(student, teacher, strict=True):
        powers = softmax(t) ** gamma
        plain.append(float(entropy(powers / powers.sum(), softmax(s))))
        weighted.append(plain[-1] * float(powers.sum()))
    return plain, weighted


@pytest.mark.parametrize("gamma", [1.0, 0.25, 0.1])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_it_is_the_divergence_from_the_power_of_the_teacher(scale: float, num_classes: int, gamma: float) -> None:
    student, teacher = draw(num_classes, scale)
    for weighted, expected in enumerate(reference(student.numpy(), teacher.numpy(), gamma)):
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
            result = ttm(student.to(dtype), teacher.to(dtype), 1 / gamma, bool(weighted))
            assert result.shape == (6,) and result.dtype == dtype
            np.testing.assert_allclose(result.numpy(), expected, tolerance, tolerance)


def test_without_a_transform_it_is_kl_and_the_weight_is_one() -> None:
    student, teacher = draw(10, 3)
    torch.testing.assert_close(ttm(student, teacher, 1.0), functional.kl(student, teacher))
    torch.testing.assert_close(ttm(student, teacher, 1.0, weighted=True), functional.kl(student, teacher))


def test_at_a_large_temperature_the_teacher_is_even_and_the_weight_is_the_number_of_classes() -> None:
    student, teacher = draw(10, 3)
    even = functional.kl(student, torch.zeros_like(teacher))
    torch.testing.assert_close(ttm(student, teacher, 1e9), even)
    torch.testing.assert_close(ttm(student, teacher, 1e9, weighted=True), 10 * even)


def test_a_certain_teacher_has_weight_one_and_an_even_one_the_most() -> None:
    student, certain = draw(10, 1)[0], torch.eye(10, dtype=torch.float64)[:6] * 1e3
    torch.testing.assert_close(ttm(student, certain, 4.0, weighted=True), ttm(student, certain, 4.0))
    even = torch.zeros_like(certain)
    torch.testing.assert_close(ttm(student, even, 4.0, weighted=True), 10**0.75 * ttm(student, even, 4.0))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_teacher_with_itself_gives_exactly_zero_without_a_transform(scale: float) -> None:
    z = draw(100, scale)[0].float()
    assert ttm(z, z.clone(), 1.0).eq(0).all() and ttm(z, z.clone(), 1.0, weighted=True).eq(0).all()


def test_with_a_transform_the_student_that_matches_it_gives_zero() -> None:
    z = draw(100, 1)[0]
    assert ttm(z, z.clone(), 4.0).gt(0.1).all()
    assert ttm(z / 4, z.clone(), 4.0).abs().max() < 1e-12


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_it_is_finite_at_logits_of_ten_thousand(dtype: torch.dtype, weighted: bool) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 9984.0]], dtype=dtype)  # also a bfloat16
    tau = torch.tensor(4.0, requires_grad=True)
    result = ttm(student, teacher, tau, weighted)
    log_q, z = (value - logsumexp(value) for value in (student.detach().double().numpy()[0], teacher.double().numpy()[0] / 4))
    expected = float((np.exp(z) * (z - log_q)).sum())
    if weighted:
        expected *= float(np.exp((teacher.double().numpy()[0] - logsumexp(teacher.double().numpy()[0])) / 4).sum())
    assert result.item() == pytest.approx(expected, rel=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.sum(), (student, tau)))


def test_constants_and_the_order_of_classes_change_nothing() -> None:
    student, teacher = draw(10, 3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(10))
    moved = ttm(student[:, order] + 5, teacher[:, order] - 7, 4.0, weighted=True)
    torch.testing.assert_close(moved, ttm(student, teacher, 4.0, weighted=True))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_gradients_are_the_numerical_ones_and_the_students_temperature_does_not_count(
    shape: tuple[int, ...], weighted: bool
) -> None:
    student, teacher = draw(5, 2, batch=3)
    tau = torch.full(shape, 2.5, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (student, teacher, tau)]
    pair = TemperaturePair(tau, tau + 3, tau * tau)
    torch.testing.assert_close(ttm(student, teacher, pair, weighted), ttm(student, teacher, tau, weighted))
    assert torch.autograd.gradcheck(lambda s, t, a: ttm(s, t, a, weighted), inputs)


def test_the_loss_takes_the_step_s_temperature_and_no_label() -> None:
    student, teacher = draw(10, 3)
    outputs = Outputs(student, teacher, temperature=torch.tensor(4.0))
    torch.testing.assert_close(TTM()(outputs), ttm(student, teacher, 4.0))
    torch.testing.assert_close(TTM(weighted=True)(outputs), ttm(student, teacher, 4.0, weighted=True))
    assert TTM.needs_teacher and TTM.needs_temperature and not TTM.needs_label
