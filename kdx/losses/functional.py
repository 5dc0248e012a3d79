"""Losses as pure functions of logits [B,K]: per example [B], unreduced, unweighted, natural logarithm.

Everything stays in log-space and in float32 (float64 where the input is), so values and gradients are finite at logits
of ±1e4 and for half-precision inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.types import Apart, Temperature


def upcast(logits: Tensor) -> Tensor:
    """Logits in at least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_probs(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Log softmax(logits / temperature), [B,K]."""
    return torch.log_softmax(upcast(logits) / temperature, -1)


def split(temperature: Temperature | float) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
    """The teacher's temperature, the student's, and the square that keeps the size of the gradient."""
    return temperature if isinstance(temperature, Apart) else (temperature, temperature, temperature * temperature)


def scaled(loss: Tensor, squared: Tensor | float) -> Tensor:
    """loss [B] times τ², which is a number, [] or [B,1]."""
    return loss * (squared.reshape(-1) if isinstance(squared, Tensor) else squared)


def kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: Temperature | float = 1.0, tau_squared: bool = True
) -> Tensor:
    """KL(teacher || student) of the tempered distributions in nats, [B]; times τ² if `tau_squared`.

    τ² keeps the gradient's size when τ is large: its limit is that of ½·Σ(Δz - mean Δz)²/K. With a temperature for each
    network it is what `Apart.squared` says. Source: Hinton et al., arXiv:1503.02531, section 2.
    """
    teacher_temperature, student_temperature, squared = split(temperature)
    teacher = log_probs(teacher_logits, teacher_temperature)
    student = log_probs(student_logits, student_temperature)
    divergence = (teacher.exp() * (teacher - student)).sum(-1)
    return scaled(divergence, squared) if tau_squared else divergence


def cross_entropy(student_logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats, [B], with target probabilities [B,K]; temperature plays no part."""
    return -(target * log_probs(student_logits)).sum(-1)
