"""PKT equals NumPy written out, has its invariances, and is finite where cosines are undefined or opposite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kdx.losses.pkt import PKT, affinities, pkt
from kdx.types import Outputs

HALVES = (torch.float16, torch.bfloat16)


def reference(student: np.ndarray, teacher: np.ndarray) -> float:
    """Double loops over pairs of examples."""

    def chances(features: np.ndarray) -> np.ndarray:
        size = len(features)
        similarity = np.empty((size, size))
        for i in range(size):
            for j in range(size):
                norms = np.linalg.norm(features[i]) * np.linalg.norm(features[j])
                similarity[i, j] = (features[i] @ features[j] / norms + 1) / 2
        return similarity / similarity.sum(1, keepdims=True)

    q, p = chances(student), chances(teacher)
    return float((p * np.log(p / q)).mean())


def draw(scale: float = 1.0, batch: int = 6) -> tuple[Tensor, Tensor]:
    """float64 features of different widths."""
    rng = np.random.default_rng(0)
    return tuple(torch.from_numpy(rng.standard_normal((batch, width)) * scale) for width in (5, 8))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_it_equals_numpy_at_any_scale(scale: float) -> None:
    student, teacher = draw(scale)
    expected = reference(student.numpy(), teacher.numpy())
    assert pkt(student, teacher).shape == ()
    assert pkt(student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert pkt(student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-4)


def test_affinities_are_probabilities_that_favor_the_similar() -> None:
    found = affinities(torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])).exp()
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert found[0, 0] > found[0, 1] > found[0, 2] and found[0, 2] < 1e-6


def test_the_teacher_with_itself_gives_exactly_zero_and_so_does_a_turned_and_scaled_one() -> None:
    teacher = draw()[1].float()
    assert pkt(teacher, teacher.clone()).item() == 0
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    assert pkt(3 * draw()[1] @ turn, draw()[1]).item() == pytest.approx(0, abs=1e-15)


def test_the_order_of_examples_does_not_matter() -> None:
    student, teacher = draw()
    torch.testing.assert_close(pkt(student.flip(0), teacher.flip(0)), pkt(student, teacher))


@pytest.mark.parametrize("student", [[[1.0], [-1.0]], [[0.0], [1.0]], [[0.0], [0.0]]])
def test_opposite_and_zero_features_give_finite_values_and_gradients(student: list[list[float]]) -> None:
    feature = torch.tensor(student, requires_grad=True)
    result = pkt(feature, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    (gradient,) = torch.autograd.grad(result, feature)
    assert result.isfinite() and result >= 0 and gradient.isfinite().all() and gradient.abs().max() < 10


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_features_are_read_in_single(dtype: torch.dtype) -> None:
    student, teacher = (feature.to(dtype) for feature in draw(1e4))
    student.requires_grad_()
    loss = PKT({"student": "f", "teacher": "f"})
    result = loss(Outputs(student, student_features={"f": student}, teacher_features={"f": teacher}))
    assert result.item() == pytest.approx(pkt(student.float(), teacher.float()).item(), rel=1e-6)
    assert torch.autograd.grad(result, student)[0].isfinite().all()


def test_gradients_are_the_numerical_ones() -> None:
    assert torch.autograd.gradcheck(pkt, [feature.requires_grad_() for feature in draw()])


def test_maps_are_flattened_and_pairs_summed() -> None:
    maps, tokens, pooled = torch.randn(4, 3, 2, 2), torch.randn(4, 5, 6), torch.randn(4, 7)
    loss = PKT({"student": ["m", "p"], "teacher": ["t", "t"]})
    outputs = Outputs(pooled, student_features={"m": maps, "p": pooled}, teacher_features={"t": tokens})
    flat = tokens.flatten(1)
    torch.testing.assert_close(loss(outputs), pkt(maps.flatten(1), flat) + pkt(pooled, flat))
