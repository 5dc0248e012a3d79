"""Weights are found in files as trainers write them, and fitted to the network as timm fits its own."""

from __future__ import annotations

import argparse
import logging
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from kdx.networks import weights
from kdx.networks.network import Network

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("kdx"), "propagate", True)
    caplog.set_level(logging.INFO, "kdx")
    return caplog


@pytest.fixture
def model() -> nn.Module:
    return trained("cifar_resnet8")


def trained(architecture: str, num_classes: int = 10, **args: Any) -> nn.Module:
    """A network whose parameters and statistics are all random."""
    model = timm.create_model(architecture, num_classes=num_classes, **args).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + 0.1)
    return model


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def changed(state: State) -> State:
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    return weights.digest(one) == weights.digest(other)


def loaded(content: Any, path: Path, key: str | None = None, **args: Any) -> nn.Module:
    """A new network with the weights in a file of `content`."""
    torch.save(content, path)
    fresh = timm.create_model("cifar_resnet8", num_classes=10, **args)
    weights.load(fresh, path, key, "teacher.key")
    return fresh


# Files as trainers write them.

FILES: dict[str, Callable[[State], Any]] = {
    "timm": lambda s: {
        "epoch": 3,
        "state_dict": s,
        "optimizer": {"state": {0: {"step": 3}}},
        "args": argparse.Namespace(lr=0.1),
    },
    "repdistiller": lambda s: {"opt": argparse.Namespace(lr=0.1, epochs=[1, 2]), "model": s},
    "numpy metadata": lambda s: {
        "model": s,
        "best": np.float64(71.2),
        "n": np.int32(3),
        "loss": np.zeros(3),
        "type": np.dtype("f2"),
    },
    "pytorch-cifar": lambda s: {"net": under("module.", s), "acc": 93.1},
    "tutorial": lambda s: {"model_state_dict": s, "loss": torch.tensor(0.1)},
    "ema only": lambda s: {"ema": s},
    "lightning-hydra-template": lambda s: {"state_dict": under("net.", s), "hyper_parameters": {"lr": 0.1}},
    "compiled and parallel": lambda s: under("_orig_mod.module.", s),
    "averaged": lambda s: {**under("module.", s), "n_averaged": torch.tensor(5)},
    "a loss with weights": lambda s: {"state_dict": {**under("model.", s), "criterion.weight": torch.ones(10)}},
    "a list": lambda s: [{"epoch": 1}, s],
    "deep": lambda s: {"checkpoint": {"models": {"learner": under("backbone.net.", s)}}},
    "teacher and student alike": lambda s: {"state_dict": {**under("student.", s), **under("teacher.", s)}},
    "a larger teacher": lambda s: {"student": s, "teacher": trained("cifar_resnet14").state_dict()},
    "within another network": lambda s: {**under("model.", s), "model.head2.weight": torch.ones(2)} | under("ema.", s),
    "thop": lambda s: {**s, "total_ops": torch.zeros(1), "layer1.total_params": torch.zeros(1)},
    "half": lambda s: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in s.items()},
}


@pytest.mark.parametrize("kind", FILES)
def test_a_trainers_file_gives_its_network(tmp_path: Path, model: nn.Module, kind: str) -> None:
    if kind == "half":
        for tensor in model.state_dict().values():
            tensor.copy_(tensor.half())
    assert same(loaded(FILES[kind](model.state_dict()), tmp_path / "a.pth"), model)
    assert weights.head_classes(tmp_path / "a.pth") == 10


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path, model: nn.Module, told: pytest.LogCaptureFixture) -> None:
    state = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    assert same(loaded(state, tmp_path / "old.pth"), model)
    assert "num_batches_tracked not in the file" in told.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_counters_of_batch_norm_may_be_of_any_type(tmp_path: Path, model: nn.Module, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) if "num_batches" in name else tensor for name, tensor in model.state_dict().items()}
    state["bn1.num_batches_tracked"] = torch.tensor([float("inf")])
    assert same(loaded(state, tmp_path / "half.pth"), model)


