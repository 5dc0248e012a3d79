"""Parameter groups of the optimizer, and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdx.temperatures.base import Temperature
from kdx.training.optimizers.schedules import LrSchedule

Decay = Literal["kernels", "all"]


def parameter_groups(learner: nn.Module, temperature: Temperature | None, decay: Decay) -> list[dict[str, Any]]:
    """Return optimizer groups: with weight decay, without, and one per learned temperature with its own weight decay.

    With "kernels", weight decay applies only to tensors of two or more dimensions, so not to biases and norms, and not to
    parameters listed by a network's `no_weight_decay()`, such as position embeddings and tokens in timm.
    """
    owners = _owners(temperature)
    exempt = _not_decayed(learner) if decay == "kernels" else []
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in learner.named_parameters():
        if parameter in owners or not parameter.requires_grad:
            continue
        bias = parameter.ndim < 2 or name.endswith(".bias")
        spared = decay == "kernels" and (bias or any(fnmatchcase(name, pattern) for pattern in exempt))
        (rest if spared else kernels).append(parameter)
    groups: list[dict[str, Any]] = [{"params": kernels}]
    if rest:
        groups.append({"params": rest, "weight_decay": 0.0})
    for owner in dict.fromkeys(owners.values()):
        learned = [parameter for parameter in owners if owners[parameter] is owner]
        groups.append({"params": learned, "weight_decay": owner.weight_decay})
    return groups


def _owners(temperature: Temperature | None) -> dict[nn.Parameter, Temperature]:
    """Which temperature each learned parameter belongs to: the innermost, where one holds another."""
    owners: dict[nn.Parameter, Temperature] = {}
    for module in temperature.modules() if temperature is not None else ():  # the outer come first
        if isinstance(module, Temperature):
            owners |= dict.fromkeys(module.parameters(), module)
    return owners


def _not_decayed(learner: nn.Module) -> list[str]:
    """Return patterns of parameter names that the networks exclude from weight decay."""
    patterns: list[str] = []
    for prefix, module in learner.named_modules():
        named = getattr(module, "no_weight_decay", None)
        if callable(named):
            patterns += [f"{prefix}.{name}" if prefix else name for name in named()]
    return patterns


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

    def set_momentum(*_: Any) -> None:
        momentum = schedule.momentum(lr.last_epoch, total_steps)
        for group in built.param_groups if momentum is not None else ():
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    built.register_step_pre_hook(set_momentum)
    return {"optimizer": built, "lr_scheduler": {"scheduler": lr, "interval": "step"}}
