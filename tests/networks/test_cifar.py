"""The CIFAR families are those of the distillation papers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from kdx.networks import weights
from kdx.networks.cifar.resnet import BasicBlock, CifarResNet
from kdx.networks.cifar.shufflenetv1 import ShuffleUnitV1, shuffle
from kdx.networks.cifar.wrn import PreActivationBlock, WideResNet
from kdx.networks.features import FeatureTaps
from kdx.networks.names import architectures

COUNTS = {  # parameters with 100 classes, as CRD's code has them
    "cifar_resnet8": 83_892,
    "cifar_resnet14": 181_108,
    "cifar_resnet20": 278_324,
    "cifar_resnet32": 472_756,
    "cifar_resnet44": 667_188,
    "cifar_resnet56": 861_620,
    "cifar_resnet110": 1_736_564,
    "cifar_resnet8x4": 1_233_540,
    "cifar_resnet32x4": 7_433_860,
    "cifar_resnet50": 23_705_252,
    "cifar_wrn_16_1": 180_916,
    "cifar_wrn_16_2": 703_284,
    "cifar_wrn_40_1": 569_780,
    "cifar_wrn_40_2": 2_255_156,
    "cifar_vgg8_bn": 3_965_028,
    "cifar_vgg11_bn": 9_277_284,
    "cifar_vgg13_bn": 9_462_180,
    "cifar_vgg16_bn": 14_774_436,
    "cifar_vgg19_bn": 20_086_692,
    "cifar_mobilenetv2": 812_836,
    "cifar_shufflenetv1": 949_258,
    "cifar_shufflenetv2": 1_355_528,
}
FAMILIES = [  # the smallest of each
    "cifar_resnet8",
    "cifar_resnet8x4",
    "cifar_resnet50",
    "cifar_wrn_16_1",
    "cifar_vgg8_bn",
    "cifar_mobilenetv2",
    "cifar_shufflenetv1",
    "cifar_shufflenetv2",
]
# Channels and side of each stage's map, for images of 32 px; then the channels that are pooled.
STAGES = {
    "cifar_resnet20": ([(16, 32), (32, 16), (64, 8)], 64),
    "cifar_resnet8x4": ([(64, 32), (128, 16), (256, 8)], 256),
    "cifar_resnet50": ([(256, 32), (512, 16), (1024, 8), (2048, 4)], 2048),
    "cifar_wrn_16_2": ([(32, 32), (64, 16), (128, 8)], 128),
    "cifar_vgg13_bn": ([(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)], 512),
    "cifar_mobilenetv2": ([(12, 16), (16, 8), (48, 4), (160, 2)], 1280),
    "cifar_shufflenetv1": ([(240, 16), (480, 8), (960, 4)], 960),
    "cifar_shufflenetv2": ([(116, 16), (232, 8), (464, 4)], 1024),
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@functools.cache
def model_of(name: str) -> Any:
    """The network in eval mode, its norms' statistics and parameters away from where they start. Nobody changes it."""
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5), (module.running_var, 0.5, 2)):
                tensor.data.uniform_(low, high)
            module.running_mean.data.normal_(0, 0.3)
    return model


def test_the_list_here_is_complete() -> None:
    assert {name for name in architectures() if name.startswith("cifar_")} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_it_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_depth_counts_the_layers_with_weights(depth: int) -> None:
    model = timm.create_model(f"cifar_resnet{depth}")
    layers = [m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in name]
    assert len(layers) == depth


@pytest.mark.parametrize(("name", "depth"), [("wrn_16_2", 16), ("wrn_40_2", 40)])
def test_a_wide_resnets_depth_counts_its_convolutions(name: str, depth: int) -> None:
    assert sum(isinstance(m, nn.Conv2d) for m in timm.create_model(f"cifar_{name}").modules()) == depth


@pytest.mark.parametrize("depth", [8, 11, 13, 16, 19])
def test_vggs_depth_counts_the_two_linear_layers_that_are_not_there(depth: int) -> None:
    layers = [m for m in timm.create_model(f"cifar_vgg{depth}_bn").modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth - 2


@pytest.mark.parametrize("depth", [2, 18])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"Invalid depth {depth} .* expected 6n\\+2, such as 8, 14"):
        CifarResNet(depth=depth)


