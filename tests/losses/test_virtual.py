"""The virtual teacher equals torch's KL with the distribution written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kdx.losses import functional
from kdx.losses.virtual import Virtual
from kdx.types import Outputs


def reference(student: np.ndarray, label: np.ndarray, correct: float, temperature: float, smooth: bool) -> np.ndarray:
    """KL(q || softmax(z / τ)) · τ² [B], example by example."""
    losses = []
    for z, y in zip(student, label, strict=True):
        q = np.array([correct if k == y else (1 - correct) / (len(z) - 1) for k in range(len(z))])
        q = softmax(q / temperature) if smooth else q
        log_p = log_softmax(z / temperature)
        losses.append(temperature**2 * sum(a * (np.log(a) - b) if a > 0 else 0.0 for a, b in zip(q, log_p, strict=True)))
    return np.array(losses)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("correct", "temperature"), [(0.9, 1.0), (0.99, 20.0), (1.0, 2.0)])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_equals_numpy(scale: float, num_classes: int, correct: float, temperature: float, smooth: bool) -> None:
    rng = np.random.default_rng(0)
    student, label = rng.standard_normal((5, num_classes)) * scale, rng.integers(num_classes, size=5)
    result = Virtual(correct, temperature, smooth)(Outputs(torch.from_numpy(student), label=torch.from_numpy(label)))
    assert result.shape == (5,)
    np.testing.assert_allclose(result.numpy(), reference(student, label, correct, temperature, smooth), 1e-10, 1e-10)


def test_it_is_zero_exactly_for_a_student_who_says_the_same() -> None:
    q = torch.tensor([[0.05, 0.9, 0.05]], dtype=torch.float64)
    result = functional.virtual_kl(q.log() * 4, torch.tensor([1]), 0.9, 4.0)
    torch.testing.assert_close(result, torch.zeros(1, dtype=torch.float64))


def test_of_an_always_certain_teacher_it_is_the_cross_entropy() -> None:
    student, label = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    expected = torch.nn.functional.cross_entropy(student, label, reduction="none")
    torch.testing.assert_close(functional.virtual_kl(student, label, 1.0), expected)


def test_it_needs_labels_of_unmixed_images_and_no_teacher() -> None:
    loss = Virtual()
    assert (loss.needs_label, loss.needs_one_label, loss.needs_teacher, loss.needs_temperature) == (True, True, False, False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_finite_values_and_gradients(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    result = functional.virtual_kl(student, torch.tensor([1]))
    torch.testing.assert_close(result, functional.virtual_kl(student.float(), torch.tensor([1])))
    assert result.isfinite().all() and torch.autograd.grad(result.sum(), student)[0].isfinite().all()


def test_gradients_are_the_numerical_ones() -> None:
    student = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: functional.virtual_kl(z, torch.tensor([0, 4, 2, 2]), 0.9, 3.0), [student])
