"""Parameter groups, and a schedule on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdx.temperatures.base import Temperature
from kdx.training.schedules import LrSchedule

Decay = Literal["kernels", "all"]


def parameter_groups(learner: nn.Module, temperature: Temperature | None, decay: Decay) -> list[dict[str, Any]]:
    """Optimizer groups: what decays, what does not, and the temperature with a weight decay of its own.

    "kernels" lets weight decay act on tensors of two or more dimensions only, which leaves out biases and norms.
    """
    own = {id(p) for p in temperature.parameters()} if temperature is not None else set()
    parameters = [p for p in learner.parameters() if p.requires_grad and id(p) not in own]
    exempt = [p for p in parameters if decay == "kernels" and p.ndim < 2]
    chosen = {id(p) for p in exempt}
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in chosen]}]
    if exempt:
        groups.append({"params": exempt, "weight_decay": 0.0})
    if temperature is not None and own:
        groups.append({"params": list(temperature.parameters()), "weight_decay": temperature.weight_decay})
    return groups


def optimizer_and_schedule(
    groups: list[dict[str, Any]],
    optimizer: Callable[..., Optimizer],
    schedule: LrSchedule,
    total_steps: int,
    steps_per_epoch: float,
) -> dict[str, Any]:
    """What Lightning's `configure_optimizers` returns: the schedule steps once per optimizer step."""
    built = optimizer(groups)
    lr = LambdaLR(built, lambda step: schedule(step, total_steps, steps_per_epoch))
    return {"optimizer": built, "lr_scheduler": {"scheduler": lr, "interval": "step"}}
