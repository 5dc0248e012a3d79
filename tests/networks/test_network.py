"""A network normalises for itself and never goes to the internet unasked."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import timm
import torch

from kdx.networks.network import Network

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def test_each_channel_is_normalised_before_the_model_sees_it() -> None:
    network = Network("cifar_resnet8", 10, mean=MEAN, std=STD).eval()
    images = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    torch.testing.assert_close(network(images), network.model(by_hand))


@pytest.mark.parametrize(
    ("in_channels", "mean", "expected"),
    [(1, MEAN, [0.4]), (3, (0.3,), [0.3] * 3), (3, MEAN, list(MEAN)), (1, (0.7,), [0.7])],
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


def test_pretrained_weights_bring_their_own_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    create = timm.create_model

    def without_download(name: str, pretrained: bool, **kwargs: Any) -> Any:
        asked.update(kwargs, pretrained=pretrained)
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    network = Network("resnet18.a1_in1k", 10, mean=(0.1,), std=(0.1,), pretrained=True)
    assert asked == {"pretrained": True, "num_classes": 10, "in_chans": 3}
    assert network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert network.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_arguments_reach_the_architecture() -> None:
    network = Network("cifar_resnet8", 10, args={"drop_rate": 0.5})
    assert network.model.drop_rate == 0.5
    images = torch.rand(2, 3, 8, 8)
    assert not torch.equal(network(images), network(images)), "dropout in train mode"


def test_the_state_holds_the_plain_model_and_nothing_else() -> None:
    network = Network("cifar_resnet8", 10)
    assert list(network.state_dict()) == [f"model.{name}" for name in network.model.state_dict()]
    assert network.num_parameters == sum(p.numel() for p in network.model.parameters())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "resnet81"}, "no architecture 'resnet81'"),
        ({"num_classes": 0}, "Network: num_classes"),
        ({"in_channels": 0}, "Network: in_channels"),
    ],
    ids=str,
)
def test_an_impossible_network_is_a_value_error(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(**{"architecture": "cifar_resnet8", "num_classes": 10, **wrong})
