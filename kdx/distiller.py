"""The distiller turns a batch into outputs: student, teacher, temperature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdx.networks import features
from kdx.networks.network import Network
from kdx.teachers.ensemble import Combine, combine, disagreement
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.temperatures.base import Temperature
from kdx.types import Batch, LossContext, Outputs, Progress


class Distiller(nn.Module):
    """(Batch, progress) -> Outputs. The temperature is computed once a step and travels with the outputs.

    The teacher is not a submodule: it is no part of `state_dict`, `parameters` or `train`. Features are caught at the given
    paths; a teacher of several members has none. ValueError names a path that does not exist.
    """

    def __init__(
        self,
        student: Network,
        teacher: Teacher | None = None,
        temperature: Temperature | None = None,
        student_features: Iterable[str] = (),
        teacher_features: Iterable[str] = (),
    ) -> None:
        super().__init__()
        if teacher is not None and teacher.num_classes != student.num_classes:
            raise ValueError(
                f"the teacher knows {teacher.num_classes} classes and the student {student.num_classes}: "
                "distillation compares class by class"
            )
        self.student = student
        self.temperature = temperature
        self.teacher = teacher
        self.student_taps = features.FeatureTaps(student.model, student_features)
        self.teacher_taps: features.FeatureTaps | None = None
        if isinstance(teacher, OnlineTeacher):
            self.teacher_taps = features.FeatureTaps(teacher.network.model, teacher_features)
        elif list(teacher_features):
            raise ValueError("losses that compare features need one teacher that is a network: use teacher=online")

    def forward(self, batch: Batch, progress: Progress, teacher_logits: Tensor | None = None) -> Outputs:
        """Both networks' float32 logits [B,K]. `teacher_logits`, where they are known already, save the teacher's forward."""
        outputs = Outputs(
            self.student(batch.student_images).float(),
            teacher_logits,
            batch.label,
            batch.target,
            index=batch.index,
            progress=progress,
            student_features=self.student_taps.take(),
        )
        if teacher_logits is None and self.teacher is not None and batch.teacher_images is not None:
            each = self.teacher.each(batch.teacher_images, batch.other_images)
            outputs.teacher_logits = self.teacher.combine(each)
            outputs.member_logits = each if self.teacher.separate else None
            outputs.disagreement = disagreement(each) if len(each) > 1 else None
            outputs.teacher_features = self.teacher_taps.take() if self.teacher_taps is not None else {}
        if outputs.teacher_logits is not None and self.temperature is not None:
            outputs.temperature = self.temperature(outputs.student_logits, outputs.teacher_logits, progress)
        return outputs

    def loss_context(
        self, student_images: Tensor, teacher_images: Tensor, train_labels: Tensor | None, train_size: int
    ) -> LossContext:
        """What losses may know: shapes of features, found by a dry run on images [B,C,R,R] of both resolutions."""
        teacher = self.teacher.network if isinstance(self.teacher, OnlineTeacher) else None
        return LossContext(
            num_classes=self.student.num_classes,
            train_size=train_size,
            train_labels=train_labels,
            student_features=features.shapes(self.student, self.student_taps, student_images),
            teacher_features=features.shapes(teacher, self.teacher_taps, teacher_images),
            teacher_classifier=None if teacher is None else lambda pooled: features.logits_of(teacher.model, pooled),
        )


class Cohort(nn.Module):
    """Students that teach each other (deep mutual learning, Zhang et al., arXiv:1706.00384): (Batch, progress) -> Outputs.

    The outputs are the first student's; `peers` holds the others'. Everyone's teacher is the rest of the cohort as it is in
    this step, without a gradient: each with a loss of its own ("losses", DML), or their mean probability ("probs", DML_e).
    All answer before anyone learns, so the update is synchronous.
    """

    teacher: Teacher | None = None

    def __init__(
        self, student: Network, peers: dict[str, Network], temperature: Temperature | None = None, combine: Combine = "losses"
    ) -> None:
        super().__init__()
        self.student, self.peers = student, nn.ModuleDict(peers)
        self.temperature, self.combine = temperature, combine

    def forward(self, batch: Batch, progress: Progress, teacher_logits: Tensor | None = None) -> Outputs:
        """Everyone's float32 logits [B,K], and what their peers say, which stands where a teacher's answer would."""
        networks = {"student": self.student, **dict(self.peers.items())}
        logits = {name: network(batch.student_images).float() for name, network in networks.items()}
        everyone = {name: self._outputs(name, logits, batch, progress) for name in networks}
        student = everyone.pop("student")
        return replace(student, peers=everyone)

    def _outputs(self, name: str, logits: dict[str, Tensor], batch: Batch, progress: Progress) -> Outputs:
        others = torch.stack([other.detach() for who, other in logits.items() if who != name])
        answer = combine(others, self.combine)
        outputs = Outputs(logits[name], answer, batch.label, batch.target, index=batch.index, progress=progress)
        outputs.member_logits = others if self.combine == "losses" else None
        outputs.disagreement = disagreement(torch.stack(list(logits.values())))
        if self.temperature is not None:
            outputs.temperature = self.temperature(logits[name], answer, progress)
        return outputs
