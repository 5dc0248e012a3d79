"""Attention transfer equals NumPy written out, over maps of different sizes and tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.losses.at import AT, attention
from kdx.losses.projectors import grid, positions
from kdx.types import Outputs


def of(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """The loss of one pair."""
    features = {"student_features": {"f": student}, "teacher_features": {"f": teacher}}
    return AT({"student": "f", "teacher": "f"}, power)(Outputs(student, **features))


def reference(student: np.ndarray, teacher: np.ndarray, power: float) -> list[float]:
    """Per example, for maps of one size."""
    losses = []
    for pair in zip(student, teacher, strict=True):
        maps = [(np.abs(feature) ** power).mean(0).ravel() for feature in pair]
        a, b = (m / np.sqrt((m**2).sum()) for m in maps)
        losses.append(float(((a - b) ** 2).mean()))
    return losses


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_it_equals_numpy(scale: float, power: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((3, 5, 4, 6)) * scale, rng.standard_normal((3, 2, 4, 6)) * scale
    expected = reference(student, teacher, power)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        result = of(torch.from_numpy(student).to(dtype), torch.from_numpy(teacher).to(dtype), power)
        assert result.shape == (3,)
        np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance)


def test_maps_of_different_sizes_meet_at_the_smaller_and_channels_need_not_agree() -> None:
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(of(student, teacher), of(F.avg_pool2d(student, 2), teacher))
    torch.testing.assert_close(of(teacher, student), of(student, teacher))


def test_tokens_are_compared_with_a_map_on_its_grid() -> None:
    tokens, image = torch.randn(2, 17, 6), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(of(image, tokens), of(image, grid(tokens)))


def test_the_same_map_gives_zero_whatever_its_scale_and_channels() -> None:
    feature = torch.randn(2, 3, 4, 4)
    assert of(feature, feature.clone()).eq(0).all()
    torch.testing.assert_close(of(torch.cat([feature, feature], 1) * 3, feature), torch.zeros(2), atol=1e-13, rtol=0)


def test_a_dead_map_gives_finite_gradients() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    result = of(student, torch.randn(2, 3, 4, 4))
    assert result.isfinite().all() and torch.autograd.grad(result.sum(), student)[0].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_read_in_single(dtype: torch.dtype) -> None:
    student, teacher = (torch.randn(2, 3, 4, 4) * 1e4).to(dtype).requires_grad_(), torch.randn(2, 3, 4, 4).to(dtype)
    result = of(student, teacher)
    torch.testing.assert_close(result, of(student.float(), teacher.float()))
    assert torch.autograd.grad(result.sum(), student)[0].isfinite().all()


def test_several_pairs_are_summed() -> None:
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)
    loss = AT({"student": ["a", "b"], "teacher": ["b", "a"]})
    outputs = Outputs(a, student_features={"a": a, "b": b}, teacher_features={"a": a, "b": b})
    torch.testing.assert_close(loss(outputs), of(a, b) + of(b, a))


def test_gradients_are_the_numerical_ones() -> None:
    student, teacher = (torch.randn(2, 3, 4, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(of, [student, teacher])


def test_attention_is_of_length_1() -> None:
    found = attention(positions(torch.randn(2, 3, 4, 4)))
    torch.testing.assert_close(found.square().sum(-1), torch.ones(2))
