"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import validated
from kdx.types import Outputs


@validated
class CE(Loss):
    """Cross-entropy with the labels in nats per example [B], at temperature 1. Mixed images have mixed labels.

    `label_smoothing`, in [0, 1), is the share of each target that is spread evenly over all classes.
    """

    needs_label = True

    def __init__(self, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Outputs) -> Tensor:
        target = outputs.label if outputs.mixed_target is None else outputs.mixed_target
        assert target is not None
        return functional.cross_entropy(outputs.student_logits, target, self.label_smoothing)
