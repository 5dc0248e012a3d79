"""AdamW whose first moment is kept in bfloat16, as `optax.scale_by_adam(mu_dtype="bfloat16")` in FunMatch's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class HalfAdamW(Optimizer):
    """AdamW with a first moment in bfloat16, which takes half of its memory.

    As in Optax, the stored moment and its decay, rounded to bfloat16 as well (0.8984 for 0.9), are multiplied in bfloat16; the
    update of this step uses their sum with the gradient before it is rounded.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: Sequence[float], eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; torch casts moments to the type of their parameter, which is undone here."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["exp_avg"] = state["exp_avg"].to(torch.bfloat16)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once. Return the closure's result, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(group, parameters)
        return loss

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        group["steps"] = steps = group.get("steps", 0) + 1
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "exp_avg": torch.zeros_like(parameter, dtype=torch.bfloat16),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
        halves = [self.state[parameter]["exp_avg"] for parameter in parameters]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
        rounded = float(torch.tensor(beta1, dtype=torch.bfloat16))
        first = [half.float() for half in torch._foreach_mul(halves, rounded)]
        torch._foreach_add_(first, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        denominator = torch._foreach_div(squares, 1 - beta2**steps)
        torch._foreach_sqrt_(denominator)
        torch._foreach_add_(denominator, eps)
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, first, denominator, -lr / (1 - beta1**steps))
        torch._foreach_copy_(halves, first)
