"""Temperatures that differ between the teacher and the student."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.ranges import validated
from kdx.temperatures.base import Temperature
from kdx.types import Progress, TemperaturePair

EPS = 1e-7  # as in the authors' code


@validated
class PerNetwork(Temperature):
    """One temperature for the teacher's logits and one for the student's; their product replaces τ².

    Raises ValueError if one of the two is a temperature per network itself.
    """

    per_network = True

    def __init__(self, teacher: Temperature, student: Temperature) -> None:
        super().__init__()
        for name, temperature in (("teacher", teacher), ("student", student)):
            if temperature.per_network:
                raise ValueError(
                    f"PerNetwork: temperature.{name} must be a single temperature, got {type(temperature).__name__}: "
                    "use another one, such as Constant"
                )
        self.teacher, self.student = teacher, student

    def connect(self, num_classes: int) -> None:
        self.teacher.connect(num_classes)
        self.student.connect(num_classes)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> TemperaturePair:
        teacher = self.teacher(student_logits, teacher_logits, progress)
        student = self.student(student_logits, teacher_logits, progress)
        return TemperaturePair(teacher, student, teacher * student)

    def telemetry(self, progress: Progress) -> dict[str, float]:
        both = {"teacher": self.teacher.telemetry(progress), "student": self.student.telemetry(progress)}
        return {f"{name}_{role}": value for role, values in both.items() for name, value in values.items()}

    def complaint(self) -> str | None:
        return self.teacher.complaint() or self.student.complaint()


@validated
class Standardized(Temperature):
    """Temperature per network: `base` times the standard deviation of the network's logits over the classes, [B,1].

    KL then compares softmax(z-score(logits) / τ), because subtracting the mean does not change a softmax: the student does not
    have to match the scale of the teacher's logits. τ² is that of `base`. The gradient flows through the student's standard
    deviation (n - 1 in the denominator). Equal logits, as from a last layer of zeros, give gradients of about 1e7: set
    trainer.gradient_clip_val.

    Reference: Sun et al., arXiv:2403.01427; on CIFAR-100 mostly with a base of 2 and a loss weight of 9.
    """

    per_network = True

    def __init__(self, base: Temperature) -> None:
        super().__init__()
        self.base = base

    def connect(self, num_classes: int) -> None:
        self.base.connect(num_classes)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> TemperaturePair:
        base = self.base(student_logits, teacher_logits, progress)
        if not isinstance(base, TemperaturePair):
            base = TemperaturePair(base, base, base * base)
        return TemperaturePair(
            base.teacher * _deviation(teacher_logits), base.student * _deviation(student_logits), base.squared
        )

    def telemetry(self, progress: Progress) -> dict[str, float]:
        return self.base.telemetry(progress)

    def complaint(self) -> str | None:
        return self.base.complaint()


def _deviation(logits: Tensor) -> Tensor:
    """The standard deviation over the classes [B,1], in at least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).std(-1, keepdim=True) + EPS
