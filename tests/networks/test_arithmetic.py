"""Networks with less arithmetic: equal to the plain ones, and left alone where they would not be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdx.networks.arithmetic import folded, laid_out
from kdx.networks.network import Network


def trained(architecture: str) -> Network:
    """A frozen network whose statistics and affine weights are not those of its start."""
    torch.manual_seed(0)
    network = Network(architecture, 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5)):
                assert tensor is not None
                tensor.uniform_(low, high)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.requires_grad_(False).eval()


def norms(network: nn.Module) -> int:
    """The number of BatchNorms."""
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "side", "left"),
    [
        ("cifar_resnet20", 32, 0),
        ("cifar_wrn_16_2", 32, 6),  # which take a sum, not the output of a convolution
        ("cifar_vgg8_bn", 32, 0),
        ("cifar_mobilenetv2", 32, 0),
        ("cifar_shufflenetv1", 32, 0),
        ("resnet18", 64, 0),
        ("mobilenetv3_small_050", 64, 0),  # norm and activation in one module
        ("efficientnet_b0", 64, 0),
        ("vit_tiny_patch16_224", 224, 0),  # has none
    ],
)
def test_a_folded_network_gives_the_same_logits(architecture: str, side: int, left: int) -> None:
    network = trained(architecture)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    faster = folded(network, side)
    images = torch.rand(4, 3, side, side)
    expected = network(images)
    torch.testing.assert_close(faster(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert norms(faster) == left
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())  # it is a copy


class TwoReaders(nn.Module):
    """A convolution whose output is read by its BatchNorm and, past it, by a sum."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_chans, 8, 3), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        logits: Tensor = self.fc((y + self.norm(y).relu()).mean((2, 3)))
        return logits


class Twice(TwoReaders):
    """One convolution that runs twice, with a norm after the second time."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).mean((2, 3)) + self.norm(self.conv(x)).relu().mean((2, 3)))
        return logits


class Flat(TwoReaders):
    """A network that reads its features as if they were laid out [B,C,H,W]."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        logits: Tensor = self.fc(y.view(len(y), -1).reshape(len(y), 8, -1).mean(2))
        return logits


@pytest.mark.parametrize("kind", [TwoReaders, Twice])
def test_what_cannot_be_folded_is_left_alone(kind: type[TwoReaders]) -> None:
    network = trained("cifar_resnet8")
    model = kind(10, 3).eval()
    assert model.norm.running_mean is not None
    model.norm.running_mean.uniform_(0.5, 1.0)
    network.model = model
    assert folded(network, 8) is network


def test_a_network_that_trains_is_not_changed_by_its_layout() -> None:
    network = Network("cifar_resnet8", 10).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert laid_out(network, 8) is network and network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    weight = network.get_parameter("model.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_a_network_that_needs_its_layout_keeps_it() -> None:
    network = Network("cifar_resnet8", 10)
    network.model = Flat(10, 3)
    laid_out(network, 8)
    assert network.model.conv.weight.is_contiguous()
    network(torch.rand(2, 3, 8, 8)).sum().backward()


def test_a_network_without_convolutions_is_left_alone() -> None:
    network = Network("mixer_s32_224", 10)
    network.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    assert laid_out(network, 8) is network
