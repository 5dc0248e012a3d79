"""Metrics per example [B], from log-probabilities [B,K]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def names(num_classes: int, *, labels: bool) -> list[str]:
    """Which of a network's own metrics can be measured: top5 of more than five classes, without labels only entropy."""
    return [*(["accuracy", *(["top5"] if num_classes > 5 else []), "nll", "brier"] if labels else []), "entropy"]


def measure(which: Sequence[str], log_probs: Tensor, label: Tensor | None) -> list[Tensor]:
    """The named metrics [B] of a network."""
    own = {"entropy": entropy(log_probs)} if "entropy" in which else {}
    if label is not None:
        own |= {name: metric(log_probs, label) for name, metric in LABELED.items() if name in which}
    return [own[name] for name in which]


def accuracy(log_probs: Tensor, label: Tensor) -> Tensor:
    """1 where the likeliest class is the label."""
    return (log_probs.argmax(-1) == label).to(log_probs.dtype)


def top5(log_probs: Tensor, label: Tensor) -> Tensor:
    """1 where the label is among the five likeliest classes."""
    return (log_probs.topk(5, -1).indices == label[:, None]).any(-1).to(log_probs.dtype)


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
    """1 where student and teacher name the same class."""
    return (student_log_probs.argmax(-1) == teacher_log_probs.argmax(-1)).to(student_log_probs.dtype)


def kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(teacher || student) in nats, at temperature 1."""
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(-1)


LABELED = {"accuracy": accuracy, "top5": top5, "nll": nll, "brier": brier}
