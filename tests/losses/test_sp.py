"""SP equals NumPy written out, has its invariances, and is finite at any scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kdx.losses.sp import SP, sp
from kdx.types import Outputs

HALVES = (torch.float16, torch.bfloat16)


def reference(student: np.ndarray, teacher: np.ndarray) -> float:
    """The squared Frobenius norm of the difference of row-normalized Gram matrices, over B²."""
    grams = []
    for features in (student, teacher):
        gram = np.einsum("if,jf->ij", features, features)
        grams.append(gram / np.sqrt((gram**2).sum(1, keepdims=True)))
    return float(np.linalg.norm(grams[0] - grams[1], "fro") ** 2 / len(student) ** 2)


def draw(scale: float = 1.0, batch: int = 6) -> tuple[Tensor, Tensor]:
    """float64 features of different widths."""
    rng = np.random.default_rng(0)
    return tuple(torch.from_numpy(rng.standard_normal((batch, width)) * scale) for width in (5, 8))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e25])
def test_it_equals_numpy_at_any_scale(scale: float) -> None:
    student, teacher = draw(scale)
    expected = reference(*(feature.numpy() for feature in draw()))
    assert sp(student, teacher).shape == ()
    assert sp(student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert sp(student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-4)


def test_the_teacher_with_itself_gives_zero_and_so_does_a_turned_and_scaled_one() -> None:
    teacher = draw()[1]
    assert sp(teacher, teacher.clone()).item() == 0
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    assert sp(3 * teacher @ turn, teacher).item() == pytest.approx(0, abs=1e-15)


def test_the_order_of_examples_does_not_matter() -> None:
    student, teacher = draw()
    torch.testing.assert_close(sp(student.flip(0), teacher.flip(0)), sp(student, teacher))


@pytest.mark.parametrize("student", [[[0.0], [1.0]], [[0.0], [0.0]]])
def test_zero_features_give_finite_values_and_gradients(student: list[list[float]]) -> None:
    feature = torch.tensor(student, requires_grad=True)
    result = sp(feature, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    (gradient,) = torch.autograd.grad(result, feature)
    assert result.isfinite() and gradient.isfinite().all() and gradient.abs().max() < 10


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_features_are_read_in_single(dtype: torch.dtype) -> None:
    student, teacher = (feature.to(dtype) for feature in draw(1e4))
    student.requires_grad_()
    loss = SP({"student": "f", "teacher": "f"})
    result = loss(Outputs(student, student_features={"f": student}, teacher_features={"f": teacher}))
    assert result.item() == pytest.approx(sp(student.float(), teacher.float()).item(), rel=1e-6)
    assert torch.autograd.grad(result, student)[0].isfinite().all()


def test_gradients_are_the_numerical_ones() -> None:
    assert torch.autograd.gradcheck(sp, [feature.requires_grad_() for feature in draw()])


def test_maps_are_flattened_and_pairs_summed() -> None:
    maps, tokens, pooled = torch.randn(4, 3, 2, 2), torch.randn(4, 5, 6), torch.randn(4, 7)
    loss = SP({"student": ["m", "p"], "teacher": ["t", "t"]})
    outputs = Outputs(pooled, student_features={"m": maps, "p": pooled}, teacher_features={"t": tokens})
    flat = tokens.flatten(1)
    torch.testing.assert_close(loss(outputs), sp(maps.flatten(1), flat) + sp(pooled, flat))
