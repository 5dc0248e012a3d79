"""One-for-all distillation (OFA, arXiv:2310.19444): an enhanced target, on the logits and on exits from earlier layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdx.losses import functional
from kdx.losses.exits import exit_from
from kdx.losses.features import expanded, listed
from kdx.losses.objective import Loss
from kdx.losses.projectors import channels
from kdx.ranges import Positive, validated
from kdx.types import LossContext, Outputs, TemperatureValue


def ofa(
    student_logits: Tensor,
    teacher_logits: Tensor,
    label: Tensor,
    temperature: TemperatureValue | float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """OFA loss -((1 + p(y))^γ - 1) log q(y) - Σ p(k)^γ log q(k) over k ≠ y, times τ², [B], of logits [B,K] with labels y [B].

    p and q are the probabilities of teacher and student at temperature τ. γ > 1 gives the label more weight the surer of it the
    teacher is, and less weight to the other classes; γ = 1 is the cross-entropy with the teacher. As in the authors' code; with
    the cross-entropy of the labels beside it, the label's weight is (1 + p(y))^γ. That code has no τ², and τ = 1.
    """
    teacher, student, squared = functional.tempered(student_logits, teacher_logits, temperature)
    place = label[:, None]
    enhanced = torch.expm1(gamma * torch.log1p(teacher.gather(1, place).exp()))
    weights = (gamma * teacher).exp().scatter(1, place, enhanced)
    return functional.scaled(-(weights * student).sum(-1), squared)


@validated
class OFA(Loss):
    """OFA loss of the student's logits, plus that of each exit, per example [B], at the step's temperature τ, times τ².

    `exits` are layers of the student, as in `kdx.losses.features`: "stages", the last stages, up to four, or paths, from input
    to output. From each of them a small network leads to logits (`kdx.losses.exits`); it is trained with the student and not
    kept. Without `exits` only the logits count. The teacher gives logits alone, so it may be an ensemble. The label of a mixed
    image is the class with the larger share, as in the authors' code.

    The exits are those of the authors' code for four stages, except that they do not depend on the teacher's width, that
    tokens keep their width, and that a Swin's stages count as maps.
    """

    needs_teacher = True
    needs_temperature = True
    needs_label = True

    def __init__(self, gamma: Positive = 1.0, exits: str | Sequence[str] = ()) -> None:
        super().__init__()
        self.gamma, self.student_features = gamma, listed(exits)

    def connect(self, context: LossContext) -> None:
        self.paths = expanded(self.student_features, context.student_features)
        if self.student_features and not self.paths:
            raise ValueError("OFA found no stages of the student: set `exits` to names of its modules, or exits=[]")
        shapes = [context.student_features[path] for path in self.paths]
        later = range(len(shapes) - 1, -1, -1)
        self.exits = nn.ModuleList(
            exit_from(shape, channels(shapes[-1]), context.num_classes, number)
            for shape, number in zip(shapes, later, strict=True)
        )

    def forward(self, outputs: Outputs) -> Tensor:
        label, temperature, teacher = outputs.main_label, outputs.temperature, outputs.teacher_logits
        assert label is not None and temperature is not None and teacher is not None
        with torch.autocast(outputs.student_logits.device.type, enabled=False):
            early = [
                leave(functional.upcast(outputs.student_features[path]))
                for path, leave in zip(self.paths, self.exits, strict=True)
            ]
        losses = [ofa(logits, teacher, label, temperature, self.gamma) for logits in (outputs.student_logits, *early)]
        return torch.stack(losses).sum(0)
