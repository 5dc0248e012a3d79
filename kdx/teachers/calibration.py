"""Post-hoc calibration of a teacher, fitted on val and never on test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.ranges import Count, validated


@validated
class TemperatureScaling:
    """Temperature scaling: fits one temperature T that minimizes the NLL of softmax(logits / T).

    It changes the confidence, not the accuracy. This `calibration_temperature` belongs to the teacher and is independent of
    the distillation `temperature`.

    Reference: Guo et al., arXiv:1706.04599, section 4.2.
    """

    def __init__(self, max_steps: Count = 100) -> None:
        self.max_steps = max_steps

    def fit(self, logits: Tensor, label: Tensor) -> float:
        """Return T for logits [N,K] with labels [N], clamped to [0.01, 100] in case no finite T is optimal.

        LBFGS optimizes log T in float64: the NLL is smooth there and T stays positive.

        Raises ValueError if there are no examples.
        """
        if not len(label):
            raise ValueError("Teacher calibration requires labeled val examples, found 0: use calibration=none")
        logits = logits.detach().to("cpu", torch.float64)
        label = label.to("cpu")
        log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [log_temperature],
            max_iter=self.max_steps,
            tolerance_grad=1e-12,  # with the default, LBFGS stops at the small first gradient of a saturated teacher
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(logits * torch.exp(-log_temperature), label)
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        return float(log_temperature.detach().exp().clamp(0.01, 100))
