"""Features are what the modules gave, named by what people call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from kdx.networks import features
from kdx.networks.features import FeatureTaps
from kdx.networks.network import Network

EVERY = [
    "cifar_resnet8",
    "cifar_wrn_16_1",
    "cifar_vgg8_bn",
    "cifar_mobilenetv2",
    "cifar_shufflenetv1",
    "cifar_shufflenetv2",
    "resnet18",
    "resnetv2_50x1_bit",
    "mobilenetv3_small_gn",
    "efficientnet_b0",
]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return timm.create_model("cifar_resnet8", num_classes=10).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32)


def test_a_path_is_pooled_a_stage_from_either_end_or_a_module(model: Any, images: torch.Tensor) -> None:
    paths = ["pooled", "stage1", "stage2", "stage3", "stage-1", "stage-3", "layer2.0.bn1", "conv1"]
    taps = FeatureTaps(model, paths)
    logits, caught = model(images), taps.take()
    assert set(caught) == set(paths)
    x = torch.relu(model.bn1(model.conv1(images)))
    by_hand = [x := getattr(model, f"layer{i}")(x) for i in (1, 2, 3)]
    for i in range(3):
        assert torch.equal(caught[f"stage{i + 1}"], by_hand[i])
    assert caught["stage-1"] is caught["stage3"] and caught["stage-3"] is caught["stage1"]
    assert torch.equal(caught["conv1"], model.conv1(images))
    assert caught["layer2.0.bn1"].shape == (2, 32, 16, 16)
    assert torch.equal(caught["pooled"], by_hand[2].mean((2, 3)))
    assert torch.equal(model.fc(caught["pooled"]), logits)


@pytest.mark.parametrize("name", EVERY)
def test_the_last_layer_makes_logits_of_what_was_pooled(name: str, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).eval()
    taps = FeatureTaps(model, ["pooled"])
    with torch.no_grad():
        logits = model(images)
        pooled = taps.take()["pooled"]
        assert pooled.ndim == 2
        torch.testing.assert_close(features.logits_of(model, pooled), logits)


@pytest.mark.parametrize("name", EVERY)
def test_a_stage_is_still_what_it_was_when_the_network_is_done(name: str, images: torch.Tensor) -> None:
    """An activation in place, after the stage, would change what was caught."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).eval()
    count = len(features.stages(model))
    taps, copies = FeatureTaps(model, [f"stage{i + 1}" for i in range(count)]), {}

    def keep_copy(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            copies[path] = output.clone()

        return hook

    for i, name in enumerate(features.stages(model)):
        model.get_submodule(name).register_forward_hook(keep_copy(f"stage{i + 1}"))
    with torch.no_grad():
        model(images)
    caught = taps.take()
    assert count >= 3 and all(torch.equal(caught[path], copies[path]) for path in copies) and copies.keys() == caught.keys()


def test_what_is_caught_carries_the_gradient(model: Any, images: torch.Tensor) -> None:
    taps = FeatureTaps(model, ["stage2"])
    model(images)
    taps.take()["stage2"].square().sum().backward()
    assert model.conv1.weight.grad.abs().max() > 0 and model.layer3[0].conv1.weight.grad is None


def test_taking_forgets(model: Any, images: torch.Tensor) -> None:
    taps = FeatureTaps(model, ["stage1", "pooled"])
    assert taps.take() == {}
    model(images)
    first = taps.take()
    assert taps.take() == {} and len(first) == 2
    model(images[:1])
    assert taps.take()["pooled"].shape == (1, 64) and first["pooled"].shape == (2, 64)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("stage4", "Unknown stage 'stage4' of the network: use stage1 to stage3"),
        ("stage-4", "Unknown stage 'stage-4' of the network: use stage1 to stage3"),
        ("stage0", "Unknown stage 'stage0'"),
        ("layer22", "Unknown module 'layer22'.*Did you mean .*layer2.*Available: pooled, stage1, stage2, stage3, conv1"),
        ("", "Unknown module ''.*Available: pooled"),
        ("stage1.0", "Unknown module 'stage1.0'.*Available: pooled"),
    ],
)
def test_a_path_that_does_not_exist_is_refused_with_those_that_do(model: Any, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureTaps(model, [path])


def test_a_module_that_goes_by_a_stages_name_is_that_module() -> None:
    model = timm.create_model("cifar_resnet8")
    model.stage2 = nn.Identity()
    taps = FeatureTaps(model, ["stage2"])
    model(torch.rand(2, 3, 8, 8))
    assert taps.take() == {}, "the module of that name never ran"


def test_a_module_that_gives_several_tensors_is_refused_when_it_runs() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    model = nn.Sequential(Twice())
    FeatureTaps(model, ["0"])
    with pytest.raises(ValueError, match="output of module '0' is not a single tensor: select another"):
        model(torch.rand(1))


def test_a_network_with_two_last_layers_has_no_pooled_features() -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_distilled_patch16_224")
    with pytest.raises(ValueError, match="not have a single last layer: select a module name instead of 'pooled'"):
        FeatureTaps(model, ["pooled"])


@pytest.mark.parametrize("training", [True, False])
def test_shapes_come_without_the_batch_and_change_nothing(training: bool) -> None:
    network = Network("cifar_resnet8", 10).train(training)
    taps = FeatureTaps(network.model, ["stage-1", "pooled"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert features.shapes(network, taps, torch.rand(3, 3, 8, 8)) == {"stage-1": (64, 2, 2), "pooled": (64,)}
    assert network.training is training and taps.take() == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_maps_with_channels_last_come_with_channels_first() -> None:
    """As timm's Swin gives them, which says so by `output_fmt`."""

    class ChannelsLast(nn.Module):
        output_fmt = "NHWC"

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.body(images.permute(0, 2, 3, 1)).mean((1, 2))

    model = ChannelsLast()
    taps = FeatureTaps(model, ["body"])
    images = torch.rand(2, 3, 5, 7)
    model(images)
    assert torch.equal(taps.take()["body"], images)
