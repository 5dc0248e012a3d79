"""Student and teacher, or a cohort of students: batch -> logits of all networks. `kdx.training.step` shows their use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdx.networks import features
from kdx.networks.network import Network, checked_logits
from kdx.teachers.ensemble import Combine, combine, disagreement
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.temperatures.base import Temperature
from kdx.types import Batch, LossContext, Outputs


class Distiller(nn.Module):
    """A student, its teacher, if any, and the distillation temperature: Batch -> Outputs.

    The teacher is not a submodule, so `state_dict`, `parameters` and `train` exclude it.

    Args:
        student: the network to train.
        teacher: a frozen network or an ensemble.
        temperature: the rule for the distillation temperature; applied by `kdx.training.step.forward`.
        student_features: paths of the student's modules whose outputs the losses need (see `kdx.networks.features`).
        teacher_features: the same for the teacher, which must then be a single network.

    Raises:
        ValueError: the numbers of classes differ, a path does not exist, or an ensemble was asked for features.
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
                f"The teacher has {teacher.num_classes} classes and the student {student.num_classes}; expected equal numbers: "
                "choose a teacher trained on the student's classes"
            )
        self.student = student
        self.temperature = temperature
        self.teacher = teacher
        student_paths, teacher_paths = tuple(student_features), tuple(teacher_features)
        if teacher_paths and not isinstance(teacher, OnlineTeacher):
            raise ValueError("Losses that compare features need a single network as the teacher: use teacher=online")
        self.student_taps = features.FeatureTaps(student.model, student_paths) if student_paths else None
        self.teacher_taps: features.FeatureTaps | None = None
        if isinstance(teacher, OnlineTeacher) and teacher_paths:
            teacher.tapped = True
            self.teacher_taps = features.FeatureTaps(teacher.network.model, teacher_paths)

    def forward(self, batch: Batch, teacher_logits: Tensor | None = None) -> Outputs:
        """Return both networks' float32 logits [B,K]. With `teacher_logits` the teacher is not run.

        They are the calibrated logits [B,K] of the teacher, or [M,B,K] of its members.
        """
        logits = _logits(self.student, "student", batch, self.student.num_classes)
        each = teacher_logits if teacher_logits is not None and teacher_logits.ndim == 3 else None
        outputs = Outputs(logits, teacher_logits if each is None else None, batch.label, batch.mixed_target, index=batch.index)
        outputs.student_features = self.student_taps.take() if self.student_taps is not None else {}
        if teacher_logits is None and self.teacher is not None and batch.teacher_images is not None:
            each = self.teacher.each(batch.teacher_images, batch.other_images)
        if each is not None:
            assert self.teacher is not None, "logits of members, and no teacher"
            outputs.teacher_logits = self.teacher.combine(each)
            outputs.member_logits = each if self.teacher.separate else None
            outputs.disagreement = disagreement(each) if len(each) > 1 else None
            outputs.teacher_features = self.teacher_taps.take() if self.teacher_taps is not None else {}
        return outputs

    def loss_context(
        self, student_images: Tensor, teacher_images: Tensor, train_labels: Tensor | None, train_size: int
    ) -> LossContext:
        """Return what losses may use, with shapes of features from a dry run on images [B,C,R,R] at both resolutions."""
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
    """Students that teach each other (deep mutual learning): Batch -> Outputs of the first, with `peers` for the others.

    The teacher of each network is the rest of the cohort at the same step, without a gradient. With `combine="losses"` (DML)
    each of them has a loss of its own; with "probs" (DML_e) their mean probability is the target. All logits are computed
    before any update, so the update is synchronous.

    Reference: Zhang et al., arXiv:1706.00384.
    """

    teacher: Teacher | None = None

    def __init__(
        self, student: Network, peers: dict[str, Network], temperature: Temperature | None = None, combine: Combine = "losses"
    ) -> None:
        super().__init__()
        self.student, self.peers = student, nn.ModuleDict(peers)
        self.temperature, self.combine = temperature, combine

    def forward(self, batch: Batch, teacher_logits: Tensor | None = None) -> Outputs:
        """Return the float32 logits [B,K] of every network; for each, those of its peers are the teacher's."""
        assert teacher_logits is None, "a cohort has no teacher"
        num_classes = self.student.num_classes
        logits = {"student": _logits(self.student, "student", batch, num_classes)}
        logits |= {name: _logits(peer, f"peer {name}", batch, num_classes) for name, peer in self.peers.items()}
        outputs = {name: self._outputs(name, logits, batch) for name in logits}
        return replace(outputs.pop("student"), peers=outputs)

    def _outputs(self, name: str, logits: dict[str, Tensor], batch: Batch) -> Outputs:
        others = torch.stack([value.detach() for other, value in logits.items() if other != name])
        outputs = Outputs(logits[name], combine(others, self.combine), batch.label, batch.mixed_target, index=batch.index)
        outputs.member_logits = others if self.combine == "losses" else None
        outputs.disagreement = disagreement(torch.stack(list(logits.values())))
        return outputs


def _logits(network: nn.Module, role: str, batch: Batch, num_classes: int) -> Tensor:
    """Float32 logits [B,K] of a network that sees the student's images."""
    return checked_logits(network(batch.student_images), role, network, (len(batch), num_classes)).float()