@pytest.mark.parametrize("depth", [4, 18])
def test_a_wide_resnet_whose_depth_is_not_6n_plus_4_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"Invalid depth {depth} .* expected 6n\\+4, such as 10, 16"):
        WideResNet(depth=depth)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("resolution", [4, 5, 8, 15, 28, 32])
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_takes_small_images_of_any_channels(name: str, in_channels: int, resolution: int, training: bool) -> None:
    model = timm.create_model(name, num_classes=7, in_chans=in_channels).train(training)
    images = torch.rand(2, in_channels, resolution, resolution)
    features = model.forward_features(images)
    assert features.shape[:2] == (2, model.num_features) and features.shape[-1] == features.shape[-2]
    logits = model(images)
    assert logits.shape == (2, 7) and logits.isfinite().all()


@pytest.mark.parametrize("name", COUNTS)
def test_forward_is_the_head_of_the_features(name: str) -> None:
    model, images = model_of(name), torch.rand(2, 3, 32, 32)
    features, logits = model.forward_features(images), model(images)
    assert torch.equal(logits, model.forward_head(features))
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.flatten(2).mean(-1))
    assert torch.equal(logits, model.get_classifier()(pooled))
    assert logits.shape == (2, 100) and logits.std(0).max() > 0, "the images make no difference"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("num_classes", [5, 0])
def test_the_head_can_be_changed_or_left_out(name: str, num_classes: int) -> None:
    images, changed = torch.rand(2, 3, 8, 8), timm.create_model(name)
    changed.reset_classifier(num_classes)
    for model in (changed, timm.create_model(name, num_classes=num_classes)):
        assert model(images).shape == (2, num_classes or model.num_features) and model.num_classes == num_classes


