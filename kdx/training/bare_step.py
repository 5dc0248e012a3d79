"""A training step in plain PyTorch, with which that of kdx is compared. Imports nothing else of kdx."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

TEMPERATURE = 4.0


def bare_step(
    student: nn.Module, teacher: nn.Module | None, optimizer: Optimizer, images: Tensor, seen: Tensor, target: Tensor | None
) -> Callable[[], Tensor]:
    """Return a function that takes a step on `images` [B,C,R,R], by the teacher who has `seen` them, and returns its loss [].

    Without a teacher, `target` teaches: labels [B] or probabilities [B,K].
    """

    def step() -> Tensor:
        logits = student(images) / TEMPERATURE
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(seen) / TEMPERATURE
            loss = F.kl_div(logits.log_softmax(-1), taught.softmax(-1), reduction="batchmean") * TEMPERATURE**2
        else:
            assert target is not None
            loss = F.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