def test_a_safetensors_file_of_a_wrapper_is_loaded(tmp_path: Path, model: nn.Module) -> None:
    save_file(under("timm_model.", model.state_dict()), tmp_path / "a.safetensors")
    fresh = timm.create_model("cifar_resnet8", num_classes=10)
    weights.load(fresh, tmp_path / "a.safetensors")
    assert same(fresh, model)


def test_where_weights_were_found_is_logged_but_not_for_a_plain_file(
    tmp_path: Path, model: nn.Module, told: pytest.LogCaptureFixture
) -> None:
    loaded(model.state_dict(), tmp_path / "plain.pth")
    assert told.text == ""
    loaded({"state_dict": {**under("net.", model.state_dict()), "net.total_ops": torch.zeros(1)}}, tmp_path / "a.pth")
    assert [record.message for record in told.records] == [
        f"Weights of {tmp_path / 'a.pth'}: found under state_dict.net; 1 counters such as total_ops skipped"
    ]


def test_a_start_is_found_like_a_teacher(tmp_path: Path, model: nn.Module) -> None:
    state = trained("cifar_resnet8", num_classes=7).state_dict()
    torch.save({"model": under("module.", state)}, tmp_path / "a.pth")
    assert weights.initialize(model, tmp_path / "a.pth") == ["fc.weight", "fc.bias"]
    assert torch.equal(model.conv1.weight, state["conv1.weight"]) and model.fc.weight.shape == (10, 64)


# Several networks in one file.


def two(state: State) -> dict[str, Any]:
    return {"state_dict": {**under("student.", state), **under("teacher.", changed(state))}}


@pytest.mark.parametrize(
    ("key", "shift"), [("student", 0), ("student.", 0), ("teacher.", 1), ("state_dict.teacher", 1), ("teacher", 1)]
)
def test_the_key_chooses_between_networks(tmp_path: Path, model: nn.Module, key: str, shift: int) -> None:
    found = loaded(two(model.state_dict()), tmp_path / "a.pth", key)
    assert torch.equal(found.conv1.weight, model.conv1.weight + shift)


def test_an_ambiguous_file_is_refused_with_the_keys(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"state_dict\.student, state_dict\.teacher: choose one, such as teacher\.key=state_dict\.s"
    ):
        loaded(two(model.state_dict()), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="to its own file"):
        weights.initialize(model, tmp_path / "a.pth")


def test_an_unknown_key_is_refused_with_the_available_ones(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"no weights .* under key=ema; available: state_dict\.student, state_dict\.teacher"):
        loaded(two(model.state_dict()), tmp_path / "a.pth", "ema")


@pytest.mark.parametrize(("ema", "plain"), [("state_dict_ema", "state_dict"), ("model_ema", "model")])
def test_averaged_weights_are_preferred_and_the_log_says_so(
    tmp_path: Path, model: nn.Module, told: pytest.LogCaptureFixture, ema: str, plain: str
) -> None:
    content = {plain: changed(model.state_dict()), ema: under("module.", model.state_dict())}
    assert same(loaded(content, tmp_path / "a.pth"), model)
    assert f"found under {ema}.module; preferred to {plain}" in told.text
    assert torch.equal(loaded(content, tmp_path / "a.pth", plain).conv1.weight, model.conv1.weight + 1)


def test_the_classes_of_each_network_in_a_file_are_told_by_key(tmp_path: Path) -> None:
    torch.save(
        {f"net{n}": {"fc.weight": torch.zeros(n, 4), "a.fc.weight": torch.zeros(5, 4)} for n in (3, 7)}, tmp_path / "a.pth"
    )
    assert weights.head_classes(tmp_path / "a.pth") is None
    assert [weights.head_classes(tmp_path / "a.pth", f"net{n}.") for n in (3, 7)] == [3, 7]


# Files that are refused.


