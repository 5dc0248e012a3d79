"""How strongly each loss pulls at the student's logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def pulls(weighted: Mapping[str, Tensor], logits: Tensor, taught: Iterable[str]) -> dict[str, Tensor]:
    """Norms [] of the gradient of each weighted term [] with respect to the logits [B,K]: `gradient_NAME`.

    `gradient_ratio` is the norm of all `taught` terms together over that of all others, where there are both. Terms that
    do not look at the logits have none. Nothing goes through the network, so it costs about as much as the losses; the graph
    is kept for the step's own backward pass.
    """
    found: dict[str, Tensor] = {}
    sums: dict[bool, Tensor] = {}
    taught = set(taught)
    for name, value in weighted.items():
        if not value.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        found[f"gradient_{name}"] = gradient.norm()
        side = name in taught
        sums[side] = sums[side] + gradient if side in sums else gradient
    if len(sums) == 2:
        found["gradient_ratio"] = sums[True].norm() / sums[False].norm().clamp(min=torch.finfo(torch.float32).tiny)
    return found
