"""The distiller shows each network its own images, and asks the teacher and the temperature once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdx.distiller import Distiller
from kdx.networks.network import Network
from kdx.teachers.teacher import Teacher
from kdx.temperatures.base import Temperature
from kdx.training.step import forward
from kdx.types import Batch, Progress

PROGRESS = Progress(0.25, 3)


class Recorder(Teacher):
    """A teacher of given logits that keeps what it was shown."""

    fingerprint, num_parameters = "", 0

    def __init__(self, num_classes: int = 5) -> None:
        self.num_classes, self.seen = num_classes, list[Tensor]()

    def logits(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return torch.arange(images.shape[0] * self.num_classes).view(-1, self.num_classes)

    def to(self, device: torch.device) -> None:
        """Nothing to move."""


class Witness(Temperature):
    """A temperature that keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = list[tuple[Tensor, Tensor, Progress]]()

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Tensor:
        self.asked.append((student_logits, teacher_logits, progress))
        return torch.tensor(3.0)


@pytest.fixture
def batch() -> Batch:
    label = torch.tensor([0, 1])
    return Batch(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8), label, torch.eye(5)[label])


@pytest.fixture
def student() -> Network:
    return Network("cifar_resnet8", 5).eval()


def test_each_network_sees_its_own_images_and_labels_travel_along(student: Network, batch: Batch) -> None:
    teacher = Recorder()
    outputs = forward(Distiller(student, teacher, Witness()), batch, PROGRESS)
    assert len(teacher.seen) == 1 and teacher.seen[0] is batch.teacher_images
    torch.testing.assert_close(outputs.student_logits, student(batch.student_images))
    assert outputs.teacher_logits is not None and outputs.teacher_logits.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert outputs.label is batch.label and outputs.mixed_target is batch.mixed_target


@pytest.mark.parametrize("known", [False, True])
def test_the_temperature_is_computed_once_from_both_networks_logits(student: Network, batch: Batch, known: bool) -> None:
    witness = Witness()
    outputs = forward(Distiller(student, Recorder(), witness), batch, PROGRESS, torch.ones(2, 5) if known else None)
    assert len(witness.asked) == 1
    student_logits, teacher_logits, progress = witness.asked[0]
    assert student_logits is outputs.student_logits and teacher_logits is outputs.teacher_logits and progress is PROGRESS
    assert isinstance(outputs.temperature, Tensor) and outputs.temperature.item() == 3


def test_a_teacher_whose_logits_are_known_is_not_asked(student: Network, batch: Batch) -> None:
    teacher, known = Recorder(), torch.ones(2, 5)
    outputs = forward(Distiller(student, teacher, Witness()), batch, PROGRESS, known)
    assert outputs.teacher_logits is known and not teacher.seen


@pytest.mark.parametrize("teacher", [None, Recorder()], ids=["no teacher", "no images for it"])
def test_without_a_teachers_view_there_are_student_logits_alone(
    student: Network, batch: Batch, teacher: Recorder | None
) -> None:
    witness = Witness()
    outputs = forward(Distiller(student, teacher, witness), Batch(batch.student_images, None), PROGRESS)
    assert outputs.teacher_logits is None and outputs.temperature is None and not witness.asked
    assert outputs.student_logits.shape == (2, 5)


def test_logits_come_in_single_precision(student: Network, batch: Batch) -> None:
    half = Batch(batch.student_images.bfloat16(), batch.teacher_images)
    outputs = forward(Distiller(student.bfloat16(), Recorder(), Witness()), half, PROGRESS)
    assert outputs.teacher_logits is not None
    assert outputs.student_logits.dtype == outputs.teacher_logits.dtype == torch.float32


def test_a_teacher_of_other_classes_is_refused_with_both_numbers(student: Network) -> None:
    with pytest.raises(ValueError, match="teacher has 7 classes and the student 5"):
        Distiller(student, Recorder(7))
