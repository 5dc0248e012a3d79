"""Hard-label distillation (DeiT, arXiv:2012.12877, eq. 3): the teacher's prediction as the label."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.types import Outputs


class Hard(Loss):
    """Cross-entropy with the teacher's most likely class in nats per example [B]; independent of the temperature."""

    needs_teacher = True

    def __init__(self) -> None:  # explicit, as in `kdx.losses.mse`
        super().__init__()

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None
        return functional.cross_entropy(outputs.student_logits, outputs.teacher_logits.argmax(-1))
