"""Losses that compare features: which ones, and what both have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdx.losses.functional import upcast
from kdx.losses.objective import Loss
from kdx.types import LossContext, Outputs

Paths = Mapping[str, str | Sequence[str]]


class FeatureLoss(Loss):
    """A loss over pairs of features: the student's at one path, the teacher's at another.

    `features` is {student: path, teacher: path}, or two lists of equal length. A path is "pooled" (what the last layer gets,
    [B,F]), "stage1", "stage2" ... or "stage-1" (the output of a stage, counted from the input or from the end), or any
    module's name, such as "layer3.0.conv1". The comparison is made in single precision, also where the networks run in half.
    """

    needs_teacher = True

    def __init__(self, features: Paths) -> None:
        super().__init__()
        if set(features) != {"student", "teacher"}:
            raise ValueError(f"features need a path for the student and one for the teacher, got {sorted(features)}")
        student, teacher = (_listed(features[who]) for who in ("student", "teacher"))
        if len(student) != len(teacher) or not student:
            raise ValueError(f"features come in pairs: {len(student)} paths for the student, {len(teacher)} for the teacher")
        self.student_features, self.teacher_features = student, teacher

    def pairs(self, outputs: Outputs) -> list[tuple[Tensor, Tensor]]:
        """The student's and the teacher's features, pair by pair."""
        paths = zip(self.student_features, self.teacher_features, strict=True)
        return [
            (upcast(outputs.student_features[student]), upcast(outputs.teacher_features[teacher])) for student, teacher in paths
        ]

    def shapes(self, context: LossContext) -> list[tuple[torch.Size, torch.Size]]:
        """The shapes of the same without the batch."""
        paths = zip(self.student_features, self.teacher_features, strict=True)
        return [(context.student_features[student], context.teacher_features[teacher]) for student, teacher in paths]

    def require_one_pair(self) -> None:
        """Raise ValueError if there are more."""
        if len(self.student_features) > 1:
            raise ValueError(
                f"{type(self).__name__} compares one pair of features, got {len(self.student_features)}: name one path each"
            )

    def forward(self, outputs: Outputs) -> Tensor:
        with torch.autocast(outputs.student_logits.device.type, enabled=False):
            return self.compare(outputs)

    @abstractmethod
    def compare(self, outputs: Outputs) -> Tensor:
        """The loss, unreduced and without a weight; the body of `forward`."""


def _listed(paths: str | Sequence[str]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
