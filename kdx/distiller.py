"""The distiller turns a batch into outputs: student, teacher, temperature."""

from __future__ import annotations

from torch import Tensor, nn

from kdx.networks.network import Network
from kdx.teachers.teacher import Teacher
from kdx.temperatures.base import Temperature
from kdx.types import Batch, Outputs, Progress


class Distiller(nn.Module):
    """(Batch, progress) -> Outputs. The temperature is computed once a step and travels with the outputs.

    The teacher is not a submodule: it is no part of `state_dict`, `parameters` or `train`.
    """

    def __init__(self, student: Network, teacher: Teacher | None = None, temperature: Temperature | None = None) -> None:
        super().__init__()
        if teacher is not None and teacher.num_classes != student.num_classes:
            raise ValueError(
                f"the teacher knows {teacher.num_classes} classes and the student {student.num_classes}: "
                "distillation compares class by class"
            )
        self.student = student
        self.temperature = temperature
        self.teacher = teacher

    def forward(self, batch: Batch, progress: Progress, teacher_logits: Tensor | None = None) -> Outputs:
        """Both networks' float32 logits [B,K]. `teacher_logits`, where they are known already, save the teacher's forward."""
        if teacher_logits is None and self.teacher is not None and batch.teacher_images is not None:
            teacher_logits = self.teacher(batch.teacher_images)
        student_logits = self.student(batch.student_images).float()
        temperature = None
        if teacher_logits is not None and self.temperature is not None:
            temperature = self.temperature(student_logits, teacher_logits, progress)
        return Outputs(student_logits, teacher_logits, batch.label, batch.target, temperature)
