"""The squared error of logits is a mean over classes, and twice a limit of KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdx.losses import functional
from kdx.losses.mse import MSE
from kdx.types import Outputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_is_the_mean_square_over_classes(scale: float, num_classes: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.standard_normal((5, num_classes)) * scale).to(dtype) for _ in range(2))
    student.requires_grad_()
    result = MSE()(Outputs(student, teacher))
    difference = student.detach().double().numpy() - teacher.double().numpy()
    assert result.shape == (5,)
    np.testing.assert_allclose(result.detach().numpy(), (difference**2).sum(-1) / num_classes, rtol=1e-5)
    (gradient,) = torch.autograd.grad(result.sum(), student)
    np.testing.assert_allclose(gradient.double().numpy(), 2 * difference / num_classes, rtol=1e-2, atol=1e-5 * scale)


def test_the_teacher_with_itself_gives_zero() -> None:
    z = torch.randn(4, 7)
    assert MSE()(Outputs(z, z)).eq(0).all()


def test_it_is_twice_the_limit_of_kl_where_means_are_equal() -> None:
    student, teacher = (z - z.mean(-1, keepdim=True) for z in torch.randn(2, 4, 20, dtype=torch.float64))
    limit = functional.kl(student, teacher, 1e4)
    torch.testing.assert_close(functional.mean_squared_error(student, teacher), 2 * limit, rtol=1e-3, atol=0)


def test_gradients_are_the_numerical_ones() -> None:
    inputs = [z.requires_grad_() for z in torch.randn(2, 4, 5, dtype=torch.float64)]
    assert torch.autograd.gradcheck(functional.mean_squared_error, inputs)
