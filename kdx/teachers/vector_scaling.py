"""Vector scaling of a teacher: a scale and a bias for each class, fitted on val by NLL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from kdx.metrics.gathering import of_first_rank
from kdx.ranges import Count, validated
from kdx.teachers.calibration import BOUNDS, NO_EXAMPLES, Batches, Calibration, Calibrator, TemperatureScaling, listed, totals
from kdx.teachers.calibration_maps import IDENTITY, VectorMap

FEWEST = 10  # val images of each class, and wrong ones
AMPLE = 100  # images per parameter with which a fit costs at most 0.005 nats beyond the examples that it was fitted to
BIAS = 100.0  # largest magnitude; beyond half of it, none is optimal

INSTEAD = "calibration=temperature needs fewer images"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Fit:
    map: VectorMap
    nll: float  # nats per example


@validated
class VectorScaling(Calibrator):
    """Vector scaling: fits a scale and a bias per class that minimize the NLL of softmax(scale * logits + bias).

    It may change which class is the likeliest, and so the accuracy: 2K parameters mend more than one temperature, such as
    classes that are predicted too often, and need more images.

    Reference: Guo et al., arXiv:1706.04599, section 4.2.
    """

    name = "vector"

    def __init__(self, max_steps: Count = 500) -> None:
        self.max_steps = max_steps

    def calibrate(self, logits: Batches, label: Batches, certain: bool = False) -> Calibration:
        """Return the optimal scales and biases, or the identity if logits [N,K] with labels [N] do not determine them.

        They do not with fewer than ten images of a class or ten wrong ones, if a scale or bias is at a bound, or if the NLL is
        lower than that of temperature scaling by no more than the further parameters explain by chance (Akaike's criterion),
        unless there are 100 images for each of them.
        """
        if certain:
            return Calibration(self._fit(logits, label).map)
        errors, *counts = totals(logits, label, _errors_and_counts)
        total, rarest = sum(counts), int(np.argmin(counts))
        if total > 0 and counts[rarest] < FEWEST:
            return Calibration(
                IDENTITY, f"{counts[rarest]:.0f} val images of class {rarest} are too few, expected {FEWEST} or more of each"
            )
        if total > 0 and errors < FEWEST:
            return Calibration(IDENTITY, f"{errors:.0f} of {total:.0f} val images are wrong, expected {FEWEST} or more")
        fitted = self._fit(logits, label)
        for number, (scale, bias) in enumerate(zip(fitted.map.scale, fitted.map.bias, strict=True)):
            if not BOUNDS[0] * 1.01 < scale < BOUNDS[1] * 0.99 or abs(bias) > BIAS / 2:
                return Calibration(IDENTITY, f"no finite scale and bias are optimal for class {number} ({INSTEAD})")
        further = 2 * (len(counts) - 1)  # beside one temperature; the mean of the biases has no effect
        if total < AMPLE * further:
            temperature = TemperatureScaling().fit(logits, label)
            simple = totals(logits, label, _nll_and_slopes, *_constant(1 / temperature, len(counts)))[0] / total
            if (simple - fitted.nll) * total <= further:
                gain = f"{simple - fitted.nll:.3g} nats over a temperature on {total:.0f} val images"
                return Calibration(IDENTITY, f"scales and biases gain {gain}, no more than by chance ({INSTEAD})")
        return Calibration(fitted.map)

    def fit(self, logits: Batches, label: Batches) -> VectorMap:
        """Return the optimal map for logits [N,K] with labels [N], with scales in [0.01, 100] and biases of mean 0.

        L-BFGS in float64. Each step reads the logits once, in pieces. Raises ValueError if there are no examples.
        """
        return self._fit(logits, label).map

    def _fit(self, logits: Batches, label: Batches) -> _Fit:
        num_classes, device = listed(logits)[0].shape[-1], listed(logits)[0].device
        square, count = totals(logits, label, _squares)
        if not count:
            raise ValueError(NO_EXAMPLES)
        unit = max((square / count) ** 0.5, 1e-6)  # scales in units of the logits' size: as large as the biases

        def nll(values: Array) -> tuple[float, Array]:
            scale, bias = torch.from_numpy(values).split(num_classes)
            loss, *slopes = totals(logits, label, _nll_and_slopes, scale / unit, bias)
            gradient = np.array(slopes) / count
            gradient[:num_classes] /= unit
            return loss / count, gradient

        start = np.concatenate([np.full(num_classes, unit), np.zeros(num_classes)])
        limits = [(BOUNDS[0] * unit, BOUNDS[1] * unit)] * num_classes + [(-BIAS, BIAS)] * num_classes
        best = _minimized(nll, start, limits, self.max_steps, device)
        after, _ = nll(best)
        scale, bias = best[:num_classes] / unit, best[num_classes:]
        return _Fit(VectorMap(tuple(scale.tolist()), tuple((bias - bias.mean()).tolist())), after)


def _minimized(
    nll: Callable[[Array], tuple[float, Array]],
    start: Array,
    limits: list[tuple[float, float]],
    max_steps: int,
    device: torch.device,
) -> Array:
    """Return where `nll`, a sum over all ranks, is least.

    The first rank decides where to look and when to stop, so that the others, whose processors may round otherwise, follow.
    """

    def shared(values: Array, ended: bool) -> tuple[Array, bool]:
        *agreed, flag = of_first_rank(torch.from_numpy(np.append(values, float(ended))), device).tolist()
        return np.array(agreed), bool(flag)

    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
        while True:
            values, ended = shared(start, False)
            if ended:
                return values
            nll(values)
    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-8}
    found = minimize(
        lambda values: nll(shared(values, False)[0]), start, jac=True, method="L-BFGS-B", bounds=limits, options=options
    )
    return shared(found.x, True)[0]


def _constant(scale: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the scales and biases that divide all logits by one temperature."""
    return torch.full((num_classes,), scale, dtype=torch.float64), torch.zeros(num_classes, dtype=torch.float64)


def _errors_and_counts(logits: Tensor, label: Tensor) -> Tensor:
    """How many examples are wrong, and how many there are of each class [1+K]."""
    wrong = (logits.argmax(-1) != label).sum()[None]
    return torch.cat([wrong, label.bincount(minlength=logits.shape[-1])]).to(torch.float64)


def _squares(logits: Tensor, label: Tensor) -> Tensor:
    """Sum of the mean square of the logits, and the number of examples."""
    square = logits.to(torch.float64).square().mean(-1).sum()
    return torch.stack([square, square.new_tensor(len(label))])


def _nll_and_slopes(logits: Tensor, label: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Sum of the NLL of scale * logits + bias, and its derivatives by scale and bias [1+2K]."""
    logits = logits.to(torch.float64)
    log_probs = (logits * scale.to(logits.device) + bias.to(logits.device)).log_softmax(-1)
    loss = -log_probs.gather(-1, label[:, None]).sum()
    error = log_probs.exp()
    error[torch.arange(len(label), device=label.device), label] -= 1
    return torch.cat([loss[None], (error * logits).sum(0), error.sum(0)])