@pytest.mark.parametrize("kind", ["whole model", "TorchScript", "class in the hyperparameters"])
def test_code_in_a_file_is_refused_with_the_remedy_and_without_pytorchs_advice(
    tmp_path: Path, model: nn.Module, kind: str
) -> None:
    path = tmp_path / "a.pt"
    if kind == "TorchScript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, but people have such files
            torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    else:
        torch.save(model if kind == "whole model" else {"state_dict": {}, "hparams": torch.optim.SGD}, path)
    with pytest.raises(ValueError, match=r"a\.pt: it contains .*save the weights alone") as caught:
        weights.load(model, path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, -math.inf, 1e300])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, model: nn.Module, dtype: torch.dtype, value: float
) -> None:
    state = {name: tensor.to(dtype, copy=True) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    state["bn1.running_var"][3] = torch.tensor(value, dtype=torch.float64).to(dtype)  # 1e300 is infinite in float32
    with pytest.raises(ValueError, match=r"a\.pth contains NaN or infinite weights: model\.bn1\.running_var\."):
        loaded({"model": state}, tmp_path / "a.pth")


def test_what_is_not_used_may_be_nan(tmp_path: Path, model: nn.Module) -> None:
    state = trained("cifar_resnet8", num_classes=7).state_dict()
    state["fc.bias"].fill_(math.nan)
    torch.save({"model": state, "optimizer": {"exp_avg": torch.tensor(math.nan)}}, tmp_path / "a.pth")
    assert weights.initialize(model, tmp_path / "a.pth") == ["fc.weight", "fc.bias"]


def test_quantized_weights_are_not_taken_for_weights(tmp_path: Path, model: nn.Module) -> None:
    state = {**model.state_dict(), "conv1.weight": model.conv1.weight.to(torch.int8)}
    with pytest.raises(ValueError, match=r"conv1\.weight is torch\.int8 in the file and torch\.float32 in the network"):
        loaded(state, tmp_path / "a.pth")


# Other resolutions, channels and names. The reference is timm's own way of loading pretrained weights.

VIT = {"embed_dim": 24, "depth": 1, "num_heads": 2}
SWIN = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}


