"""Optimizers that torch does not have, each a function (parameter groups, settings) -> optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.optim import AdamW, Optimizer

from kdx.ranges import Fraction, NonNegative, Positive


def big_vision_adam(
    params: Iterable[Any],
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 1e-4,
    betas: Sequence[Fraction] = (0.9, 0.999),
    eps: Positive = 1e-8,
) -> AdamW:
    """Adam whose weight decay is not multiplied by lr: Δθ = -schedule · (lr · m̂ / (√v̂ + eps) + weight_decay · θ).

    This is how FunMatch (arXiv:2106.05237) means its weight decays of 1e-5 to 1e-3. It is torch's AdamW with weight_decay / lr
    in each group, for AdamW multiplies by lr, and a schedule of lr then acts on both parts. ValueError if lr is 0.
    """
    if not lr > 0:
        raise ValueError(f"weight decay is kept apart from lr by dividing by it, and lr is {lr}: give optimizer.lr=1e-3")
    groups = []
    for group in params:
        group = dict(group) if isinstance(group, dict) else {"params": [group]}
        groups.append({**group, "weight_decay": group.get("weight_decay", weight_decay) / lr})
    return AdamW(groups, lr=lr, betas=(float(betas[0]), float(betas[1])), eps=eps)


def kron(params: Iterable[Any], lr: Positive = 1e-3, weight_decay: NonNegative = 0.0, momentum: Fraction = 0.9) -> Optimizer:
    """PSGD with Kronecker-factored preconditioners: the squares of a tensor's sides, summed, are the numbers it keeps.

    Weight decay is decoupled, and never acts on tensors of fewer than 2 dimensions. ValueError where the packages it comes
    from are not installed.
    """
    try:
        import opt_einsum  # noqa: F401 - without it torch multiplies in an order that never ends
        from pytorch_optimizer import Kron
    except ImportError:
        raise ValueError("Kron comes from other packages: pip install kdx[kron]") from None
    return Kron(params, lr=lr, weight_decay=weight_decay, momentum=momentum)
