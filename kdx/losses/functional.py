"""Losses as pure functions of logits [B,K]: per example [B], unreduced, unweighted, natural logarithm.

All functions compute in log-space and in float32 (float64 for float64 inputs), so values and gradients are finite for logits
of ±1e4 and for half-precision inputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.types import TemperaturePair, TemperatureValue


def upcast(logits: Tensor) -> Tensor:
    """Return the logits in at least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_probs(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Log softmax(logits / temperature), [B,K]."""
    plain = isinstance(temperature, float) and temperature == 1  # division by 1 is a copy
    return torch.log_softmax(upcast(logits) if plain else upcast(logits) / temperature, -1)


def split(temperature: TemperatureValue | float) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
    """Return the teacher's temperature, the student's, and the factor τ² that keeps the size of the gradient."""
    return temperature if isinstance(temperature, TemperaturePair) else (temperature, temperature, temperature * temperature)


def scaled(loss: Tensor, squared: Tensor | float) -> Tensor:
    """Loss [B] times τ², which is a number, [] or [B,1]."""
    return loss * (squared.reshape(-1) if isinstance(squared, Tensor) else squared)


def kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: TemperatureValue | float = 1.0, tau_squared: bool = True
) -> Tensor:
    """KL(teacher || student) of the tempered distributions in nats, [B]; times τ² if `tau_squared`.

    τ² keeps the size of the gradient for large τ: the limit is the gradient of ½·Σ(Δz - mean Δz)²/K. With one temperature per
    network, `TemperaturePair.squared` replaces τ².

    Reference: Hinton et al., arXiv:1503.02531, section 2.
    """
    teacher, student, squared = tempered(student_logits, teacher_logits, temperature)
    divergence = relative_entropy(teacher, student)
    return scaled(divergence, squared) if tau_squared else divergence


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: TemperatureValue | float = 1.0, tau_squared: bool = True
) -> Tensor:
    """KL(student || teacher) in nats, [B]; times τ² if `tau_squared`. Its limit for large τ is that of `kl`."""
    teacher, student, squared = tempered(student_logits, teacher_logits, temperature)
    divergence = relative_entropy(student, teacher)
    return scaled(divergence, squared) if tau_squared else divergence


def symmetric_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: TemperatureValue | float = 1.0, tau_squared: bool = True
) -> Tensor:
    """The mean of `kl` and `reverse_kl` in nats, [B]; times τ² if `tau_squared`."""
    teacher, student, squared = tempered(student_logits, teacher_logits, temperature)
    divergence = (relative_entropy(teacher, student) + relative_entropy(student, teacher)) / 2
    return scaled(divergence, squared) if tau_squared else divergence


def jensen_shannon(
    student_logits: Tensor, teacher_logits: Tensor, temperature: TemperatureValue | float = 1.0, tau_squared: bool = True
) -> Tensor:
    """The mean of both distributions' divergence from their mixture in nats, [B], at most log 2; times τ² if `tau_squared`.

    Its limit for large τ is a quarter of that of `kl`. Source: Lin 1991, doi:10.1109/18.61115.
    """
    teacher, student, squared = tempered(student_logits, teacher_logits, temperature)
    gap, zero = student - teacher, torch.zeros_like(student)
    below, above = (math.log(2) - torch.logaddexp(zero, side) for side in (gap, -gap))  # log p - log mixture
    divergence = (teacher.exp() * below + student.exp() * above).sum(-1) / 2
    return scaled(divergence, squared) if tau_squared else divergence


def tempered(
    student_logits: Tensor, teacher_logits: Tensor, temperature: TemperatureValue | float
) -> tuple[Tensor, Tensor, Tensor | float]:
    """The teacher's and the student's log-probabilities [B,K] at their temperatures, and τ²."""
    teacher_temperature, student_temperature, squared = split(temperature)
    return log_probs(teacher_logits, teacher_temperature), log_probs(student_logits, student_temperature), squared


def without(values: Tensor, label: Tensor) -> Tensor:
    """Return the values [B,K-1] of all classes but the label's, in their order, from values [B,K] and labels [B]."""
    place = torch.arange(values.shape[-1] - 1, device=values.device)
    return torch.where(place < label[:, None], values[:, :-1], values[:, 1:])


def relative_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats, [B], from finite log-probabilities [B,K]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def cross_entropy(student_logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, [B], with labels int64 [B] or target probabilities [B,K]; independent of the temperature.

    `label_smoothing` is the share of the target, mixed or not, that is spread evenly over all K classes. Labels give the same
    bits as their one-hot targets.
    """
    student = log_probs(student_logits)
    if target.ndim == 1 and not label_smoothing:
        return F.nll_loss(student, target, reduction="none")
    elsewhere = label_smoothing / student.shape[-1]
    if target.ndim == 1:
        true = torch.ones_like(target, dtype=student.dtype) * (1 - label_smoothing) + elsewhere  # rounded as those of [B,K]
        smoothed = torch.full_like(student, elsewhere).scatter_(-1, target[:, None], true[:, None])
    else:
        smoothed = target * (1 - label_smoothing) + elsewhere
    return -(smoothed * student).sum(-1)


def mean_squared_error(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Σ(z_student - z_teacher)²/K, [B]: the mean over classes, without the ½; independent of the temperature.

    For large τ it is twice the limit of τ²·KL if both networks' logits have the same mean.

    Reference: Kim et al., arXiv:2105.08919.
    """
    return (upcast(student_logits) - upcast(teacher_logits)).square().mean(-1)


def virtual_kl(
    student_logits: Tensor, label: Tensor, correct: float = 0.9, temperature: float = 1.0, smooth_teacher: bool = False
) -> Tensor:
    """KL(q || softmax(z / τ)) in nats times τ², [B], where q is a virtual teacher built from the label [B].

    q has probability `correct` for the true class; the rest is spread evenly over the others. With `smooth_teacher` it is
    softmax(q / τ), which uses the probabilities as logits, as the authors do.

    Reference: Tf-KD, arXiv:1909.11723.
    """
    student = log_probs(student_logits, temperature)
    q = torch.full_like(student, (1 - correct) / (student.shape[-1] - 1)).scatter_(-1, label[:, None], correct)
    if smooth_teacher:
        q = torch.softmax(q / temperature, -1)
    return (torch.special.xlogy(q, q) - q * student).sum(-1) * temperature**2
