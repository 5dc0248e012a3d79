"""Parameter groups of the optimizer, and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdx.temperatures.base import Temperature
from kdx.training.optimizers.functions import big_vision_adam
from kdx.training.optimizers.schedules import LrSchedule

Decay = Literal["kernels", "all"]
FUSED, FUSED_ON = (SGD, Adam, AdamW, big_vision_adam), ("cpu", "cuda")  # what has kernels for all parameters at once, and where


def parameter_groups(learner: nn.Module, temperature: Temperature | None, decay: Decay) -> list[dict[str, Any]]:
    """Return optimizer groups: with weight decay, without, and one per learned temperature with its own weight decay.

    With "kernels", weight decay applies only to tensors of two or more dimensions, so not to biases and norms, and not to
    parameters listed by a network's `no_weight_decay()`, such as position embeddings and tokens in timm.
    """
    temperatures = _temperatures_by_parameter(temperature)
    exempt = _not_decayed(learner) if decay == "kernels" else []
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in learner.named_parameters():
        if parameter in temperatures or not parameter.requires_grad:
            continue
        bias = parameter.ndim < 2 or name.endswith(".bias")
        is_exempt = decay == "kernels" and (bias or any(fnmatchcase(name, pattern) for pattern in exempt))
        (rest if is_exempt else kernels).append(parameter)
    groups: list[dict[str, Any]] = [{"params": kernels}]
    if rest:
        groups.append({"params": rest, "weight_decay": 0.0})
    for module in dict.fromkeys(temperatures.values()):
        learned = [parameter for parameter in temperatures if temperatures[parameter] is module]
        groups.append({"params": learned, "weight_decay": module.weight_decay})
    return groups


def _temperatures_by_parameter(temperature: Temperature | None) -> dict[nn.Parameter, Temperature]:
    """Return the temperature of each learned parameter; of nested temperatures, the innermost."""
    temperatures: dict[nn.Parameter, Temperature] = {}
    for module in temperature.modules() if temperature is not None else ():  # outer modules come first
        if isinstance(module, Temperature):
            temperatures |= dict.fromkeys(module.parameters(), module)
    return temperatures


def _not_decayed(learner: nn.Module) -> list[str]:
    """Return patterns of parameter names that the networks exclude from weight decay."""
    patterns: list[str] = []
    for prefix, module in learner.named_modules():
        no_weight_decay = getattr(module, "no_weight_decay", None)
        if callable(no_weight_decay):
            patterns += [f"{prefix}.{name}" if prefix else name for name in no_weight_decay()]
    return patterns


def fused_where_possible(optimizer: Callable[..., Optimizer], groups: list[dict[str, Any]]) -> Optimizer:
    """Return the optimizer with torch's fused kernel; without, if it has none for these parameters or its config says so."""
    made, chosen = (optimizer.func, optimizer.keywords) if isinstance(optimizer, partial) else (optimizer, {})
    parameters = [parameter for group in groups for parameter in group["params"]]
    fits = all(parameter.is_floating_point() and parameter.device.type in FUSED_ON for parameter in parameters)
    if made in FUSED and fits and not {"fused", "foreach"} & chosen.keys():
        return optimizer(groups, fused=True)
    return optimizer(groups)


def optimizer_and_schedule(
    groups: list[dict[str, Any]],
    optimizer: Callable[..., Optimizer],
    schedule: LrSchedule,
    total_steps: int,
    steps_per_epoch: float,
    fused: bool = False,
) -> dict[str, Any]:
    """Return the result of Lightning's `configure_optimizers`; the schedule advances once per optimizer step.

    With `fused`, parameters are updated by one kernel where torch has it, equal to float noise.
    """
    built = fused_where_possible(optimizer, groups) if fused else optimizer(groups)
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
