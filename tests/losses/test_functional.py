"""KL and cross-entropy equal independent implementations, and stay finite where naive ones do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.task import LogitDistillationTask
from torch import Tensor, nn

from kdx.losses import functional
from kdx.types import TemperaturePair

HALVES = (torch.float16, torch.bfloat16)


def logits(seed: int, num_classes: int, scale: float = 1.0, batch: int = 6) -> Tensor:
    """float64 [batch,num_classes]."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, num_classes)) * scale)


def reference(
    student: Tensor, teacher: Tensor, teacher_temperature: float, student_temperature: float | None = None
) -> NDArray[np.float64]:
    """KL(teacher || student) [B] times the temperatures, in float64 and in NumPy."""

    def log_probs(z: NDArray[np.float64]) -> NDArray[np.float64]:
        z = z - z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    student_temperature = student_temperature or teacher_temperature
    p = log_probs(teacher.double().numpy() / teacher_temperature)
    q = log_probs(student.double().numpy() / student_temperature)
    return teacher_temperature * student_temperature * (np.exp(p) * (p - q)).sum(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_kl_equals_numpy(scale: float, num_classes: int, temperature: float, dtype: torch.dtype) -> None:
    student, teacher = logits(0, num_classes, scale).to(dtype), logits(1, num_classes, scale).to(dtype)
    relative, absolute = (1e-12, 1e-12) if dtype == torch.float64 else (1e-5, 1e-6)
    result = functional.kl(student, teacher, temperature)
    assert result.dtype == dtype and result.shape == (6,)
    expected = reference(student, teacher, temperature)
    np.testing.assert_allclose(result.numpy(), expected, relative, absolute * temperature**2)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kl_equals_torch_kl_div(temperature: float) -> None:
    student, teacher = logits(0, 100, 5), logits(1, 100, 5)
    inputs = (torch.log_softmax(z / temperature, -1) for z in (student, teacher))
    expected = F.kl_div(*inputs, reduction="none", log_target=True).sum(-1) * temperature**2
    torch.testing.assert_close(functional.kl(student, teacher, temperature), expected)


class Row(nn.Module):
    """A timm model whose logits are one row of its input [B,1,2,K]."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.0,), "std": (1.0,)}
        self.row, self.num_classes, self.in_chans = row, 10, 1

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, self.row]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_of_kl_and_ce_equals_timms_distillation_task(temperature: float) -> None:
    student, teacher = logits(0, 10, 3).float(), logits(1, 10, 3).float()
    label = torch.arange(6)
    task = LogitDistillationTask(
        Row(0), Row(1), nn.CrossEntropyLoss(), task_loss_weight=0.1, temperature=temperature, verbose=False
    )
    expected = task(torch.stack([student, teacher], 1)[:, None], label)
    kl = functional.kl(student, teacher, temperature).mean()
    ce = functional.cross_entropy(student, F.one_hot(label, 10).float()).mean()
    torch.testing.assert_close(kl, expected["kd_loss"])
    torch.testing.assert_close(0.1 * ce + 0.9 * kl, expected["loss"])


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_kl_of_the_teacher_with_itself_is_exactly_zero(scale: float, dtype: torch.dtype) -> None:
    z = logits(0, 100, scale).clamp(-6e4, 6e4).to(dtype)
    assert functional.kl(z, z.clone(), 4.0).eq(0).all()


def test_kl_is_not_symmetric_and_weighs_by_the_teacher() -> None:
    sure, unsure = torch.tensor([[10.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert functional.kl(sure, unsure).item() == pytest.approx(4.3069, abs=1e-4)  # the student misses half: -log 2 + 5
    assert functional.kl(unsure, sure).item() == pytest.approx(0.6926, abs=1e-4)  # the student hedges: log 2 at most


def test_kl_and_its_gradient_tend_to_half_the_centered_square_as_temperature_grows() -> None:
    student, teacher = logits(0, 50, 3).requires_grad_(), logits(1, 50, 3)
    difference = student.detach() - teacher
    centered = difference - difference.mean(-1, keepdim=True)
    result = functional.kl(student, teacher, 1e4)
    (gradient,) = torch.autograd.grad(result.sum(), student)
    torch.testing.assert_close(result.detach(), centered.square().sum(-1) / 2 / 50, rtol=1e-3, atol=0)
    torch.testing.assert_close(gradient, centered / 50, rtol=0, atol=1e-3 * float(centered.abs().max()) / 50)


@pytest.mark.parametrize("shift", ["student", "teacher"])
def test_kl_does_not_see_a_constant_added_to_the_logits(shift: str) -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    constant = torch.linspace(-100, 100, 6, dtype=torch.float64)[:, None]
    moved = (student + constant, teacher) if shift == "student" else (student, teacher + constant)
    torch.testing.assert_close(functional.kl(*moved, 4.0), functional.kl(student, teacher, 4.0))


def test_kl_does_not_depend_on_the_order_of_classes() -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    order = torch.from_numpy(np.random.default_rng(2).permutation(10))
    torch.testing.assert_close(functional.kl(student[:, order], teacher[:, order], 4.0), functional.kl(student, teacher, 4.0))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_kl_is_exact_and_its_gradients_finite_for_opposite_logits_of_ten_thousand(
    dtype: torch.dtype, temperature: float
) -> None:
    student = torch.tensor([[1e4, -1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4]], dtype=dtype, requires_grad=True)
    tau = torch.tensor(temperature, requires_grad=True)
    result = functional.kl(student, teacher, tau)
    gap = 2 * float(student.detach().abs().max())  # bfloat16 has no 10000
    assert result.item() == pytest.approx(temperature * gap, rel=1e-6)
    gradients = torch.autograd.grad(result.sum(), (student, teacher, tau))
    assert gradients[0].flatten().tolist() == pytest.approx([temperature, -temperature])
    assert gradients[1].isfinite().all()
    assert gradients[2].item() == pytest.approx(gap, rel=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_logits_are_read_in_single_precision(dtype: torch.dtype) -> None:
    student, teacher = logits(0, 1000, 3).to(dtype), logits(1, 1000, 3).to(dtype)
    assert torch.equal(functional.kl(student, teacher, 4.0), functional.kl(student.float(), teacher.float(), 4.0))


def test_a_temperature_per_example_equals_a_loop() -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    temperature = torch.tensor([0.5, 1, 2, 4, 10, 20], dtype=torch.float64)
    loop = [functional.kl(student[i : i + 1], teacher[i : i + 1], float(t)) for i, t in enumerate(temperature)]
    torch.testing.assert_close(functional.kl(student, teacher, temperature[:, None]), torch.cat(loop))


@pytest.mark.parametrize("shape", [(), (6, 1)])
def test_a_temperature_for_each_network_tempers_it_and_is_squared_as_it_says(shape: tuple[int, ...]) -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    apart = TemperaturePair(torch.full(shape, 2.0), torch.full(shape, 5.0), torch.full(shape, 7.0))
    expected = reference(student, teacher, 2.0, 5.0) / 10
    np.testing.assert_allclose(functional.kl(student, teacher, apart).numpy(), 7 * expected, rtol=1e-6)
    np.testing.assert_allclose(functional.kl(student, teacher, apart, tau_squared=False).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [4.0, torch.tensor(4.0), torch.full((6, 1), 4.0)])
def test_without_tau_squared_the_loss_is_the_divergence_itself(temperature: Tensor | float) -> None:
    student, teacher = logits(0, 10, 3), logits(1, 10, 3)
    plain = functional.kl(student, teacher, temperature, tau_squared=False)
    np.testing.assert_allclose(plain.numpy(), reference(student, teacher, 4.0) / 16, rtol=1e-12)


@pytest.mark.parametrize("tau_squared", [True, False])
@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_gradients_of_kl_are_the_numerical_ones(shape: tuple[int, ...], tau_squared: bool) -> None:
    temperature = torch.full(shape, 2.5, dtype=torch.float64)
    inputs = [logits(0, 5, 2, 3), logits(1, 5, 2, 3), temperature, temperature + 1]
    assert torch.autograd.gradcheck(
        lambda s, t, tau, own: functional.kl(s, t, TemperaturePair(tau, own, tau * own), tau_squared),
        [x.requires_grad_() for x in inputs],
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_cross_entropy_equals_torch_with_labels_and_mixed_targets(share: float, scale: float, dtype: torch.dtype) -> None:
    z = logits(0, 10, scale).clamp(-6e4, 6e4).to(dtype).requires_grad_()
    one_hot = F.one_hot(torch.tensor([3, 1, 4, 1, 5, 9]), 10).double()
    target = (share * one_hot + (1 - share) * one_hot.roll(1, 0)).to(torch.promote_types(dtype, torch.float32))
    result = functional.cross_entropy(z, target)
    torch.testing.assert_close(result, F.cross_entropy(z.to(target.dtype), target, reduction="none"))
    (gradient,) = torch.autograd.grad(result.sum(), z)
    assert gradient.isfinite().all()
