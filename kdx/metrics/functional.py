"""Built-in metrics per example [B], from (log-)probabilities [B,K], likeliest classes and labels [B]."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(predicted: Tensor, label: Tensor) -> Tensor:
    """Return 1 where the likeliest class is the label, else 0."""
    return (predicted == label).to(torch.float64)


def topk(log_probs: Tensor, label: Tensor, k: int) -> Tensor:
    """Return 1 where the label is among the k likeliest classes, else 0."""
    return (log_probs.topk(k, -1).indices == label[:, None]).any(-1).to(log_probs.dtype)


def nll(log_probs: Tensor, label: Tensor) -> Tensor:
    """Negative log-likelihood of the label in nats."""
    return -log_probs.gather(-1, label[:, None])[:, 0]


def brier(probs: Tensor, label: Tensor) -> Tensor:
    """Squared distance Σ (p - onehot)² in [0,2] (Brier 1950)."""
    return torch.linalg.vector_norm(probs, dim=-1).square() - 2 * probs.gather(-1, label[:, None])[:, 0] + 1


def entropy(log_probs: Tensor, probs: Tensor) -> Tensor:
    """Entropy in nats, in [0, log K]."""
    finite = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)  # 0 log 0 is 0
    return -finite.mul_(probs).sum(-1)


def agreement(student_predicted: Tensor, teacher_predicted: Tensor) -> Tensor:
    """Return 1 where student and teacher predict the same class, else 0."""
    return (student_predicted == teacher_predicted).to(torch.float64)


def kl(student_log_probs: Tensor, teacher_log_probs: Tensor, teacher_probs: Tensor) -> Tensor:
    """KL(teacher || student) in nats, at temperature 1."""
    return (teacher_log_probs - student_log_probs).mul_(teacher_probs).sum(-1)
