"""Every parameter is in one group, and weight decay acts where it should."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from kdx.distiller import Distiller
from kdx.losses.objective import Loss, Objective, Term
from kdx.networks.network import Network
from kdx.temperatures.base import Temperature
from kdx.temperatures.curriculum import Curriculum, InstanceCurriculum
from kdx.temperatures.per_network import PerNetwork, Standardized
from kdx.temperatures.schedules import Constant
from kdx.training.optimizers.groups import Decay, optimizer_and_schedule, parameter_groups
from kdx.training.optimizers.schedules import CosineLr
from kdx.types import Outputs


class Projection(Loss):
    """A loss that learns a kernel and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, outputs: Outputs) -> Tensor:
        return self.layer.weight.sum()


def learner(temperature: Temperature | None) -> nn.ModuleList:
    distiller = Distiller(Network("cifar_resnet8", 5), None, temperature)
    return nn.ModuleList([distiller, Objective({"a": Term(Projection())})])


def named(module: nn.Module, groups: list[dict[str, Any]]) -> list[list[str]]:
    """The names of the parameters in each group."""
    names = {id(p): name for name, p in module.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in groups]


@pytest.mark.parametrize("decay", ["kernels", "all"])
@pytest.mark.parametrize("make", [lambda: None, Constant, Curriculum], ids=["none", "constant", "curriculum"])
def test_every_trainable_parameter_is_in_exactly_one_group(make: Callable[[], Temperature | None], decay: Decay) -> None:
    temperature = make()
    whole = learner(temperature)
    frozen = whole[0].student.model.conv1.weight.requires_grad_(False)
    groups = parameter_groups(whole, temperature, decay)
    chosen = [id(p) for group in groups for p in group["params"]]
    assert sorted(chosen) == sorted(id(p) for p in whole.parameters() if p is not frozen)
    assert all(group["params"] for group in groups)


def test_kernels_decay_and_biases_and_norms_do_not() -> None:
    whole = learner(None)
    decayed, exempt = parameter_groups(whole, None, "kernels")
    assert "weight_decay" not in decayed and exempt["weight_decay"] == 0
    kernels, rest = named(whole, [decayed, exempt])
    layers = {name: module for name, module in whole.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert set(kernels) == {f"{name}.weight" for name in layers}
    norms = [name for name, module in whole.named_modules() if isinstance(module, nn.BatchNorm2d)]
    biases = [f"{name}.bias" for name, layer in layers.items() if layer.bias is not None]
    assert set(rest) == {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")} | set(biases)


def test_all_means_that_nothing_is_exempt() -> None:
    (group,) = parameter_groups(learner(None), None, "all")
    assert "weight_decay" not in group


def unfilled(architecture: str) -> nn.Module:
    """A network of timm's without memory for its weights."""
    torch.set_default_device("meta")
    try:
        return timm.create_model(architecture, num_classes=3)
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize(
    "architecture",
    ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224", "levit_128s", "resnetv2_50x1_bit",
     "deit_tiny_distilled_patch16_224", "convnext_atto", "maxvit_rmlp_pico_rw_256", "mobilenetv3_small_050"],
)  # fmt: skip
def test_the_kernels_of_timms_networks_are_what_timm_says(architecture: str) -> None:
    model = unfilled(architecture)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    timms = {
        group["weight_decay"]: group["params"] for group in param_groups_weight_decay(model, 0.1, no_weight_decay_list=exempt)
    }
    decayed, rest = parameter_groups(nn.ModuleList([nn.ModuleDict({"model": model})]), None, "kernels")
    for ours, theirs in ((decayed, timms[0.1]), (rest, timms[0.0])):
        assert [id(p) for p in ours["params"]] == [id(p) for p in theirs]


def test_wildcards_and_what_inner_modules_name_are_left_out_too() -> None:
    whole = nn.ModuleList([unfilled("xcit_nano_12_p16_224")])  # names 'pos_embed.*', and its blocks a 'temperature'
    decayed, rest = named(whole, parameter_groups(whole, None, "kernels"))
    assert {"0.pos_embed.token_projection.weight", "0.blocks.0.attn.temperature"} <= set(rest)
    assert not any("pos_embed" in name or "temperature" in name for name in decayed)


def test_positions_and_tokens_do_not_decay_inside_a_distiller() -> None:
    whole = nn.ModuleList([Distiller(Network("test_vit", 5, args={"img_size": 32}))])
    decayed, rest = named(whole, parameter_groups(whole, None, "kernels"))
    assert {"0.student.model.pos_embed", "0.student.model.cls_token"} <= set(rest)
    assert all(name.endswith("weight") for name in decayed) and len(decayed) > 4


@pytest.mark.parametrize("decay", ["kernels", "all"])
def test_a_temperature_inside_another_keeps_its_own_weight_decay(decay: Decay) -> None:
    temperature = PerNetwork(Curriculum(weight_decay=0.1), InstanceCurriculum(hidden=2, weight_decay=0.2))
    temperature.connect(5)
    whole = learner(temperature)
    *_, first, second = parameter_groups(whole, temperature, decay)
    assert [first["weight_decay"], second["weight_decay"]] == [0.1, 0.2]
    assert named(whole, [first]) == [["0.temperature.teacher.raw"]]
    assert sorted(named(whole, [second])[0]) == [
        f"0.temperature.student.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("bias", "weight")
    ]
    (wrapped,) = parameter_groups(nn.ModuleList(), Standardized(Curriculum(weight_decay=0.3)), decay)[1:]
    assert wrapped["weight_decay"] == 0.3 and len(wrapped["params"]) == 1


@pytest.mark.parametrize("decay", ["kernels", "all"])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
def test_the_temperature_has_a_group_of_its_own_with_its_own_weight_decay(weight_decay: float, decay: Decay) -> None:
    temperature = Curriculum(weight_decay=weight_decay)
    whole = learner(temperature)
    last = parameter_groups(whole, temperature, decay)[-1]
    assert named(whole, [last]) == [["0.temperature.raw"]] and last["weight_decay"] == weight_decay


def test_the_optimizers_weight_decay_reaches_the_kernels_alone() -> None:
    temperature = Curriculum(weight_decay=5e-4)
    whole = learner(temperature)
    optimizer = functools.partial(torch.optim.SGD, lr=1.0, weight_decay=0.01)
    groups = parameter_groups(whole, temperature, "kernels")
    built = optimizer_and_schedule(groups, optimizer, CosineLr(), 10, 5)["optimizer"]
    assert [group["weight_decay"] for group in built.param_groups] == [0.01, 0.0, 5e-4]


def test_lr_follows_the_schedule_step_by_step_in_every_group() -> None:
    temperature, schedule = Curriculum(), CosineLr(warmup_steps=3)
    groups = parameter_groups(learner(temperature), temperature, "kernels")
    made = optimizer_and_schedule(groups, functools.partial(torch.optim.AdamW, lr=0.02), schedule, 20, 5)
    assert made["lr_scheduler"]["interval"] == "step"
    for step in range(21):
        expected = 0.02 * schedule(step, 20, 5)
        assert [group["lr"] for group in made["optimizer"].param_groups] == pytest.approx([expected] * 3)
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
