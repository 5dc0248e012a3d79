"""Post-hoc calibration of a teacher, fitted on val and never on test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.ranges import Count, validated

BOUNDS = 0.01, 100.0
FEWEST = 10  # labeled val images
WIDEST = 4.0  # factor by which a temperature may be off at 95 % confidence; beyond it, val says nothing about the calibration


@dataclass(frozen=True)
class Calibration:
    """A calibration temperature; 1 if `doubt`, a sentence without its subject, says why the examples do not determine it."""

    temperature: float
    doubt: str | None = None


@validated
class TemperatureScaling:
    """Temperature scaling: fits one temperature T that minimizes the NLL of softmax(logits / T).

    It changes the confidence, not the accuracy. This `calibration_temperature` belongs to the teacher and is independent of
    the distillation `temperature`.

    Reference: Guo et al., arXiv:1706.04599, section 4.2.
    """

    def __init__(self, max_steps: Count = 100) -> None:
        self.max_steps = max_steps

    def calibrate(self, logits: Tensor, label: Tensor, certain: bool = False) -> Calibration:
        """Return the optimal T for logits [N,K] with labels [N], or 1 if they do not determine it.

        They do not if the optimum is at a bound, as when all examples are right, or if its 95 % confidence interval, from the
        curvature of the NLL, spans more than a factor of 4 in either direction, as with few examples. With `certain`, the
        optimum within the bounds is returned in any case.
        """
        if certain:
            return Calibration(self.fit(logits, label))
        if 0 < len(label) < FEWEST:
            return Calibration(1.0, f"{len(label)} val images are too few, expected {FEWEST} or more")
        temperature = self.fit(logits, label)
        errors = int((logits.argmax(-1).to(label.device) != label).sum())
        count = f"{errors} of {len(label)} val images are wrong"
        if errors == 0 or not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] * 0.99:
            return Calibration(1.0, f"no finite temperature is optimal ({count})")
        factor = math.exp(min(1.96 * self._standard_error(logits, label, temperature), 50))
        if factor > WIDEST:
            return Calibration(1.0, f"T = {temperature:.3g} may be off by a factor of {factor:.0f} ({count})")
        return Calibration(temperature)

    @staticmethod
    def _standard_error(logits: Tensor, label: Tensor, temperature: float) -> float:
        """Return the standard error of log T at the optimum: 1 / sqrt of the second derivative of the total NLL."""
        scaled = logits.detach().to("cpu", torch.float64) / temperature
        probs = scaled.softmax(-1)
        mean = (probs * scaled).sum(-1)
        variance = (probs * scaled.square()).sum(-1) - mean.square()
        own = scaled.gather(-1, label.to("cpu")[:, None])[:, 0]
        curvature = (variance + mean - own).sum()  # of sum(logsumexp(z/T) - z_y/T) by log T
        return float(curvature.clamp_min(1e-300).rsqrt())

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
        return float(log_temperature.detach().exp().clamp(*BOUNDS))