@pytest.mark.parametrize(
    ("architecture", "args", "own", "message"),
    [
        (
            "vit_tiny_patch16_224",
            {**VIT, "img_size": 96},
            {"img_size": 32},
            r"pos_embed resized from \[1, 37, 24\] to \[1, 5, 24\]",
        ),
        ("deit_tiny_distilled_patch16_224", {**VIT, "img_size": 32}, {"img_size": 64}, r"pos_embed resized from \[1, 6, 24\]"),
        ("swin_tiny_patch4_window7_224", {**SWIN, "img_size": 64}, {"window_size": 2}, "relative_position_bias_table resized"),
        ("resnet10t", {}, {"in_chans": 1}, r"conv1\.0\.weight adapted from 3 to 1 channels \(in_chans=1\)"),
        ("cifar_mobilenetv2", {}, {"in_chans": 5}, r"conv1\.0\.weight adapted from 3 to 5 channels \(in_chans=5\)"),
        ("vit_tiny_patch16_224", {**VIT, "img_size": 32}, {"in_chans": 1, "img_size": 48}, "pos_embed resized .*; patch_embed"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # of timm's reference
def test_a_network_is_adapted_as_timm_adapts_pretrained_weights(
    tmp_path: Path, told: pytest.LogCaptureFixture, architecture: str, args: dict, own: dict, message: str
) -> None:
    state = trained(architecture, **args).state_dict()
    torch.save({"model": state}, tmp_path / "a.pth")
    mine = timm.create_model(architecture, num_classes=10, **{**args, **own})
    weights.load(mine, tmp_path / "a.pth")
    source = {"state_dict": dict(state), "num_classes": 10}
    theirs = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=source, num_classes=10, **{**args, **own})
    assert same(mine, theirs)
    (record,) = [record for record in told.records if record.name == "kdx"]
    assert record.levelname == "WARNING" and re.search(message, record.message)


@pytest.mark.parametrize("more", [{}, {"no_embed_class": True, "reg_tokens": 2}])
def test_a_network_of_any_size_takes_the_grid_of_its_weights(tmp_path: Path, more: dict) -> None:
    theirs = trained("vit_tiny_patch16_224", **VIT, **more, img_size=48, dynamic_img_size=True)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    mine = Network("vit_tiny_patch16_224", 10, args={**VIT, **more, "dynamic_img_size": True}).eval()
    weights.load(mine.model, tmp_path / "a.pth")
    for side in (48, 32):  # no resampling, and one
        images = torch.rand(2, 3, side, side)
        torch.testing.assert_close(mine.model(images), theirs(images), rtol=0, atol=1e-6)
    again = timm.create_model("vit_tiny_patch16_224", **mine.card["model_args"])
    again.load_state_dict(mine.model.state_dict())
    with torch.device("meta"):
        start = timm.create_model("vit_tiny_patch16_224", num_classes=3, dynamic_img_size=True, **VIT, **more)
        weights.take_size(start, tmp_path / "a.pth")
    assert start.pos_embed.shape == theirs.pos_embed.shape and start.pos_embed.is_meta


def test_a_misfit_leaves_the_grid_alone(tmp_path: Path) -> None:
    torch.save(trained("vit_tiny_patch16_224", **{**VIT, "depth": 2}, img_size=32).state_dict(), tmp_path / "a.pth")
    mine = timm.create_model("vit_tiny_patch16_224", num_classes=10, dynamic_img_size=True, **VIT)
    before = mine.pos_embed.clone()
    with pytest.raises(ValueError, match="unknown to the network"):
        weights.load(mine, tmp_path / "a.pth")
    assert torch.equal(mine.pos_embed, before) and mine.patch_embed.grid_size == (14, 14)


def test_a_gray_network_for_color_images_sees_their_mean(tmp_path: Path) -> None:
    gray = trained("cifar_resnet8", in_chans=1)
    color = loaded(gray.state_dict(), tmp_path / "gray.pth", in_chans=3).eval()
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(color(images), gray(images.mean(1, keepdim=True)))


def test_a_width_is_not_taken_for_channels(tmp_path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict() | {"conv1.weight": torch.zeros(16, 3, 5, 5)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"conv1\.weight is \[16, 3, 5, 5\] in the file"):
        weights.load(timm.create_model("cifar_resnet8", num_classes=10, in_chans=1), tmp_path / "a.pth")


def test_torchvisions_names_are_converted_where_timm_does(tmp_path: Path) -> None:
    theirs = torchvision.models.regnet_y_400mf(num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    mine = timm.create_model("regnety_004", num_classes=10).eval()
    weights.load(mine, tmp_path / "a.pth")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(mine(images), theirs(images))


def test_names_of_other_code_are_shown_as_they_are_in_the_file(tmp_path: Path) -> None:
    torch.save({"model": torchvision.models.mobilenet_v3_small().state_dict()}, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"not in the file, such as conv_stem.*unknown .*, such as model\.features\.0\.0\.weight"
    ):
        weights.load(timm.create_model("mobilenetv3_small_100"), tmp_path / "a.pth")


# CRD's code (also mdistiller's and CTKD's): the same layers under its own names, written here anew.


def norm(width: int) -> nn.Module:
    return nn.BatchNorm2d(width)


def conv(a: int, b: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False)


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(b, c, h, w)


class UnitV1(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, 1 if a == 24 else 3
        self.conv1, self.bn1 = conv(a, b // 4, 1, groups=self.groups), norm(b // 4)
        self.conv2, self.bn2 = conv(b // 4, b // 4, 3, stride, b // 4), norm(b // 4)
        self.conv3, self.bn3 = conv(b // 4, b, 1, groups=3), norm(b)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffled(self.bn1(self.conv1(x)).relu(), self.groups)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        return (torch.cat([y, nn.functional.avg_pool2d(x, 3, 2, 1)], 1) if self.stride == 2 else y + x).relu()


class UnitV2(nn.Module):
    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half
        self.conv1, self.bn1 = conv(half, half, 1), norm(half)
        self.conv2, self.bn2 = conv(half, half, 3, groups=half), norm(half)
        self.conv3, self.bn3 = conv(half, half, 1), norm(half)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x[:, self.half :])).relu()))
        return shuffled(torch.cat([x[:, : self.half], self.bn3(self.conv3(y)).relu()], 1), 2)


class DownV2(nn.Module):
    def __init__(self, a: int, half: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(a, a, 3, 2, a), norm(a)
        self.conv2, self.bn2 = conv(a, half, 1), norm(half)
        self.conv3, self.bn3 = conv(a, half, 1), norm(half)
        self.conv4, self.bn4 = conv(half, half, 3, 2, half), norm(half)
        self.conv5, self.bn5 = conv(half, half, 1), norm(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x)))).relu()
        right = self.bn4(self.conv4(self.bn3(self.conv3(x)).relu()))
        return shuffled(torch.cat([left, self.bn5(self.conv5(right)).relu()], 1), 2)


class ShuffleNet(nn.Module):
    def __init__(self, version: int) -> None:
        super().__init__()
        self.conv1, self.bn1, width = conv(3, 24, 1), norm(24), 24
        for i, (out, count) in enumerate(zip((240, 480, 960) if version == 1 else (116, 232, 464), (4, 8, 4), strict=True)):
            first = UnitV1(width, out - width, 2) if version == 1 else DownV2(width, out // 2)
            rest = [UnitV1(out, out, 1) if version == 1 else UnitV2(out // 2) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            width = out
        if version == 2:
            self.conv2, self.bn2 = conv(464, 1024, 1), norm(1024)
        self.linear = nn.Linear(960 if version == 1 else 1024, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        x = self.bn2(self.conv2(x)).relu() if hasattr(self, "conv2") else x
        return self.linear(x.mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, a: int, b: int, stride: int, expansion: int) -> None:
        super().__init__()
        c = a * expansion
        layers = [conv(a, c, 1), norm(c), nn.ReLU(), conv(c, c, 3, stride, c), norm(c), nn.ReLU(), conv(c, b, 1), norm(b)]
        self.conv, self.add = nn.Sequential(*layers), stride == 1 and a == b

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.add else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, width = nn.Sequential(conv(3, 16, 3, 2), norm(16), nn.ReLU()), 16
        self.blocks = nn.ModuleList()
        for t, c, n, s in (
            (1, 8, 1, 1),
            (6, 12, 2, 1),
            (6, 16, 3, 2),
            (6, 32, 4, 2),
            (6, 48, 3, 1),
            (6, 80, 3, 2),
            (6, 160, 1, 1),
        ):
            self.blocks.append(nn.Sequential(*(Inverted(c if i else width, c, 1 if i else s, t) for i in range(n))))
            width = c
        self.conv2 = nn.Sequential(conv(160, 1280, 1), norm(1280), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(1280, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.conv2(nn.Sequential(*self.blocks)(self.conv1(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("architecture", "theirs"),
    [("mobilenetv2", MobileNet), ("shufflenetv1", lambda: ShuffleNet(1)), ("shufflenetv2", lambda: ShuffleNet(2))],
)
def test_crds_networks_are_loaded_by_their_names(
    tmp_path: Path, told: pytest.LogCaptureFixture, architecture: str, theirs: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    network, images = theirs(), torch.rand(4, 3, 32, 32)
    network(images)  # moves BatchNorm's statistics off their start
    torch.save({"model": network.eval().state_dict(), "accuracy": torch.tensor(70.0)}, tmp_path / "last.pth")
    mine = Network(f"cifar_{architecture}", 10).eval().model
    weights.load(mine, tmp_path / "last.pth")
    torch.testing.assert_close(mine(images), network(images), rtol=1e-4, atol=1e-5)
    assert "found under model; names converted" in told.text
    assert weights.head_classes(tmp_path / "last.pth") == 10
