"""Built-in metrics per example [B], from log-probabilities [B,K] and labels [B]."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(log_probs: Tensor, label: Tensor) -> Tensor:
    """Return 1 where the likeliest class is the label, else 0."""
    return (log_probs.argmax(-1) == label).to(log_probs.dtype)


def topk(log_probs: Tensor, label: Tensor, k: int) -> Tensor:
    """Return 1 where the label is among the k likeliest classes, else 0."""
    return (log_probs.topk(k, -1).indices == label[:, None]).any(-1).to(log_probs.dtype)


def nll(log_probs: Tensor, label: Tensor) -> Tensor:
    """Negative log-likelihood of the label in nats."""
    return -log_probs.gather(-1, label[:, None])[:, 0]


def brier(log_probs: Tensor, label: Tensor) -> Tensor:
    """Squared distance Σ (p - onehot)² in [0,2] (Brier 1950)."""
    probs = log_probs.exp()
    return probs.square().sum(-1) - 2 * probs.gather(-1, label[:, None])[:, 0] + 1


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats, in [0, log K]."""
    return -torch.special.xlogy(log_probs.exp(), log_probs.exp()).sum(-1)


def agreement(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """Return 1 where student and teacher predict the same class, else 0."""
    return (student_log_probs.argmax(-1) == teacher_log_probs.argmax(-1)).to(student_log_probs.dtype)


def kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(teacher || student) in nats, at temperature 1."""
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(-1)
