"""SRRL reads the student's features with the teacher's own last layer, which it neither trains nor saves."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.losses.srrl import SRRL
from kdx.types import LossContext, Outputs

CLASSIFIER = nn.Linear(6, 4).requires_grad_(False)


def connected(student: Tensor, teacher: Tensor, relu: bool = True) -> tuple[SRRL, Outputs]:
    """The loss of a pair of features, connected, and outputs that hold them with the teacher's logits."""
    loss = SRRL({"student": "f", "teacher": "f"}, relu)
    shapes = {"f": student.shape[1:]}, {"f": teacher.shape[1:]}
    loss.connect(LossContext(4, 100, None, *shapes, teacher_classifier=CLASSIFIER))
    pooled = teacher.float() if teacher.ndim == 2 else teacher.float().mean((2, 3))
    logits = CLASSIFIER(pooled)
    return loss, Outputs(student, logits, student_features={"f": student}, teacher_features={"f": teacher})


@pytest.mark.parametrize("relu", [True, False])
def test_it_is_the_error_of_the_feature_plus_that_of_the_logits(relu: bool) -> None:
    student, teacher = torch.randn(8, 3), torch.randn(8, 6)
    loss, outputs = connected(student, teacher, relu)
    predicted = F.batch_norm(F.linear(student, loss.connector[0].weight), None, None, training=True)
    predicted = predicted.relu() if relu else predicted
    feature = F.mse_loss(predicted, teacher, reduction="none").mean(1)
    logits = F.mse_loss(CLASSIFIER(predicted), CLASSIFIER(teacher), reduction="none").mean(1)
    assert loss(outputs).shape == (8,)
    torch.testing.assert_close(loss(outputs), feature + logits)


def test_maps_and_tokens_are_averaged_over_positions() -> None:
    student, teacher = torch.randn(8, 3, 2, 2), torch.randn(8, 6, 4, 4)
    loss, outputs = connected(student, teacher)
    pooled = Outputs(
        student,
        outputs.teacher_logits,
        student_features={"f": student.mean((2, 3))},
        teacher_features={"f": teacher.mean((2, 3))},
    )
    torch.testing.assert_close(loss(outputs), loss(pooled))


def test_a_connector_that_finds_the_teachers_features_gives_zero() -> None:
    student = torch.randn(8, 6)
    loss, outputs = connected(student, F.batch_norm(student, None, None, training=True).relu())
    assert loss(outputs).max() > 0.1
    with torch.no_grad():
        loss.connector[0].weight.copy_(torch.eye(6))
    torch.testing.assert_close(loss(outputs), torch.zeros(8), atol=1e-10, rtol=0)


def test_the_teachers_layer_is_no_part_of_the_loss_and_survives_a_copy() -> None:
    loss, outputs = connected(torch.randn(8, 3), torch.randn(8, 6))
    assert all(name.startswith("connector.") for name in loss.state_dict())
    assert all(p is not CLASSIFIER.weight for p in loss.parameters())
    torch.testing.assert_close(copy.deepcopy(loss)(outputs), loss(outputs))
    before = CLASSIFIER.weight.clone()
    loss(outputs).sum().backward()
    assert CLASSIFIER.weight.grad is None and torch.equal(CLASSIFIER.weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_read_in_single_under_autocast(dtype: torch.dtype) -> None:
    student, teacher = (torch.randn(8, 3) * 1e4).to(dtype).requires_grad_(), (torch.randn(8, 6) * 100).to(dtype)
    loss, outputs = connected(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(outputs)
    single = Outputs(
        student, outputs.teacher_logits, student_features={"f": student.float()}, teacher_features={"f": teacher.float()}
    )
    torch.testing.assert_close(result, loss(single))
    result.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_gradients_are_the_numerical_ones() -> None:
    student, teacher = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    loss, outputs = connected(student, teacher)
    loss.double().classify = copy.deepcopy(CLASSIFIER).double()
    parameters = [student.requires_grad_(), *loss.connector.parameters()]
    assert torch.autograd.gradcheck(lambda *_: loss(outputs), parameters)


def test_without_a_teachers_layer_or_with_several_pairs_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"single last layer, .*teacher=online"):
        SRRL({"student": "f", "teacher": "f"}).connect(LossContext(4, 100))
    with pytest.raises(ValueError, match="one pair of features, got 2: set one path"):
        SRRL({"student": ["a", "b"], "teacher": ["a", "b"]})