@pytest.mark.parametrize("name", FAMILIES)
def test_timm_knows_its_first_and_last_layer(name: str) -> None:
    model = timm.create_model(name, in_chans=1)
    first, last = (model.get_submodule(model.pretrained_cfg[key]) for key in ("first_conv", "classifier"))
    assert isinstance(first, nn.Conv2d) and first.in_channels == 1
    assert last is model.get_classifier() and last.in_features == model.num_features
    assert model.pretrained_cfg["architecture"] == name


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout_is_before_the_last_layer_and_only_in_training(name: str) -> None:
    model, images = timm.create_model(name, drop_rate=0.5).eval(), torch.rand(2, 3, 8, 8)
    features = model.forward_features(images)
    assert torch.equal(model(images), model(images))
    assert not torch.equal(model.train().forward_head(features), model.forward_head(features))


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_timm_builds_it_again_from_what_was_saved(tmp_path: Path, name: str) -> None:
    model, path, images = model_of(name), tmp_path / "weights.safetensors", torch.rand(2, 3, 8, 8)
    weights.save(model, {}, path)
    again = timm.create_model(name, checkpoint_path=path).eval()
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("name", STAGES)
def test_a_stages_map_has_the_size_that_timm_is_told(name: str) -> None:
    model, (expected, width) = model_of(name), STAGES[name]
    paths = [f"stage{i + 1}" for i in range(len(expected))]
    taps = FeatureTaps(model, [*paths, "pooled"])
    model(torch.rand(2, 3, 32, 32))
    caught = taps.take()
    assert [caught[path].shape for path in paths] == [(2, channels, side, side) for channels, side in expected]
    assert [(info["num_chs"], 32 // info["reduction"]) for info in model.feature_info] == expected
    assert caught["pooled"].shape == (2, width) and model.num_features == width


@pytest.mark.parametrize("name", COUNTS)
def test_features_are_caught_by_stage_and_before_the_last_layer(name: str) -> None:
    model, images = model_of(name), torch.rand(2, 3, 32, 32)
    paths = ["stage-1", "stage-2", "stage1", "pooled"]
    taps = FeatureTaps(model, paths)
    logits, caught = model(images), taps.take()
    assert set(caught) == set(paths)
    torch.testing.assert_close(model.get_classifier()(caught["pooled"]), logits)
    active = min(caught[path].min() for path in paths[:3]) >= 0
    plain = "wrn" in name or "mobilenet" in name  # sums before norm and ReLU; linear bottlenecks
    assert active == (not plain), "a stage ends after its ReLU"


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet50", "cifar_vgg13_bn", "cifar_shufflenetv1"])
def test_the_last_stage_is_what_is_pooled(name: str) -> None:
    model = model_of(name)
    taps = FeatureTaps(model, ["stage-1", "pooled"])
    model(torch.rand(2, 3, 32, 32))
    caught = taps.take()
    torch.testing.assert_close(caught["stage-1"].mean((2, 3)), caught["pooled"])


@pytest.mark.parametrize(("resolution", "side"), [(4, 1), (7, 1), (32, 4), (63, 8), (64, 4), (96, 6)])
def test_vgg_pools_once_more_from_64_px(resolution: int, side: int) -> None:
    assert model_of("cifar_vgg8_bn").forward_features(torch.rand(1, 3, resolution, resolution)).shape == (1, 512, side, side)


# Initialization.


@pytest.mark.parametrize(
    ("name", "layer", "fan_out"),
    [
        ("cifar_resnet20", "layer3.0.conv1", 64 * 9),
        ("cifar_resnet8x4", "layer3.0.conv1", 256 * 9),
        ("cifar_resnet50", "layer4.0.conv1", 512),
        ("cifar_wrn_40_2", "block3.layer.0.conv1", 128 * 9),
        ("cifar_vgg8_bn", "block3.0", 512 * 9),
        ("cifar_mobilenetv2", "blocks.6.0.conv.0", 480),
        ("cifar_mobilenetv2", "blocks.6.0.conv.3", 480 * 9),  # depthwise
    ],
)
def test_convolutions_start_with_kaimings_fan_out_deviation(name: str, layer: str, fan_out: int) -> None:
    convolution = timm.create_model(name).get_submodule(layer)
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    assert convolution.weight.mean().abs().item() < 0.05 * convolution.weight.std().item()
    assert convolution.bias is None or not convolution.bias.any()


@pytest.mark.parametrize("name", ["cifar_vgg8_bn", "cifar_mobilenetv2"])
def test_some_last_layers_start_small_and_again_when_changed(name: str) -> None:
    model = timm.create_model(name)
    for _ in range(2):
        last = model.get_classifier()
        assert last.weight.std().item() == pytest.approx(0.01, rel=0.02) and not last.bias.any()
        model.reset_classifier(50)


def test_a_wide_resnets_last_layer_starts_without_bias() -> None:
    last = timm.create_model("cifar_wrn_16_1").get_classifier()
    assert not last.bias.any() and last.weight.abs().max().item() <= 1 / 8


@pytest.mark.parametrize(
    ("name", "layer", "fan_in"), [("cifar_shufflenetv1", "layer3.1.expand.0", 80), ("cifar_shufflenetv2", "conv2.0", 464)]
)
def test_shufflenets_keep_pytorchs_initialization(name: str, layer: str, fan_in: int) -> None:
    weight = timm.create_model(name).get_submodule(layer).weight
    bound = 1 / math.sqrt(fan_in)
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


# Names of weights, and other people's code.


@pytest.mark.parametrize(
    ("name", "some", "many"),
    [
        ("cifar_resnet8", "conv1.weight bn1.running_var layer2.0.downsample.0.weight layer3.0.bn2.bias fc.bias", 56),
        ("cifar_resnet8x4", "layer1.0.downsample.1.weight layer3.0.conv2.weight", 62),
        ("cifar_resnet50", "layer1.0.shortcut.0.weight layer4.2.bn3.bias linear.weight", 320),
        ("cifar_wrn_16_2", "block1.layer.0.convShortcut.weight block3.layer.1.bn2.weight bn1.weight fc.weight", 83),
        ("cifar_vgg13_bn", "block0.0.bias block2.3.weight block4.4.running_mean classifier.weight", 72),
    ],
)
def test_weights_have_the_names_under_which_teachers_are_published(name: str, some: str, many: int) -> None:
    state = timm.create_model(name).state_dict()
    assert set(some.split()) <= set(state) and len(state) == many


def in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy weights by position: the same layers in the same order, whatever their names."""
    pairs = list(zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    assert all(one.shape == other.shape for one, other in pairs)
    target.load_state_dict(dict(zip(target.state_dict(), source.state_dict().values(), strict=True)))


def agree(mine: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    expected = theirs(images)
    torch.testing.assert_close(mine(images), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(("in_width", "stride"), [(32, 1), (16, 2)])
def test_a_basic_block_is_torchvisions(in_width: int, stride: int) -> None:
    down = nn.Sequential(nn.Conv2d(in_width, 32, 1, stride, bias=False), nn.BatchNorm2d(32)) if stride == 2 else None
    mine, theirs = BasicBlock(in_width, 32, stride).eval(), TorchvisionBlock(in_width, 32, stride, down).eval()
    in_order(mine, theirs)
    agree(mine, theirs, torch.randn(2, in_width, 8, 8))


def test_resnet50_is_torchvisions_with_a_small_stem() -> None:
    mine, theirs = model_of("cifar_resnet50"), torchvision.models.resnet50(num_classes=100).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    in_order(mine, theirs)
    agree(mine, theirs, torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize(("depth", "letter"), [(11, "A"), (13, "B"), (16, "D"), (19, "E")])
def test_vggs_stages_are_torchvisions(depth: int, letter: str) -> None:
    mine, layers = (
        model_of(f"cifar_vgg{depth}_bn"),
        torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[letter], True),
    )
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for i in pools[3:]:
        layers[i] = nn.Identity()
    theirs = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100)).eval()
    in_order(mine, theirs)
    agree(mine, theirs, torch.rand(2, 3, 32, 32))


def test_shufflenetv2_is_torchvisions_with_a_small_stem() -> None:
    mine, theirs = model_of("cifar_shufflenetv2"), torchvision.models.shufflenet_v2_x1_0(num_classes=100).eval()
    theirs.conv1[0], theirs.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
    late = {name: tensor for name, tensor in mine.state_dict().items() if name.startswith(("conv2", "linear"))}
    early = {name: tensor for name, tensor in mine.state_dict().items() if name not in late}
    assert len(early) + len(late) == len(theirs.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), [*early.values(), *late.values()], strict=True)))
    agree(mine, theirs, torch.rand(2, 3, 32, 32))


def test_mobilenetv2s_blocks_are_torchvisions_but_for_the_activation() -> None:
    from torchvision.models.mobilenetv2 import InvertedResidual

    for block in (block for group in list(model_of("cifar_mobilenetv2").blocks)[1:] for block in group):
        in_width, width, stride = block.conv[0].in_channels, block.conv[6].out_channels, block.conv[3].stride[0]
        theirs = InvertedResidual(in_width, width, stride, 6).eval()
        in_order(block, theirs)
        agree(block, theirs, 0.1 * torch.randn(2, in_width, 4, 4).clamp(-1, 1))  # too small for ReLU6 to cut


@pytest.mark.parametrize(("in_width", "stride"), [(32, 1), (16, 2)])
def test_a_wide_block_normalizes_before_it_convolves(in_width: int, stride: int) -> None:
    block, x = PreActivationBlock(in_width, 32, stride).eval(), torch.randn(2, in_width, 8, 8)
    active = block.bn1(x).clamp(min=0)
    inner = block.bn2(block.conv1(active)).clamp(min=0)
    shortcut = x if stride == 1 else nn.functional.conv2d(active, block.convShortcut.weight, stride=2)
    torch.testing.assert_close(block(x), shortcut + block.conv2(inner))


def test_a_wide_resnet_normalizes_its_last_sum() -> None:
    model, images = model_of("cifar_wrn_16_2"), torch.rand(2, 3, 8, 8)
    total = model.block3(model.block2(model.block1(model.conv1(images))))
    assert torch.equal(model.forward_features(images), model.bn1(total).clamp(min=0))


def test_a_shuffle_unit_is_the_papers_with_a_relu_more() -> None:
    model, images = model_of("cifar_shufflenetv1"), torch.rand(2, 3, 8, 8)
    x = stem = model.bn1(model.conv1(images)).clamp(min=0)
    for unit, groups in ((model.layer1[0], 1), (model.layer1[1], 3)):
        inner = unit.squeeze[1](unit.squeeze[0](x)).clamp(min=0)
        order = [i * (inner.shape[1] // groups) + j for j in range(inner.shape[1] // groups) for i in range(groups)]
        inner = unit.depthwise[1](unit.depthwise[0](inner[:, order])).clamp(min=0)
        inner = unit.expand[1](unit.expand[0](inner))
        whole = inner + x if groups == 3 else torch.cat([inner, nn.functional.avg_pool2d(x, 3, 2, 1)], 1)
        assert torch.equal(unit(x), whole.clamp(min=0))
        x = unit(x)
    assert torch.equal(model.forward_features(images), model.layer3(model.layer2(model.layer1(stem))))


def test_shuffled_channels_come_from_each_group_in_turn() -> None:
    x = torch.arange(12.0).view(1, 12, 1, 1)
    assert shuffle(x, 3).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert torch.equal(shuffle(x, 1), x) and torch.equal(shuffle(shuffle(x, 3), 4), x)


def test_a_shuffle_unit_that_halves_passes_its_pooled_input() -> None:
    unit, x = ShuffleUnitV1(24, 240, 2).eval(), torch.randn(2, 24, 8, 8)
    y = unit(x)
    assert y.shape == (2, 240, 4, 4)
    assert torch.equal(y[:, 216:], nn.functional.avg_pool2d(x, 3, 2, 1).clamp(min=0))
    assert unit.squeeze[0].groups == 1 and ShuffleUnitV1(240, 480, 2).squeeze[0].groups == unit.expand[0].groups == 3


def test_a_shuffle_unit_that_keeps_the_resolution_adds_its_input() -> None:
    unit, x = ShuffleUnitV1(240, 240, 1).eval(), torch.randn(2, 240, 4, 4)
    unit.expand[1].weight.data.zero_()
    assert torch.equal(unit(x), x.clamp(min=0))
