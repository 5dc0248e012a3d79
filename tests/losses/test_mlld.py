"""MLLD equals matrices of NumPy, without their cancellation, and its masks are those of the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from kdx.losses.mlld import MLLD, levels, masked_shares
from kdx.types import Outputs

HALVES = (torch.float16, torch.bfloat16)
Array = NDArray[np.float64]


def draw(num_classes: int, scale: float, batch: int = 6) -> tuple[Tensor, Tensor]:
    """float64 logits of student and teacher."""
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.standard_normal((batch, num_classes)) * scale) for _ in range(2))
    return student, teacher


def reference(student: Array, teacher: Array, temperature: float) -> list[float]:
    """The three levels from full matrices, each pair of examples and of classes for itself."""
    log_q, log_p = (log_softmax(z / temperature, axis=1) for z in (student, teacher))
    q, p = np.exp(log_q), np.exp(log_p)
    batch, classes = q.shape
    instance = temperature**2 * float(np.mean([(p[i] * (log_p[i] - log_q[i])).sum() for i in range(batch)]))
    pairs = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(batch) for j in range(batch)) / batch
    of_classes = ((np.einsum("bi,bj->ij", p, p) - np.einsum("bi,bj->ij", q, q)) ** 2).sum() / classes
    return [instance, float(pairs), float(of_classes)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("num_classes", "batch"), [(2, 6), (10, 6), (10, 33), (200, 5), (10, 1)])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_the_levels_equal_numpy(scale: float, num_classes: int, batch: int, temperature: float) -> None:
    student, teacher = draw(num_classes, scale, batch)
    expected = reference(student.numpy(), teacher.numpy(), temperature)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        result = levels(student.to(dtype), teacher.to(dtype), temperature)
        assert result.shape == (3,) and result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, tolerance, tolerance)


def test_small_differences_do_not_cancel_in_single_precision() -> None:
    teacher = draw(10, 1)[1]
    student = teacher + 1e-4 * draw(10, 1)[0]
    expected = reference(student.numpy(), teacher.numpy(), 2.0)
    single = levels(student.float(), teacher.float(), 2.0)
    np.testing.assert_allclose(single[1:].numpy(), expected[1:], rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_teacher_with_itself_gives_exactly_zero(scale: float, dtype: torch.dtype) -> None:
    z = draw(100, scale)[0].clamp(-6e4, 6e4).to(dtype)
    assert levels(z, z.clone(), 4.0).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_values_and_gradients_are_finite_at_ten_thousand_and_in_single_precision_under_autocast(dtype: torch.dtype) -> None:
    student, teacher = (z.to(dtype) for z in draw(10, 1e4))
    student.requires_grad_()
    loss = MLLD()
    plain = loss(Outputs(student, teacher))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(Outputs(student, teacher)).item() == plain.item()
    assert plain.shape == () and plain.dtype == torch.float32
    assert torch.autograd.grad(plain, student)[0].isfinite().all()


def test_orders_and_constants_change_nothing() -> None:
    student, teacher = draw(10, 3)
    rng = np.random.default_rng(1)
    classes, examples = torch.from_numpy(rng.permutation(10)), torch.from_numpy(rng.permutation(6))
    moved = levels(student[examples][:, classes] + 5, teacher[examples][:, classes] - 7, 2.0)
    torch.testing.assert_close(moved, levels(student, teacher, 2.0))


def test_permuted_examples_of_the_student_cost_the_pairs_of_examples_but_not_those_of_classes() -> None:
    teacher = draw(10, 3)[1]
    _, batch, classes = levels(teacher.roll(1, 0), teacher, 2.0)
    assert batch > 0.01
    assert abs(classes) < 1e-12


def test_at_a_large_temperature_only_the_instances_are_left() -> None:
    student, teacher = draw(10, 3)
    instance, batch, classes = levels(student, teacher, 1e4)
    gap = student - teacher
    torch.testing.assert_close(instance, ((gap - gap.mean(1, keepdim=True)).square().sum(1) / 20).mean(), rtol=1e-3, atol=0)
    assert batch < 1e-6 and abs(classes) < 1e-6


def test_gradients_are_the_numerical_ones() -> None:
    inputs = [z.requires_grad_() for z in draw(5, 2, batch=4)]
    assert torch.autograd.gradcheck(lambda s, t: levels(s, t, 2.5), inputs)


@pytest.mark.parametrize(("batch", "num_classes"), [(6, 10), (7, 5), (64, 100), (1, 3)])
def test_a_mask_is_the_share_at_or_below_the_median(batch: int, num_classes: int) -> None:
    teacher = draw(num_classes, 3, batch)[1]
    probs = np.exp(log_softmax(teacher.numpy(), axis=1))
    shares = [np.mean(values <= np.percentile(values, 50)) for values in (probs.max(1), probs.sum(0))]
    np.testing.assert_allclose(masked_shares(teacher).numpy(), [shares[0], shares[0], shares[1]], rtol=1e-6)


def test_the_loss_sums_its_temperatures_and_multiplies_the_shares() -> None:
    student, teacher = draw(10, 3, batch=7)
    each = torch.stack([levels(student, teacher, temperature) for temperature in (1.0, 4.0)]).sum(0)
    outputs = Outputs(student, teacher)
    torch.testing.assert_close(MLLD([1.0, 4.0])(outputs), each.sum())
    torch.testing.assert_close(MLLD([1.0, 4.0], masks=True)(outputs), (each * torch.tensor([4 / 7, 4 / 7, 0.5])).sum())
    five = sum(levels(student, teacher, temperature).sum() for temperature in (2, 3, 4, 5, 6))
    torch.testing.assert_close(MLLD()(outputs), five)
    assert MLLD.needs_teacher and not MLLD.needs_temperature and not MLLD.needs_label


@pytest.mark.parametrize("temperatures", [[], [0.0], [2.0, -1.0]])
def test_no_temperature_and_one_that_is_not_positive_are_refused(temperatures: list[float]) -> None:
    with pytest.raises(ValueError, match="MLLD: temperatures"):
        MLLD(temperatures=temperatures)
