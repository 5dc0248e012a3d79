"""What the preflight says of a teacher: a cause before its effects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdx.networks.network import Network
from kdx.networks.normalization import Normalization
from kdx.teachers.class_order import Classes
from kdx.teachers.teacher import OnlineTeacher
from kdx.training.preflight import inspect
from kdx.types import Batch

LABEL = torch.arange(40) % 2


class Brightness(nn.Module):
    """Answers 1 for images that are positive on average, else 0; or the other way around."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, images: Tensor) -> Tensor:
        brightness = self.sign * images.mean((1, 2, 3))
        return torch.stack([-brightness, brightness], 1)


def faults(mean: float, sign: float = 1.0, other: float | None = None) -> list[str]:
    """The kinds of faults of a teacher with this normalization, for dark images of class 0 and bright ones of class 1."""
    network = Network("cifar_resnet8", 2, 1, mean=[mean], std=[0.5])
    network.model = Brightness(sign)
    teacher = OnlineTeacher(network, alternatives=[] if other is None else [Normalization((other,), (0.5,), "elsewhere")])
    images = (0.2 + 0.6 * LABEL)[:, None, None, None].expand(-1, 1, 8, 8)
    batch = Batch(images, images, LABEL)
    found = inspect(teacher, [batch], None, 2, classes={"teacher": Classes(None, str)})
    return [fault.kind for fault in found.faults if fault.certain]


def test_a_wrong_normalization_comes_before_the_constant_answers_that_it_causes() -> None:
    assert faults(mean=0.0, other=0.5) == ["teacher_normalization", "teacher_is_constant"]
    assert faults(mean=0.5, other=0.0) == []


def test_no_other_normalization_is_proposed_for_outputs_in_another_order() -> None:
    assert faults(mean=0.5, sign=-1.0, other=0.0) == ["teacher_class_order", "teacher_at_chance"]
