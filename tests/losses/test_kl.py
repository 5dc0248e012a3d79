"""The directions of KL equal SciPy, have their limits and bounds, and stay finite and exact at extremes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, rel_entr, softmax
from torch import Tensor

from kdx.losses import functional
from kdx.losses.kl import DIVERGENCES, KL
from kdx.types import Outputs, TemperaturePair

Divergence = Callable[..., Tensor]
Array = NDArray[np.float64]
HALVES = (torch.float16, torch.bfloat16)


def logits(seed: int, num_classes: int, scale: float, batch: int = 6) -> Tensor:
    """float64 [batch,num_classes]."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, num_classes)) * scale)


def reference(name: str, student: Array, teacher: Array) -> Array:
    """The divergence [B] between softmax(student) and softmax(teacher), by SciPy."""
    p, q = softmax(teacher, -1), softmax(student, -1)
    if name == "js":
        return (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(-1) / 2
    log_p, log_q = (z - logsumexp(z, -1, keepdims=True) for z in (teacher, student))
    forward, backward = (p * (log_p - log_q)).sum(-1), (q * (log_q - log_p)).sum(-1)
    return {"forward": forward, "reverse": backward, "symmetric": (forward + backward) / 2}[name]


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_equals_scipy(name: str, temperature: float, num_classes: int, scale: float) -> None:
    student, teacher = logits(0, num_classes, scale), logits(1, num_classes, scale)
    expected = temperature**2 * reference(name, student.numpy() / temperature, teacher.numpy() / temperature)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        result = DIVERGENCES[name](student.to(dtype), teacher.to(dtype), temperature)
        assert result.shape == (6,) and result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, tolerance, tolerance * temperature**2)


@pytest.mark.parametrize("divergence", DIVERGENCES.values())
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_teacher_with_itself_gives_exactly_zero(divergence: Divergence, scale: float, dtype: torch.dtype) -> None:
    z = logits(0, 100, scale).clamp(-6e4, 6e4).to(dtype)
    assert divergence(z, z.clone(), 4.0).eq(0).all()


@pytest.mark.parametrize(("name", "share"), [("forward", 1), ("reverse", 1), ("symmetric", 1), ("js", 0.25)])
def test_for_large_temperatures_all_tend_to_a_share_of_half_the_centered_square(name: str, share: float) -> None:
    student, teacher = logits(0, 50, 3).requires_grad_(), logits(1, 50, 3)
    difference = (student - teacher).detach()
    centered = difference - difference.mean(-1, keepdim=True)
    result = DIVERGENCES[name](student, teacher, 1e4)
    torch.testing.assert_close(result.detach(), share * centered.square().sum(-1) / 100, rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(result.sum(), student)
    torch.testing.assert_close(gradient, share * centered / 50, rtol=0, atol=1e-3 * float(centered.abs().max()) / 50)


@pytest.mark.parametrize("name", ["symmetric", "js"])
def test_these_do_not_care_who_teaches(name: str) -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    torch.testing.assert_close(DIVERGENCES[name](student, teacher, 2.0), DIVERGENCES[name](teacher, student, 2.0))


def test_reverse_is_forward_the_other_way_round() -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    torch.testing.assert_close(functional.reverse_kl(student, teacher, 2.0), functional.kl(teacher, student, 2.0))
    apart, swapped = (TemperaturePair(torch.tensor(a), torch.tensor(b), torch.tensor(6.0)) for a, b in ((2.0, 5.0), (5.0, 2.0)))
    torch.testing.assert_close(functional.reverse_kl(student, teacher, apart), functional.kl(teacher, student, swapped))


def test_jensen_shannon_is_at_most_log_2_and_reaches_it() -> None:
    sure, opposite = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert functional.jensen_shannon(sure, opposite).item() == pytest.approx(math.log(2), abs=1e-7)
    assert (functional.jensen_shannon(logits(0, 10, 30), logits(1, 10, 30)) <= math.log(2)).all()


@pytest.mark.parametrize("divergence", DIVERGENCES.values())
def test_adding_constants_and_reordering_classes_change_nothing(divergence: Divergence) -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    expected = divergence(student, teacher, 4.0)
    order = torch.from_numpy(np.random.default_rng(2).permutation(10))
    torch.testing.assert_close(divergence(student[:, order] + 5, teacher[:, order] - 7, 4.0), expected)


@pytest.mark.parametrize("divergence", DIVERGENCES.values())
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_gradients_are_finite_for_opposite_logits_of_ten_thousand(divergence: Divergence, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4]], dtype=dtype, requires_grad=True)
    tau = torch.tensor(2.0, requires_grad=True)
    result = divergence(student, teacher, tau)
    assert result.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.sum(), (student, teacher, tau)))


@pytest.mark.parametrize("divergence", DIVERGENCES.values())
@pytest.mark.parametrize("tau_squared", [True, False])
def test_gradients_are_the_numerical_ones(divergence: Divergence, tau_squared: bool) -> None:
    temperature = torch.tensor([[1.5], [2.5], [4.0]], dtype=torch.float64)
    inputs = [logits(0, 5, 2, 3), logits(1, 5, 2, 3), temperature]
    assert torch.autograd.gradcheck(lambda s, t, tau: divergence(s, t, tau, tau_squared), [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("tau_squared", [True, False])
def test_the_loss_is_the_named_divergence_at_the_steps_temperature(name: str, tau_squared: bool) -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    outputs = Outputs(student, teacher, temperature=torch.tensor(3.0))
    expected = 9**tau_squared * reference(name, student.numpy() / 3, teacher.numpy() / 3)
    np.testing.assert_allclose(KL(tau_squared, name)(outputs).numpy(), expected, rtol=1e-6)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"direction.*'forward'"):
        KL(direction="backward")
