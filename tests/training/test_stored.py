"""Stored targets: what a teacher with fixed views says of train, looked up instead of computed again."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.teachers.teacher import Teacher
from kdx.training.stored import table
from kdx.types import Batch


class Linear(Teacher):
    """Logits are the mean of the image times fixed numbers."""

    num_classes = 3
    fingerprint = "none"
    num_parameters = 0

    def logits(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.tensor([1.0, -2.0, 5.0])

    def to(self, device: torch.device) -> None: ...


def passes(count: int) -> list[list[Batch]]:
    """So many looks at 7 examples, in batches, in another order each time."""
    found = []
    for number in range(count):
        torch.manual_seed(number)
        images, order = torch.rand(7, 1, 4, 4), torch.randperm(7)
        found.append([Batch(images[part], images[part], index=part) for part in order.split(3)])
    return found


def by_hand(looks: list[list[Batch]]) -> Tensor:
    """Probabilities [looks,N,K]."""
    rows = torch.zeros(len(looks), 7, 3)
    for k, look in enumerate(looks):
        for batch in look:
            assert batch.index is not None
            rows[k, batch.index] = Linear()(batch.student_images).softmax(-1)
    return rows


def test_one_look_keeps_the_logits_as_they_are() -> None:
    (look,) = passes(1)
    found = table(Linear(), [look], 7, torch.device("cpu"))
    for batch in look:
        assert torch.equal(found[batch.index], Linear()(batch.student_images))


def test_several_looks_average_probabilities_not_logits() -> None:
    looks = passes(5)
    found = table(Linear(), looks, 7, torch.device("cpu"))
    torch.testing.assert_close(found.exp(), by_hand(looks).mean(0), rtol=1e-5, atol=1e-6)


def test_the_teachers_calibration_is_in_the_stored_logits() -> None:
    teacher = Linear()
    teacher.calibration_temperature = 2.0
    looks = passes(1)
    torch.testing.assert_close(
        table(teacher, looks, 7, torch.device("cpu")) * 2, table(Linear(), looks, 7, torch.device("cpu"))
    )
