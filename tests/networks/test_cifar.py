"""The CIFAR ResNets are those of the distillation papers."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from kdx.networks.cifar.resnet import CifarResNet


@pytest.mark.parametrize(("depth", "count"), [(20, 278_324), (32, 472_756), (56, 861_620), (110, 1_736_564)])
def test_it_has_the_published_number_of_parameters(depth: int, count: int) -> None:
    model = timm.create_model(f"cifar_resnet{depth}", num_classes=100)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_depth_counts_the_layers_with_weights(depth: int) -> None:
    model = timm.create_model(f"cifar_resnet{depth}")
    layers = [m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in name]
    assert len(layers) == depth


def test_a_depth_that_is_not_6n_plus_2_is_refused() -> None:
    with pytest.raises(ValueError, match="6n\\+2, got 18"):
        CifarResNet(depth=18)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("resolution", [4, 5, 8, 15, 28, 32])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_it_takes_small_images_of_any_channels(in_channels: int, resolution: int, training: bool) -> None:
    model = timm.create_model("cifar_resnet8", num_classes=7, in_chans=in_channels).train(training)
    images = torch.rand(2, in_channels, resolution, resolution)
    side = math.ceil(resolution / 4)
    assert model.forward_features(images).shape == (2, 64, side, side)
    logits = model(images)
    assert logits.shape == (2, 7) and logits.isfinite().all()


def test_forward_is_the_head_of_the_features() -> None:
    model = timm.create_model("cifar_resnet20", num_classes=10).eval()
    images = torch.rand(2, 3, 32, 32)
    features = model.forward_features(images)
    assert torch.equal(model(images), model.forward_head(features))
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.flatten(2).mean(-1))
    assert torch.equal(model(images), model.get_classifier()(pooled))


@pytest.mark.parametrize(("num_classes", "width"), [(5, 5), (0, 64)])
def test_the_head_can_be_changed_or_left_out(num_classes: int, width: int) -> None:
    images, changed = torch.rand(2, 3, 8, 8), timm.create_model("cifar_resnet8")
    changed.reset_classifier(num_classes)
    for model in (changed, timm.create_model("cifar_resnet8", num_classes=num_classes)):
        assert model(images).shape == (2, width) and model.num_classes == num_classes


def test_convolutions_start_with_kaimings_fan_out_deviation() -> None:
    torch.manual_seed(0)
    weight = timm.create_model("cifar_resnet20").layer3[0].conv1.weight  # 32 channels in, 64 out
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
