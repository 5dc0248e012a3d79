"""Post-hoc calibration of a teacher, fitted on val and never on test."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdx.metrics.gathering import summed
from kdx.ranges import Count, Positive, validated
from kdx.teachers.calibration_maps import IDENTITY, CalibrationMap, TemperatureMap

BOUNDS = 0.01, 100.0
FEWEST = 10  # labeled val images
PRECISION = 1e-10  # of log T; a step of Newton's method squares the error
PIECE = 250_000  # logits in a piece, 2 MB in float64, which fit into a processor's cache
WIDEST = 4.0  # factor by which a temperature may be off at 95 % confidence; beyond it, val says nothing about the calibration

NO_EXAMPLES = "Teacher calibration requires labeled val examples, found 0: use calibration=none"

Batches = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Calibration:
    """The map of a calibration; the identity if `doubt`, a sentence without its subject, says why val does not determine it."""

    map: CalibrationMap
    doubt: str | None = None

    @property
    def temperature(self) -> float:
        """The temperature by which the logits are divided; ValueError if the map is another."""
        if not isinstance(self.map, TemperatureMap):
            raise ValueError(f"{self.map.text} has no calibration temperature")
        return self.map.temperature


class Calibrator(ABC):
    """Fits a map of logits to labeled examples. `name` is that of the option in the group `calibration`."""

    name: str

    @abstractmethod
    def calibrate(self, logits: Batches, label: Batches, certain: bool = False) -> Calibration:
        """Return the map for logits [N,K] with labels [N], in batches, or the identity if they do not determine it.

        With `certain`, the best map is returned in any case. Examples of all ranks count; all ranks get the same map.
        Raises ValueError if there are no examples.
        """


@validated
class GivenTemperature(Calibrator):
    """Divides the logits by a given temperature, not by a fitted one, to study teachers that are off by a factor."""

    name = "given"

    def __init__(self, temperature: Positive = 1.0) -> None:
        self.temperature = temperature

    def calibrate(self, logits: Batches, label: Batches, certain: bool = False) -> Calibration:
        return Calibration(TemperatureMap(self.temperature))


@validated
class TemperatureScaling(Calibrator):
    """Temperature scaling: fits one temperature T that minimizes the NLL of softmax(logits / T).

    It changes the confidence, not the accuracy. This `calibration_temperature` belongs to the teacher and is independent of
    the distillation `temperature`.

    Reference: Guo et al., arXiv:1706.04599, section 4.2.
    """

    name = "temperature"

    def __init__(self, max_steps: Count = 100) -> None:
        self.max_steps = max_steps

    def calibrate(self, logits: Batches, label: Batches, certain: bool = False) -> Calibration:
        """Return the optimal T for logits [N,K] with labels [N], or 1 if they do not determine it.

        They do not if the optimum is at a bound, as when all examples are right, or if its 95 % confidence interval, from the
        curvature of the NLL, spans more than a factor of 4 in either direction, as with few examples. With `certain`, the
        optimum within the bounds is returned in any case. Examples of all ranks count.
        """
        if certain:
            return Calibration(TemperatureMap(self.fit(logits, label)))
        errors, total = totals(logits, label, errors_and_count)
        if 0 < total < FEWEST:
            return Calibration(IDENTITY, f"{total:.0f} val images are too few, expected {FEWEST} or more")
        temperature = self.fit(logits, label)
        count = f"{errors:.0f} of {total:.0f} val images are wrong"
        if errors == 0 or not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] * 0.99:
            return Calibration(IDENTITY, f"no finite temperature is optimal ({count})")
        factor = math.exp(min(1.96 * self._standard_error(logits, label, temperature), 50))
        if factor > WIDEST:
            return Calibration(IDENTITY, f"T = {temperature:.3g} may be off by a factor of {factor:.0f} ({count})")
        return Calibration(TemperatureMap(temperature))

    @staticmethod
    def _standard_error(logits: Batches, label: Batches, temperature: float) -> float:
        """Return the standard error of log T at the optimum: 1 / sqrt of the second derivative of the total NLL."""
        _, curvature, _ = totals(logits, label, _derivatives, temperature)
        return max(curvature, 1e-300) ** -0.5

    def fit(self, logits: Batches, label: Batches) -> float:
        """Return T for logits [N,K] with labels [N], clamped to [0.01, 100] in case no finite T is optimal.

        Newton's method on log T, in float64, with bisection where it leaves the interval that has the optimum. Each step reads
        the logits once, in pieces, so that one piece is in memory.

        Raises ValueError if there are no examples.
        """
        low, high = lowest, highest = math.log(BOUNDS[0]), math.log(BOUNDS[1])
        at = 0.0
        for _ in range(self.max_steps):
            slope, curvature, count = totals(logits, label, _derivatives, math.exp(at))
            if not count:
                raise ValueError(NO_EXAMPLES)
            if slope == 0:
                break
            low, high = (low, at) if slope > 0 else (at, high)
            # Far above the optimum the NLL is concave in log T; in 1 / T it is convex everywhere.
            step = -slope / curvature if curvature > 0 else -math.log1p(slope / max(curvature + slope, 1e-300))
            proposed = min(max(at + step, lowest), highest)
            following = proposed if low <= proposed <= high else (low + high) / 2
            if abs(following - at) < PRECISION:
                break
            at = following
        return min(max(math.exp(at), BOUNDS[0]), BOUNDS[1])


def totals(logits: Batches, label: Batches, numbers: Callable[..., Tensor], *arguments: Any) -> list[float]:
    """Return the sum of `numbers(logits, label, *arguments)` over all pieces, on all ranks."""
    total, device = torch.zeros((), dtype=torch.float64), torch.device("cpu")
    for whole, whole_label in zip(listed(logits), listed(label), strict=True):
        device, rows = whole.device, max(1, PIECE // max(1, whole.shape[-1]))
        place = "cpu" if device.type == "mps" else device  # MPS has no float64
        for piece, own in zip(whole.detach().split(rows), whole_label.split(rows), strict=True):
            total = total + numbers(piece.to(place), own.to(place), *arguments).cpu()
    return summed(total, device).tolist()


def listed(batches: Batches) -> Sequence[Tensor]:
    """Return the batches of what may be one batch."""
    return [batches] if isinstance(batches, Tensor) else batches


def errors_and_count(logits: Tensor, label: Tensor) -> Tensor:
    """How many examples are wrong, and how many there are."""
    return torch.tensor([(logits.argmax(-1) != label).sum(), len(label)], dtype=torch.float64)


def _derivatives(logits: Tensor, label: Tensor, temperature: float) -> Tensor:
    """First and second derivative of sum(logsumexp(z/T) - z_y/T) by log T, and the number of examples."""
    scaled = logits.to(torch.float64) / temperature
    probs = scaled.softmax(-1)
    mean = (probs * scaled).sum(-1, keepdim=True)
    variance = (probs * (scaled - mean).square()).sum()
    slope = (scaled.gather(-1, label[:, None]) - mean).sum()
    return torch.stack([slope, variance - slope, slope.new_tensor(len(label))])
