"""A network normalizes for itself and never goes to the internet unasked."""

from __future__ import annotations

import json
import logging
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from kdx.networks import downloads, weights
from kdx.networks.network import Network

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def test_each_channel_is_normalized_before_the_model_sees_it() -> None:
    network = Network("cifar_resnet8", 10, mean=MEAN, std=STD).eval()
    images = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    torch.testing.assert_close(network(images), network.model(by_hand))


@pytest.mark.parametrize(
    ("in_channels", "mean", "expected"),
    [
        (1, MEAN, [0.4]),
        (3, (0.3,), [0.3] * 3),
        (3, MEAN, list(MEAN)),
        (1, (0.7,), [0.7]),
        (4, MEAN, [0.4] * 4),
        (4, (0.1, 0.2, 0.3, 0.4), [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_mean_and_std_are_brought_to_the_number_of_channels(
    in_channels: int, mean: tuple[float, ...], expected: list[float]
) -> None:
    network = Network("cifar_resnet8", 10, in_channels, mean=mean, std=mean)
    assert network.mean.flatten().tolist() == pytest.approx(expected)
    assert network.std.flatten().tolist() == pytest.approx(expected)
    assert network(torch.rand(2, in_channels, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("architecture", ["cifar_resnet8", "resnet18", "resnet18.a1_in1k"])
@pytest.mark.usefixtures("offline")
def test_without_pretrained_nothing_is_downloaded(architecture: str) -> None:
    assert Network(architecture, 10)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_pretrained_weights_bring_their_own_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    create = timm.create_model

    def without_download(name: str, pretrained: bool, **kwargs: Any) -> Any:
        asked.update(kwargs, pretrained=pretrained)
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    monkeypatch.setattr(downloads, "source", lambda architecture: {})
    network = Network("resnet18.a1_in1k", 10, pretrained=True)
    assert asked == {"pretrained": True, "num_classes": 10, "in_chans": 3}
    assert network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert network.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    stated = Network("resnet18.a1_in1k", 10, mean=(0.1,), pretrained=True)
    assert stated.colors == (pytest.approx((0.1, 0.1, 0.1)), pytest.approx((0.229, 0.224, 0.225)))


def test_arguments_reach_the_architecture() -> None:
    network = Network("cifar_resnet8", 10, args={"drop_rate": 0.5})
    assert network.model.drop_rate == 0.5
    images = torch.rand(2, 3, 8, 8)
    assert not torch.equal(network(images), network(images)), "dropout in train mode"


def test_arguments_go_before_what_a_variant_says() -> None:
    wide = Network("cifar_mobilenetv2", 10, args={"width": 1.0}).model
    assert [info["num_chs"] for info in wide.feature_info] == [24, 32, 96, 320]


def test_the_state_holds_the_plain_model_and_nothing_else() -> None:
    network = Network("cifar_resnet8", 10)
    assert list(network.state_dict()) == [f"model.{name}" for name in network.model.state_dict()]
    assert network.num_parameters == sum(p.numel() for p in network.model.parameters())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "resnet81"}, "Unknown architecture 'resnet81'"),
        ({"num_classes": 0}, "Network: num_classes"),
        ({"in_channels": 0}, "Network: in_channels"),
        ({"architecture": "resnet18.nope"}, "Unknown pretrained tag 'nope' of resnet18; available: a1_in1k"),
        (
            {"architecture": "resnet18.nope", "pretrained": True},
            "Unknown pretrained tag 'nope' of resnet18; available: a1_in1k",
        ),
        (
            {"architecture": "vit_base_patch16_clip_quickgelu_224.nope"},
            "available: metaclip_2pt5b, metaclip_400m, openai",
        ),
        ({"pretrained": True}, "No pretrained weights for cifar_resnet8: set pretrained=false, or init=FILE"),
        (
            {"architecture": "resnetv2_50d_frn", "pretrained": True},
            "No pretrained weights for resnetv2_50d_frn: set pretrained",
        ),
        (
            {"architecture": "resnet18", "pretrained": True, "init": "w.pth"},
            "init=w.pth and pretrained=true.*: set pretrained=false",
        ),
        ({"init": "nowhere.pth"}, "No weight file nowhere.pth: set"),
        ({"mean": (0.1, 0.2)}, "mean has 2 values but the images have 3 channels: set one value per"),
        ({"std": (0.1,) * 4}, "std has 4 values but the images have 3 channels: set one value per"),
        ({"mean": ()}, "mean has 0 values"),
        ({"in_channels": 1, "mean": (0.1,) * 2}, "mean has 2 values but the images have 1 channels"),
        ({"std": (0.1, 0.0, 0.1)}, r"Network: std\.1.*greater than 0"),
        ({"mean": (float("nan"),)}, r"Network: mean\.0.*finite"),
    ],
    ids=str,
)
def test_an_impossible_network_is_a_value_error(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(**{"architecture": "cifar_resnet8", "num_classes": 10, **wrong})


# A start from a file.


@pytest.fixture(scope="module")
def trained() -> Network:
    torch.manual_seed(1)
    network = Network("cifar_resnet8", 10)
    network(torch.rand(8, 3, 8, 8))  # moves BatchNorm's statistics off their start
    return network.eval()


def state_of(network: Network) -> dict[str, torch.Tensor]:
    return dict(network.model.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".ckpt"])
def test_it_starts_from_a_file_of_any_format(tmp_path: Path, trained: Network, suffix: str) -> None:
    path = tmp_path / f"start{suffix}"
    if suffix == ".safetensors":
        weights.save(trained.model, {}, path)
    elif suffix == ".ckpt":
        torch.save({"state_dict": {f"distiller.student.model.{n}": t for n, t in state_of(trained).items()}, "epoch": 3}, path)
    else:
        torch.save(state_of(trained), path)
    started = Network("cifar_resnet8", 10, init=str(path)).eval()
    assert weights.digest(started.model) == weights.digest(trained.model)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(started(images), trained(images))


def test_it_starts_from_scratch_unless_told(trained: Network) -> None:
    torch.manual_seed(1)
    one = Network("cifar_resnet8", 10)
    torch.manual_seed(1)
    assert weights.digest(Network("cifar_resnet8", 10, init=None).model) == weights.digest(one.model)
    assert weights.digest(one.model) != weights.digest(trained.model), "its statistics moved"


@pytest.mark.parametrize("case", ["other classes", "no last layer"])
def test_a_last_layer_that_does_not_fit_starts_fresh_and_is_said_to(
    tmp_path: Path, trained: Network, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    state, num_classes = state_of(trained), 100 if case == "other classes" else 10
    if case == "no last layer":
        del state["fc.weight"], state["fc.bias"]
    torch.save(state, tmp_path / "start.pth")
    torch.manual_seed(5)
    scratch = Network("cifar_resnet8", num_classes)
    torch.manual_seed(5)
    with caplog.at_level(logging.INFO, "kdx"):
        started = Network("cifar_resnet8", num_classes, init=str(tmp_path / "start.pth"))
    assert f"start.pth; new last layer (fc.weight and fc.bias) for {num_classes} classes" in caplog.text
    for name, tensor in state_of(started).items():
        own = scratch.model if name.startswith("fc") else trained.model
        assert torch.equal(tensor, own.state_dict()[name])


def test_a_last_layer_that_fits_is_not_said_to_be_fresh(
    tmp_path: Path, trained: Network, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(state_of(trained), tmp_path / "start.pth")
    with caplog.at_level(logging.INFO, "kdx"):
        Network("cifar_resnet8", 10, init=str(tmp_path / "start.pth"))
    assert "cifar_resnet8 initialized from" in caplog.text and "new last layer" not in caplog.text


NAMES = [f"class {k}" for k in range(10)]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("names", "outputs", "said"),
    [
        (NAMES, range(10), "; classes matched by name"),
        (NAMES[::-1], range(9, -1, -1), "; classes matched by name"),
        (None, range(10), ""),
        ([*NAMES[:9], "X"], None, "; new last layer (fc.weight and fc.bias) for 10 classes; its classes have other names"),
    ],
)
def test_the_classes_of_a_start_are_matched_by_name(
    tmp_path: Path,
    trained: Network,
    caplog: pytest.LogCaptureFixture,
    names: list[str] | None,
    outputs: range | None,
    said: str,
    inside: bool,
) -> None:
    path = tmp_path / "start"
    if inside:
        torch.save({"model": state_of(trained), "class_to_idx": {name: k for k, name in enumerate(NAMES)}}, path)
    else:
        path = tmp_path / "start.safetensors"
        weights.save(trained.model, {**trained.card, "label_names": NAMES}, path)
    with caplog.at_level(logging.INFO, "kdx"):
        started = Network("cifar_resnet8", 10, init=str(path), class_names=names).eval()
    assert caplog.messages[-1] == f"cifar_resnet8 initialized from {path}{said}"
    kept = started.model.fc.weight[:, None].eq(state_of(trained)["fc.weight"]).all(-1).nonzero()[:, 1].tolist()
    assert kept == list(outputs or [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "cifar_resnet14"}, r"\d+ weights are not in the file, such as layer1\.1"),
        ({"architecture": "cifar_resnet8x4"}, r"conv1\.weight is \[16, 3, 3, 3\] in the file and \[32, 3, 3, 3\] in"),
        ({"architecture": "cifar_wrn_16_1"}, "does not fit the network"),
    ],
    ids=str,
)
def test_any_other_misfit_is_refused(tmp_path: Path, trained: Network, changes: dict[str, Any], message: str) -> None:
    torch.save(state_of(trained), tmp_path / "start.pth")
    with pytest.raises(ValueError, match=f"{message}.*Set the architecture"):
        Network(**{"architecture": "cifar_resnet8", "num_classes": 10, "init": str(tmp_path / "start.pth"), **changes})


def test_a_start_runs_no_code_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "start.pth").write_bytes(pickle.dumps(Path))
    with pytest.raises(ValueError, match="would run code from the file"):
        Network("cifar_resnet8", 10, init=str(tmp_path / "start.pth"))


def test_the_start_is_no_part_of_the_card(tmp_path: Path, trained: Network) -> None:
    torch.save(state_of(trained), tmp_path / "start.pth")
    started = Network("cifar_resnet8", 10, init=str(tmp_path / "start.pth"))
    assert started.card == trained.card and "init" not in json.dumps(started.card)
