"""What losses and metrics cost by the number of classes, from 10 to ImageNet-21k's 21,841."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from kdx.benchmarks.machine import device, seconds
from kdx.losses.ce import CE
from kdx.losses.dist import DIST
from kdx.losses.dkd import DKD
from kdx.losses.kl import KL
from kdx.losses.mse import MSE
from kdx.losses.objective import Loss
from kdx.losses.virtual import Virtual
from kdx.metrics.suite import Suite
from kdx.types import Outputs

CLASSES = (10, 1000, 21_841)
BATCH = 64
LOSSES: dict[str, Loss] = {
    "ce": CE(),
    "ce, smoothed": CE(0.1),
    "kl": KL(),
    "kl, js": KL(direction="js"),
    "dkd": DKD(),
    "dist": DIST(),
    "mse": MSE(),
    "virtual": Virtual(),
}


def outputs(num_classes: int) -> Outputs:
    """Return random logits of student and teacher, and labels."""
    where = device()
    student, teacher = (torch.randn(BATCH, num_classes, device=where) for _ in range(2))
    label = torch.arange(BATCH, device=where) % num_classes
    return Outputs(student.requires_grad_(), teacher, label, temperature=torch.tensor(4.0, device=where))


def gradient(loss: Loss, seen: Outputs) -> Tensor:
    """Return the gradient of a mean loss with respect to the student's logits."""
    return torch.autograd.grad(loss(seen).mean(), seen.student_logits)[0]


def rows() -> Iterator[tuple[str, str, str]]:
    """Measure a batch of 64: what, the result, and the protocol."""
    for num_classes in CLASSES:
        seen = outputs(num_classes)
        for name, loss in LOSSES.items():
            lasted = 1e3 * seconds(partial(gradient, loss, seen))
            yield f"loss {name}, K = {num_classes:,}", f"{lasted:.2f} ms", "forward and backward"
        suite = Suite(num_classes).to(device())
        with torch.no_grad():
            lasted = 1e3 * seconds(partial(suite.update, seen))
        yield f"metrics, K = {num_classes:,}", f"{lasted:.2f} ms", "of student, teacher and both"
