"""Post-hoc calibration of a teacher, fitted on val, never on test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.ranges import Count, validated


@validated
class TemperatureScaling:
    """Finds the one temperature T that minimizes the NLL of softmax(logits / T) (Guo et al., arXiv:1706.04599, section 4.2).

    The accuracy stays; only the confidence moves. This `calibration_temperature` belongs to the teacher, and has nothing to
    do with the distillation `temperature`.
    """

    def __init__(self, max_steps: Count = 100) -> None:
        self.max_steps = max_steps

    def fit(self, logits: Tensor, label: Tensor) -> float:
        """T for logits [N,K] with labels [N]: LBFGS on log T in float64, where the NLL is smooth and T cannot be negative.

        ValueError if there are no examples. Where no finite T is best (every example right, say), T ends within [0.01, 100].
        """
        if not len(label):
            raise ValueError("the teacher cannot be calibrated without labeled val examples: use calibration=none")
        logits = logits.detach().to("cpu", torch.float64)
        label = label.to("cpu")
        log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [log_temperature],
            max_iter=self.max_steps,
            tolerance_grad=1e-12,  # the default takes a saturated teacher's tiny first gradient for the optimum
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
