"""The same function with less work: a layout that convolutions prefer, and BatchNorm as a part of the convolution before it."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from kdx.networks.network import UNSUITABLE, Network

log = logging.getLogger("kdx")

TOLERANCE = 1e-5  # of the logits of the folded network, relative to the largest logit


def laid_out(network: Network, side: int) -> Network:
    """Return the network with its convolutions in the layout [B,H,W,C], if it has some and runs so on images of `side` px."""
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return network
    training = network.training
    network.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            network.eval()(network.mean.new_zeros(2, network.in_channels, side, side))
    except UNSUITABLE:  # such as .view() on features
        network.to(memory_format=torch.contiguous_format)
    return network.train(training)


@torch.no_grad()
def folded(network: Network, side: int) -> Network:
    """Return a copy of a network in eval mode whose BatchNorms are folded into their convolutions, equal to float noise.

    Which convolution a BatchNorm follows is seen in a run on images of `side` px. The result is compared with the network on
    noise; if its logits differ, because a convolution's output is also used elsewhere, the network itself is returned, as it
    is if there is nothing to fold.
    """
    device = network.mean.device
    with torch.autocast(device.type, enabled=False):  # in which rounding would hide a difference, or seem to be one
        return _folded(network, side)


def _folded(network: Network, side: int) -> Network:
    noise = torch.rand(2, network.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    noise = noise.to(network.mean.device)
    try:
        expected, pairs = _pairs(network, noise)
    except UNSUITABLE:
        return network  # images of another size than the network takes; the run will say so
    if not pairs:
        return network
    names = {module: name for name, module in network.named_modules()}
    faster = copy.deepcopy(network)
    for convolution, norm in ((names[one], names[other]) for one, other in pairs):
        _fold(faster, convolution, norm)
    found = faster(noise)
    if (found - expected).abs().max() > TOLERANCE * expected.abs().max():
        log.debug("%s: BatchNorm is not folded, as logits would differ", network.architecture)
        return network
    return faster.requires_grad_(False).eval()


def _fold(network: Network, convolution: str, norm: str) -> None:
    """Replace a BatchNorm by what it does after normalization: timm's has an activation."""
    conv: Any = network.get_submodule(convolution)
    bn: Any = network.get_submodule(norm)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        *(conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    )
    activated = isinstance(bn, BatchNormAct2d)
    network.set_submodule(norm, nn.Sequential(bn.drop, bn.act) if activated else nn.Identity())


def _pairs(network: Network, images: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, Any]]]:
    """Return the logits, and each BatchNorm with the convolution whose output it takes; both run once a forward pass."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is held, so that no other gets its id
    runs: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Conv2d, Any]] = []

    def after_convolution(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        runs[module] = runs.get(module, 0) + 1
        outputs[id(output)] = module, output

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[module] = runs.get(module, 0) + 1
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], module))

    handles = []
    for module in network.modules():
        if type(module) is nn.Conv2d:  # not those that compute their weight anew, such as BiT's
            handles.append(module.register_forward_hook(after_convolution))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        logits = network(images)
    finally:
        for handle in handles:
            handle.remove()
    return logits, [pair for pair in pairs if all(runs[module] == 1 for module in pair)]
