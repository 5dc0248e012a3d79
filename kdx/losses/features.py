"""Base class of the losses that compare features of student and teacher."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdx.losses.functional import upcast
from kdx.losses.objective import Loss
from kdx.types import LossContext, Outputs

Paths = Mapping[str, str | Sequence[str]]
STAGES = "stages"


class FeatureLoss(Loss):
    """A loss over pairs of features: the student's at one path, the teacher's at another.

    `features` is {student: path, teacher: path}, or two lists of equal length. A path is "pooled" (the input of the last layer,
    [B,F]), "stage1", "stage2" ... or "stage-1" (the output of a stage, counted from the input or from the end), or the name of
    any module, such as "layer3.0.conv1". "stages", for both networks, are as many of the last stages as both have, up to four.
    Features are compared in float32, even if the networks run in half precision.
    """

    needs_teacher = True

    def __init__(self, features: Paths) -> None:
        super().__init__()
        if set(features) != {"student", "teacher"}:
            raise ValueError(f"Invalid keys in features: {sorted(features)}; set features.student and features.teacher")
        student, teacher = (listed(features[role]) for role in ("student", "teacher"))
        if len(student) != len(teacher) or not student:
            raise ValueError(
                f"features has {len(student)} student paths and {len(teacher)} teacher paths: set the same number of both"
            )
        if (STAGES in student or STAGES in teacher) and not student == teacher == (STAGES,):
            raise ValueError("features: stages is for both networks, alone: set features={student: stages, teacher: stages}")
        self.student_features, self.teacher_features = student, teacher

    def pairs(self, outputs: Outputs) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of (student feature, teacher feature), in at least float32."""
        student, teacher = outputs.student_features, outputs.teacher_features
        return [(upcast(student[one]), upcast(teacher[other])) for one, other in self._paths(student, teacher)]

    def shapes(self, context: LossContext) -> list[tuple[torch.Size, torch.Size]]:
        """Return the shapes of the pairs, without the batch dimension."""
        student, teacher = context.student_features, context.teacher_features
        return [(student[one], teacher[other]) for one, other in self._paths(student, teacher)]

    def _paths(self, student: Mapping[str, object], teacher: Mapping[str, object]) -> list[tuple[str, str]]:
        """Return the pairs of paths, given the features that the networks have."""
        if self.student_features != (STAGES,):
            return list(zip(self.student_features, self.teacher_features, strict=True))
        return [(path, path) for path in expanded((STAGES,), student) if path in teacher]

    def require_one_pair(self) -> None:
        """Raise ValueError unless exactly one pair of features is configured."""
        if len(self.student_features) > 1:
            raise ValueError(
                f"{type(self).__name__} takes one pair of features, got {len(self.student_features)}: "
                "set one path for the student and one for the teacher"
            )

    def forward(self, outputs: Outputs) -> Tensor:
        with torch.autocast(outputs.student_logits.device.type, enabled=False):
            return self.compare(outputs)

    @abstractmethod
    def compare(self, outputs: Outputs) -> Tensor:
        """Return the loss [B] or [], unreduced and unweighted. `forward` calls it with autocast disabled."""


def listed(paths: str | Sequence[str]) -> tuple[str, ...]:
    """Return one path or several as a tuple."""
    return (paths,) if isinstance(paths, str) else tuple(paths)


def expanded(paths: Sequence[str], available: Mapping[str, object]) -> list[str]:
    """Return the paths with "stages" replaced by those of the last four stages, in order, that are available."""
    last = [path for number in range(-4, 0) if (path := f"stage{number}") in available]
    return [path for given in paths for path in (last if given == STAGES else [given])]
