"""RKD equals loops over pairs and triples, also in parts, and is finite where features coincide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from kdx.losses.rkd import RKD, angle_loss, distance_loss
from kdx.types import Outputs


def huber(x: float) -> float:
    """Huber loss with threshold 1."""
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def distance_reference(student: np.ndarray, teacher: np.ndarray) -> float:
    """The mean over all ordered pairs, an example with itself included."""
    size = len(student)
    relative = []
    for features in (student, teacher):
        distances = np.array([[np.linalg.norm(a - b) for a in features] for b in features])
        relative.append(distances / distances[~np.eye(size, dtype=bool)].mean())
    return float(np.mean([huber(a - b) for a, b in zip(relative[0].ravel(), relative[1].ravel(), strict=True)]))


def angle_reference(student: np.ndarray, teacher: np.ndarray) -> float:
    """The mean over all ordered triples; those with two equal members have no angle and count 0."""
    size, total = len(student), 0.0
    for i, j, k in itertools.product(range(size), repeat=3):
        if j in (i, k):
            continue
        cosines = []
        for f in (student, teacher):
            a, b = f[i] - f[j], f[k] - f[j]
            cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        total += huber(cosines[0] - cosines[1])
    return total / size**3


def draw(scale: float = 1.0, batch: int = 6) -> tuple[Tensor, Tensor]:
    """float64 features of different widths, whose relative distances differ by more than the threshold somewhere."""
    rng = np.random.default_rng(0)
    student, teacher = (rng.standard_normal((batch, width)) * scale for width in (5, 8))
    student[0] *= 6
    return torch.from_numpy(student), torch.from_numpy(teacher)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_it_equals_loops_at_any_scale(scale: float) -> None:
    student, teacher = draw(scale)
    for loss, reference in ((distance_loss, distance_reference), (angle_loss, angle_reference)):
        expected = reference(student.numpy(), teacher.numpy())
        assert loss(student, teacher).shape == ()
        assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)
        assert loss(student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("entries", [1, 6 * 8, 6 * 8 * 4, 6 * 8 * 6])
def test_angles_in_parts_are_those_of_all_at_once_with_their_gradients(entries: int) -> None:
    student, teacher = draw()
    student.requires_grad_()
    whole, parts = angle_loss(student, teacher), angle_loss(student, teacher, entries)
    torch.testing.assert_close(parts, whole)
    gradients = [torch.autograd.grad(value, student)[0] for value in (whole, parts)]
    torch.testing.assert_close(*gradients)


def test_the_teacher_with_itself_gives_zero_and_so_does_a_moved_turned_and_scaled_one() -> None:
    teacher = draw()[1]
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    for loss in (distance_loss, angle_loss):
        assert loss(teacher, teacher.clone()).item() == 0
        assert loss(3 * teacher @ turn + 5, teacher).item() == pytest.approx(0, abs=1e-15)


def test_the_order_of_examples_does_not_matter() -> None:
    student, teacher = draw()
    for loss in (distance_loss, angle_loss):
        torch.testing.assert_close(loss(student.flip(0), teacher.flip(0)), loss(student, teacher))


@pytest.mark.parametrize("student", [[[1.0], [1.0], [2.0]], [[1.0], [1.0], [1.0]], [[0.0], [0.0], [0.0]]])
def test_features_that_coincide_give_finite_values_and_gradients(student: list[list[float]]) -> None:
    feature, teacher = torch.tensor(student, requires_grad=True), torch.randn(3, 4)
    for loss in (distance_loss, angle_loss):
        result = loss(feature, teacher)
        (gradient,) = torch.autograd.grad(result, feature)
        assert result.isfinite() and gradient.isfinite().all() and gradient.abs().max() < 10


def test_one_example_has_no_relations() -> None:
    student = torch.randn(1, 4, requires_grad=True)
    for loss in (distance_loss, angle_loss):
        result = loss(student, torch.randn(1, 5))
        assert result.item() == 0 and torch.autograd.grad(result, student)[0].eq(0).all()


def test_gradients_are_the_numerical_ones() -> None:
    for loss in (distance_loss, angle_loss):
        assert torch.autograd.gradcheck(loss, [feature.requires_grad_() for feature in draw(batch=4)])


def test_the_loss_weighs_distances_25_and_angles_50_of_flattened_features_and_sums_pairs() -> None:
    maps, pooled = torch.randn(4, 3, 2, 2), torch.randn(4, 7)
    outputs = Outputs(pooled, student_features={"m": maps, "p": pooled}, teacher_features={"t": pooled})
    flat = maps.flatten(1)
    expected = 25 * distance_loss(flat, pooled) + 50 * angle_loss(flat, pooled)
    loss = RKD({"student": ["m", "p"], "teacher": ["t", "t"]})
    torch.testing.assert_close(loss(outputs), expected)
    only = RKD({"student": "m", "teacher": "t"}, distance=0, angle=2)
    torch.testing.assert_close(only(outputs), 2 * angle_loss(flat, pooled))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_read_in_single_under_autocast(dtype: torch.dtype) -> None:
    student, teacher = (feature.to(dtype) for feature in draw(1e3))
    student.requires_grad_()
    loss = RKD({"student": "f", "teacher": "f"})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(Outputs(student, student_features={"f": student}, teacher_features={"f": teacher}))
    single = 25 * distance_loss(student.float(), teacher.float()) + 50 * angle_loss(student.float(), teacher.float())
    torch.testing.assert_close(result, single)
    assert torch.autograd.grad(result, student)[0].isfinite().all()
