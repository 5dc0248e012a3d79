"""Learning from labels."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.types import Outputs


class CE(Loss):
    """Cross-entropy with the labels (mixed as the images are) in nats per example [B], at temperature 1."""

    needs_label = True

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.target is not None
        return functional.cross_entropy(outputs.student_logits, outputs.target)
