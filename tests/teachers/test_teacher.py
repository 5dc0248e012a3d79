"""A teacher stays as it graduated: frozen, in eval mode, and out of everybody's state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdx.distiller import Distiller
from kdx.losses.kl import KL
from kdx.losses.objective import Objective, Term
from kdx.networks.network import Network
from kdx.teachers.teacher import OnlineTeacher
from kdx.temperatures.curriculum import Curriculum
from kdx.training.step import forward
from kdx.types import Batch, Progress


@pytest.fixture
def teacher() -> OnlineTeacher:
    torch.manual_seed(0)
    return OnlineTeacher(Network("cifar_resnet8", 5, args={"drop_rate": 0.5}))


@pytest.fixture
def distiller(teacher: OnlineTeacher) -> Distiller:
    return Distiller(Network("cifar_resnet8", 5), teacher, Curriculum())


def test_training_a_student_leaves_weights_statistics_and_mode_of_the_teacher_alone(
    distiller: Distiller, teacher: OnlineTeacher
) -> None:
    images, before = torch.rand(8, 3, 8, 8), teacher.fingerprint
    student_before, logits_before = distiller.student.model.conv1.weight.detach().clone(), teacher(images)
    objective = Objective({"kl": Term(KL())})
    optimizer = torch.optim.SGD([*distiller.parameters(), *objective.parameters()], lr=0.1, weight_decay=0.1)
    for _ in range(5):
        distiller.train()
        optimizer.zero_grad()
        objective(forward(distiller, Batch(images, images), Progress(0.5, 9))).loss.backward()
        optimizer.step()
    assert not torch.equal(distiller.student.model.conv1.weight, student_before), "nothing was trained"
    assert distiller.student.training and not any(module.training for module in teacher.network.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())
    assert teacher.fingerprint == before
    assert torch.equal(teacher(images), logits_before)


@pytest.mark.parametrize(("own", "callers"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_its_precision_is_apart_from_that_of_the_student(own: torch.dtype, callers: torch.dtype) -> None:
    torch.manual_seed(0)
    network, images = Network("cifar_resnet8", 5), torch.rand(8, 3, 8, 8)
    expected = {torch.float32: OnlineTeacher(network)(images)}
    with torch.autocast("cpu", torch.bfloat16):
        expected[torch.bfloat16] = OnlineTeacher(network)(images)
    assert not torch.equal(expected[own], expected[callers])
    with torch.autocast("cpu", callers, enabled=callers != torch.float32):
        logits = OnlineTeacher(network, dtype=own)(images)
    assert torch.equal(logits, expected[own]) and logits.dtype == torch.float32


def test_no_optimizer_or_checkpoint_can_find_it(distiller: Distiller, teacher: OnlineTeacher) -> None:
    own = {id(tensor) for tensor in teacher.network.state_dict(keep_vars=True).values()}
    assert own.isdisjoint({id(tensor) for tensor in distiller.state_dict(keep_vars=True).values()})
    assert own.isdisjoint({id(p) for p in distiller.parameters()})
    assert {name.split(".")[0] for name in distiller.state_dict()} == {"student", "temperature"}


@pytest.mark.parametrize("kind", [Network, nn.BatchNorm2d])
def test_it_objects_when_somebody_puts_a_part_of_it_in_train_mode(teacher: OnlineTeacher, kind: type[nn.Module]) -> None:
    next(module for module in teacher.network.modules() if isinstance(module, kind)).training = True
    with pytest.raises(AssertionError, match="the teacher left eval mode"):
        teacher(torch.rand(2, 3, 8, 8))


def test_its_logits_carry_no_gradient_even_to_the_images(teacher: OnlineTeacher) -> None:
    assert not teacher(torch.rand(2, 3, 8, 8, requires_grad=True)).requires_grad


@pytest.mark.parametrize("calibration_temperature", [0.5, 1.0, 2.5])
def test_the_calibration_temperature_divides_the_logits(teacher: OnlineTeacher, calibration_temperature: float) -> None:
    images = torch.rand(2, 3, 8, 8)
    plain = teacher.network(images)
    teacher.calibration_temperature = calibration_temperature
    torch.testing.assert_close(teacher(images), plain / calibration_temperature)


def test_a_half_precision_network_still_teaches_in_single_precision(teacher: OnlineTeacher) -> None:
    teacher.network.bfloat16()
    assert teacher(torch.rand(2, 3, 8, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_it_says_who_it_is(teacher: OnlineTeacher) -> None:
    assert teacher.num_classes == 5 and teacher.num_parameters == teacher.network.num_parameters
    before = teacher.fingerprint
    teacher.network.model.fc.bias[0] += 1
    assert teacher.fingerprint != before
