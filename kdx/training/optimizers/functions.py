"""Optimizers in addition to those of torch, as functions (parameter groups, settings) -> optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch.optim import AdamW, Optimizer

from kdx.ranges import Fraction, NonNegative, Positive
from kdx.training.optimizers.half_adam import HalfAdamW


def big_vision_adam(
    params: Iterable[Any],
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 1e-4,
    betas: Sequence[Fraction] = (0.9, 0.999),
    eps: Positive = 1e-8,
    first_moment: Literal["float32", "bfloat16"] = "float32",
    fused: bool | None = None,
) -> Optimizer:
    """Adam whose weight decay is not multiplied by lr: Δθ = -schedule · (lr · m̂ / (√v̂ + eps) + weight_decay · θ).

    FunMatch (arXiv:2106.05237) defines its weight decays of 1e-5 to 1e-3 this way. Implemented as torch's AdamW with
    weight_decay / lr in each group, because AdamW multiplies by lr; a schedule of lr acts on both parts. `first_moment` is the
    type in which the first moment is stored; `fused` is AdamW's, for float32. Raises ValueError if lr is 0.
    """
    if not lr > 0:
        raise ValueError(f"Invalid lr {lr}; expected more than 0, because weight_decay is divided by it: set optimizer.lr=1e-3")
    groups = []
    for group in params:
        group = dict(group) if isinstance(group, dict) else {"params": [group]}
        groups.append({**group, "weight_decay": group.get("weight_decay", weight_decay) / lr})
    first, second = float(betas[0]), float(betas[1])
    if first_moment == "float32":
        return AdamW(groups, lr=lr, betas=(first, second), eps=eps, fused=fused)
    return HalfAdamW(groups, lr=lr, betas=(first, second), eps=eps)


def kron(params: Iterable[Any], lr: Positive = 1e-3, weight_decay: NonNegative = 0.0, momentum: Fraction = 0.9) -> Optimizer:
    """PSGD with Kronecker-factored preconditioners; its state per tensor is the sum of the squared side lengths.

    Weight decay is decoupled, and does not apply to tensors with fewer than 2 dimensions. Raises ValueError if the required
    packages are not installed.
    """
    try:
        import opt_einsum  # noqa: F401 - without it torch chooses an extremely slow contraction order
        from pytorch_optimizer import Kron
    except ImportError:
        raise ValueError("Kron requires additional packages: pip install kdx[kron]") from None
    return Kron(params, lr=lr, weight_decay=weight_decay, momentum=momentum)
