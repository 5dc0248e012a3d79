"""Gradients of each loss at the student's logits: which loss dominates the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def gradient_norms(weighted: Mapping[str, Tensor], logits: Tensor, taught: Iterable[str]) -> dict[str, Tensor]:
    """Return the norm [] of each weighted loss's gradient with respect to the logits [B,K], as `gradient_NAME`.

    `gradient_ratio` is the norm of the sum over the `taught` losses, which compare with a teacher, divided by that of the sum
    over all others; absent if either is empty. Losses that do not depend on the logits are left out. Nothing is propagated
    through the network, so the cost is about that of the losses. The graph is kept for the step's backward pass.
    """
    norms: dict[str, Tensor] = {}
    sums: dict[bool, Tensor] = {}  # by whether the loss compares with a teacher
    taught = set(taught)
    for name, value in weighted.items():
        if not value.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        norms[f"gradient_{name}"] = gradient.norm()
        side = name in taught
        sums[side] = sums[side] + gradient if side in sums else gradient
    if len(sums) == 2:
        norms["gradient_ratio"] = sums[True].norm() / sums[False].norm().clamp(min=torch.finfo(torch.float32).tiny)
    return norms
