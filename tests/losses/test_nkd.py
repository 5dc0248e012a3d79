"""NKD equals a loop over classes in NumPy, contains DKD's non-target term, and reads the label of mixed images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from kdx.losses.dkd import decoupled_kl
from kdx.losses.nkd import NKD, nkd
from kdx.types import Outputs, TemperaturePair

HALVES = (torch.float16, torch.bfloat16)
Array = NDArray[np.float64]


def draw(num_classes: int, scale: float, batch: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """float64 logits of student and teacher, and labels."""
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.standard_normal((batch, num_classes)) * scale) for _ in range(2))
    return student, teacher, torch.from_numpy(rng.integers(num_classes, size=batch))


def reference(student: Array, teacher: Array, label: Array, temperature: float, gamma: float) -> list[float]:
    """The loss, example by example and class by class, from logits with the true class taken out."""
    losses = []
    for s, t, y in zip(student, teacher, label, strict=True):
        loss = -np.exp(t[y] - logsumexp(t)) * (s[y] - logsumexp(s))
        others = np.delete(np.arange(len(s)), y)
        rest_s, rest_t = (logsumexp(z[others] / temperature) for z in (s, t))
        for k in others:
            weight = np.exp(t[k] / temperature - rest_t)
            loss -= gamma * temperature**2 * weight * (s[k] / temperature - rest_s)
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("num_classes", [3, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_equals_numpy(scale: float, num_classes: int, temperature: float) -> None:
    student, teacher, label = draw(num_classes, scale)
    expected = reference(student.numpy(), teacher.numpy(), label.numpy(), temperature, 3.5)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        result = nkd(student.to(dtype), teacher.to(dtype), label, temperature, gamma=3.5)
        assert result.shape == (6,) and result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, tolerance, tolerance * temperature**2)


def test_its_gradient_among_the_other_classes_is_that_of_dkd() -> None:
    student, teacher, label = draw(10, 3)
    student.requires_grad_()
    parts = [nkd(student, teacher, label, 4.0, gamma) for gamma in (2.0, 0.0)]
    others = decoupled_kl((student / 4).log_softmax(-1), (teacher / 4).log_softmax(-1), label)[1]
    found, expected = (torch.autograd.grad(x.sum(), student)[0] for x in (parts[0] - parts[1], 2 * 16 * others))
    torch.testing.assert_close(found, expected)
    assert found.gather(1, label[:, None]).eq(0).all()  # the true class has no part in it


def test_without_the_others_it_is_the_label_weighted_by_the_teacher() -> None:
    student, teacher, label = draw(10, 3)
    certain = teacher.scatter(1, label[:, None], 1e3)
    torch.testing.assert_close(
        nkd(student, certain, label, 4.0, 0.0), torch.nn.functional.cross_entropy(student, label, reduction="none")
    )
    wrong = teacher.scatter(1, label[:, None], -1e3)
    assert nkd(student, wrong, label, 4.0, 0.0).eq(0).all()


def test_a_student_equal_to_its_teacher_is_at_the_minimum_of_the_other_classes() -> None:
    _, teacher, label = draw(10, 3)
    student = teacher.clone().requires_grad_()
    others = nkd(student, teacher, label, 2.0, 1.0) - nkd(student, teacher, label, 2.0, 0.0)
    torch.testing.assert_close(torch.autograd.grad(others.sum(), student)[0], torch.zeros_like(student))
    assert others.gt(0).all()  # a cross-entropy, whose minimum is the teacher's entropy


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_it_is_finite_at_logits_of_ten_thousand_whatever_the_label(label: int, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 5e3]], dtype=dtype)
    tau = torch.tensor(1.0, requires_grad=True)
    result = nkd(student, teacher, torch.tensor([label]), tau)
    expected = reference(*(z.detach().double().numpy() for z in (student, teacher)), np.array([label]), 1.0, 1.5)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.sum(), (student, tau)))


def test_constants_and_the_order_of_classes_change_nothing() -> None:
    student, teacher, label = draw(10, 3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(10))
    place = order.argsort()[label]
    torch.testing.assert_close(nkd(student[:, order] + 5, teacher[:, order] - 7, place, 4.0), nkd(student, teacher, label, 4.0))


@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_gradients_are_the_numerical_ones(shape: tuple[int, ...]) -> None:
    student, teacher, label = draw(5, 2, batch=3)
    tau = torch.full(shape, 2.5, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (student, teacher, tau, tau + 1)]
    assert torch.autograd.gradcheck(lambda s, t, a, b: nkd(s, t, label, TemperaturePair(a, b, a * b)), inputs)


def test_two_classes_are_refused_with_the_reason() -> None:
    student, teacher, label = draw(2, 1)
    with pytest.raises(ValueError, match=r"at least 3 classes.*losses=\[kd\]"):
        nkd(student, teacher, label)
    assert NKD.min_classes == 3  # and so it is refused before anything is trained


def test_the_loss_reads_label_and_temperature_and_the_larger_share_of_a_mixed_image() -> None:
    student, teacher, label = draw(10, 3)
    outputs = Outputs(student, teacher, label, temperature=torch.tensor(4.0))
    torch.testing.assert_close(NKD(3.5)(outputs), nkd(student, teacher, label, 4.0, 3.5))
    hot, other = (torch.eye(10, dtype=torch.float64)[index] for index in (label, (label + 1) % 10))
    for share, main in ((0.7, label), (0.3, (label + 1) % 10)):
        outputs.mixed_target = share * hot + (1 - share) * other
        torch.testing.assert_close(NKD(3.5)(outputs), nkd(student, teacher, main, 4.0, 3.5))
    assert NKD.needs_teacher and NKD.needs_temperature and NKD.needs_label and not NKD.needs_one_label
