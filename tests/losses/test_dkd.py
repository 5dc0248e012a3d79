"""DKD equals NumPy, is KL taken apart, and is finite where masking with a constant is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from kdx.losses import functional
from kdx.losses.dkd import DKD, _decoupled, decoupled_kl, dkd
from kdx.types import Outputs, TemperaturePair

HALVES = (torch.float16, torch.bfloat16)
Array = NDArray[np.float64]


def draw(num_classes: int, scale: float, batch: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """float64 logits of student and teacher, and labels."""
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.standard_normal((batch, num_classes)) * scale) for _ in range(2))
    return student, teacher, torch.from_numpy(rng.integers(num_classes, size=batch))


def reference(student: Array, teacher: Array, label: Array) -> tuple[Array, Array]:
    """TCKD and NCKD [B], example by example, by taking the true class out of the list."""
    parts = []
    for s, t, y in zip(student, teacher, label, strict=True):
        others = [k for k in range(len(s)) if k != y]
        pairs = []
        for z in (t, s):
            log_p = z - logsumexp(z)
            rest = logsumexp(log_p[others])
            pairs.append((np.array([log_p[y], rest]), log_p[others] - rest))
        parts.append([float((np.exp(p) * (p - q)).sum()) for p, q in zip(*pairs, strict=True)])
    return np.array(parts)[:, 0], np.array(parts)[:, 1]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("num_classes", [3, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_equals_numpy(scale: float, num_classes: int, temperature: float) -> None:
    student, teacher, label = draw(num_classes, scale)
    target, others = reference(student.numpy() / temperature, teacher.numpy() / temperature, label.numpy())
    expected = temperature**2 * (0.5 * target + 3 * others)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        result = dkd(student.to(dtype), teacher.to(dtype), label, temperature, alpha=0.5, beta=3.0)
        assert result.shape == (6,) and result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, tolerance, tolerance * temperature**2)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_tckd_and_nckd_add_up_to_kl(scale: float) -> None:
    student, teacher, label = draw(10, scale)
    log_p = teacher.log_softmax(-1)
    target, others = decoupled_kl(student.log_softmax(-1), log_p, label)
    unsure = 1 - log_p.exp().gather(1, label[:, None])[:, 0]
    torch.testing.assert_close(target + unsure * others, functional.kl(student, teacher))


def test_alpha_weighs_the_true_class_and_beta_the_others() -> None:
    student, teacher, label = draw(10, 3)
    target, others = decoupled_kl(student.log_softmax(-1), teacher.log_softmax(-1), label)
    torch.testing.assert_close(dkd(student, teacher, label, alpha=1, beta=0), target)
    torch.testing.assert_close(dkd(student, teacher, label, alpha=0, beta=1), others)
    flatter = teacher.scatter_add(1, label[:, None], torch.full((6, 1), 5.0, dtype=torch.float64))
    torch.testing.assert_close(dkd(student, flatter, label, alpha=0, beta=1), others)  # blind to how sure the teacher is


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_teacher_with_itself_gives_exactly_zero(scale: float, dtype: torch.dtype) -> None:
    z = draw(100, scale)[0].clamp(-6e4, 6e4).to(dtype)
    assert dkd(z, z.clone(), torch.arange(6), 4.0).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_it_is_finite_at_logits_of_ten_thousand_whoever_is_right(label: int, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 5e3]], dtype=dtype, requires_grad=True)
    tau = torch.tensor(1.0, requires_grad=True)
    result = dkd(student, teacher, torch.tensor([label]), tau)
    expected = reference(*(z.detach().double().numpy() for z in (student, teacher)), np.array([label]))
    np.testing.assert_allclose(result.detach().numpy(), expected[0] + 2 * expected[1], rtol=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.sum(), (student, teacher, tau)))


def test_constants_and_the_order_of_classes_change_nothing() -> None:
    student, teacher, label = draw(10, 3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(10))
    place = order.argsort()[label]
    moved = dkd(student[:, order] + 5, teacher[:, order] - 7, place, 4.0)
    torch.testing.assert_close(moved, dkd(student, teacher, label, 4.0))


@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_gradients_are_the_numerical_ones(shape: tuple[int, ...]) -> None:
    student, teacher, label = draw(5, 2, batch=3)
    tau = torch.full(shape, 2.5, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (student, teacher, tau, tau + 1)]
    assert torch.autograd.gradcheck(lambda s, t, a, b: dkd(s, t, label, TemperaturePair(a, b, a * b)), inputs)


def test_two_classes_are_refused_with_the_reason() -> None:
    student, teacher, label = draw(2, 1)
    with pytest.raises(ValueError, match=r"at least 3 classes.*losses=\[kd\]"):
        dkd(student, teacher, label)
    assert DKD.min_classes == 3  # and so it is refused before anything is trained


def test_the_loss_reads_label_and_temperature_and_says_what_it_needs() -> None:
    student, teacher, label = draw(10, 3)
    outputs = Outputs(student, teacher, label, temperature=torch.tensor(4.0))
    torch.testing.assert_close(DKD(2, 5)(outputs), dkd(student, teacher, label, 4.0, 2, 5))
    torch.testing.assert_close(DKD()(outputs), dkd(student, teacher, label, 4.0, 1, 2))
    assert DKD.needs_teacher and DKD.needs_temperature and DKD.needs_label and DKD.needs_one_label


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_the_other_classes_are_all_but_the_label_in_their_order(num_classes: int) -> None:
    logits = torch.randn(5, num_classes, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, num_classes - 1, 1, 0])
    rows = torch.stack([torch.cat([row[:k], row[k + 1 :]]) for row, k in zip(logits, label.tolist(), strict=True)])
    rest = rows.logsumexp(-1, keepdim=True)
    two, others = _decoupled(logits, label)
    assert torch.equal(others, rows - rest) and torch.equal(two, torch.cat([logits.gather(1, label[:, None]), rest], -1))
