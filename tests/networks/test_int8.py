"""Rounding to int8 in training: its arithmetic is that of onnxruntime's quantization, and it leaves no trace in a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnxruntime.quantization.quant_utils import compute_scale_zp

from kdx.networks.int8 import Rounding, extremes, measured_ranges, put, rounded, rounded_weight
from kdx.networks.network import Network


def by_onnxruntime(value: np.ndarray, *, symmetric: bool) -> np.ndarray:
    """A tensor rounded with the scale and zero point of onnxruntime."""
    lowest = -127 if symmetric else -128
    limits = (np.array(number, np.int8) for number in (lowest, 127))
    zero, scale = compute_scale_zp(value.min(), value.max(), *limits, symmetric=symmetric)
    levels = np.clip(np.round(value / scale) + float(zero), lowest, 127)
    return (levels - float(zero)) * scale


@pytest.mark.parametrize("shift", [-9.0, -0.3, 0.0, 0.4, 9.0])
def test_activations_are_rounded_as_by_onnxruntime(shift: float) -> None:
    value = torch.randn(7, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + shift
    np.testing.assert_allclose(
        rounded(value, extremes(value)), by_onnxruntime(value.numpy(), symmetric=False), rtol=1e-5, atol=1e-6
    )
    assert len(rounded(value, extremes(value)).unique()) <= 256


def test_weights_are_rounded_as_by_onnxruntime_per_channel_with_and_without_batchnorm_folded_into_them() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[2] = 0  # a dead channel
    expected = np.stack([by_onnxruntime(channel, symmetric=True) for channel in weight.numpy()])
    np.testing.assert_allclose(rounded_weight(weight), expected, rtol=1e-5, atol=1e-6)
    scale = torch.tensor([0.5, -3.0, 2.0, 1e-3, -1.0, 7.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(rounded_weight(weight * scale), rounded_weight(weight) * scale)


def test_the_gradient_passes_where_nothing_is_clipped() -> None:
    value = torch.tensor([[-2.0, -0.5, 0.1, 0.9, 3.0]], requires_grad=True)
    rounded(value, torch.tensor([-1.0, 1.0])).sum().backward()
    assert value.grad is not None and value.grad.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0]]
    weight = torch.randn(3, 2, requires_grad=True)
    rounded_weight(weight).sum().backward()
    assert weight.grad is not None and weight.grad.eq(1).all()


def test_half_precision_and_extreme_values_stay_finite() -> None:
    for value in (torch.tensor([[1e4, -1e4]]), torch.zeros(1, 2), torch.tensor([[1e4, -3.0]], dtype=torch.bfloat16)):
        out = rounded(value, extremes(value))
        assert out.dtype == value.dtype and out.isfinite().all()


def test_a_gated_activation_is_two_operators_as_in_a_file() -> None:
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for module, gate in ((torch.nn.Hardswish(inplace=True), torch.nn.functional.hardsigmoid), (torch.nn.SiLU(), torch.sigmoid)):
        inside = rounded(images, extremes(images))
        share = gate(inside)
        with Rounding():
            found = module(images.clone())
        torch.testing.assert_close(found, inside * rounded(share, extremes(share)), rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ["cifar_resnet8", "mobilenetv3_small_050", "resnet10t"])
def test_a_network_is_plain_again_and_keeps_its_names(architecture: str) -> None:
    torch.manual_seed(0)
    network = Network(architecture, 5, 3).eval()
    images, names = torch.rand(3, 3, 32, 32), list(network.state_dict())
    with torch.no_grad():
        before = network(images)
        ranges = measured_ranges(network, [images[:1], images[1:]])
        put(network, Rounding(ranges))
        first, second = network(images), network(images)
        assert list(network.state_dict()) == names
        assert torch.equal(first, second) and 0 < (first - before).norm() < 0.2 * before.norm()
        put(network, Rounding())  # ranges of these images too, but of what is computed from rounded ones
        assert (network(images) - before).norm() < 0.2 * before.norm()
        put(network, None)
        assert torch.equal(network(images), before)


def test_the_gradient_of_a_rounded_network_reaches_every_parameter() -> None:
    network = Network("cifar_resnet8", 5, 1).train()
    put(network, Rounding())
    network(torch.rand(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
