"""MobileNetV3 without anything that is computed over the batch."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from kdx.networks.features import FeatureTaps
from kdx.networks.mobilenetv3 import group_normed
from kdx.networks.network import Network

NAMES = [("mobilenetv3_large_gn", "mobilenetv3_large_100"), ("mobilenetv3_small_gn", "mobilenetv3_small_100")]


@pytest.mark.parametrize(("name", "like"), NAMES)
def test_only_the_norms_are_other_ones(name: str, like: str) -> None:
    with torch.device("meta"):
        mine, theirs = timm.create_model(name), timm.create_model(like)
    assert {n: p.shape for n, p in mine.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    norms = {n: m for n, m in mine.named_modules() if isinstance(m, nn.GroupNorm)}
    batch_norms = {n: m for n, m in theirs.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms.keys() == batch_norms.keys() and len(norms) > 30
    assert {norm.num_groups for norm in norms.values()} == {8}
    assert all(norm.num_channels == batch_norms[n].num_features for n, norm in norms.items())
    assert all(norm.num_channels % 8 == 0 for norm in norms.values())
    assert all(type(norm.act) is type(batch_norms[n].act) for n, norm in norms.items())
    assert not any("BatchNorm" in type(module).__name__ for module in mine.modules())
    assert mine.pretrained_cfg["architecture"] == name


@pytest.mark.parametrize(("name", "like"), NAMES)
def test_it_is_timms_network_where_norms_do_nothing(name: str, like: str) -> None:
    mine, theirs = timm.create_model(name, num_classes=7).eval(), timm.create_model(like, num_classes=7).eval()
    for module in [*mine.modules(), *theirs.modules()]:
        if isinstance(module, (nn.GroupNorm, nn.BatchNorm2d)):
            module.weight.data.zero_()  # then a norm gives its bias, whichever norm it is
            module.bias.data.copy_(torch.linspace(-1, 2, len(module.bias)))
    theirs.load_state_dict(dict(mine.state_dict()), strict=False)  # it has running statistics beside
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(mine(images), theirs(images))
    assert mine(images).abs().max() > 0


@pytest.mark.parametrize(("name", "like"), NAMES)
def test_an_examples_logits_depend_on_it_alone_and_not_on_the_mode(name: str, like: str) -> None:
    torch.manual_seed(0)
    network, images = Network(name, 10, 1), torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        together = network.train()(images)
        torch.testing.assert_close(network.eval()(images), together)
        torch.testing.assert_close(network(images[:1]), together[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "like"), NAMES)
@pytest.mark.parametrize("resolution", [4, 8])
def test_it_takes_small_images_and_gives_features(name: str, like: str, resolution: int) -> None:
    model = timm.create_model(name, num_classes=10)
    taps = FeatureTaps(model, ["stage1", "stage-1", "pooled"])
    assert model(torch.rand(2, 3, resolution, resolution)).shape == (2, 10)
    caught = taps.take()
    assert caught["stage-1"].shape[1] == model.num_features and caught["pooled"].shape == (2, model.head_hidden_size)


def test_the_number_of_groups_is_an_argument() -> None:
    model = Network("mobilenetv3_small_gn", 10, args={"groups": 4}).model
    assert {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)} == {4}
    with pytest.raises(ValueError, match="bn1 has 16 channels, not divisible by 3 groups: use groups=8 or 4"):
        group_normed("mobilenetv3_small_100", groups=3)
