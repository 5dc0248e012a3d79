"""Number of parameters and multiply-accumulates (MACs) of a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdx.costs.state import example, undisturbed

NOT_COUNTED = "norms, activations, pooling, resizing and other element-wise work"


def parameters(network: nn.Module) -> int:
    """Return the number of parameters, trained or frozen; shared parameters count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the MACs of one forward in eval mode for one image [C,R,R]; the network's state is not changed.

    Half of the operations that `torch.utils.flop_counter` counts in convolutions, matrix products and attention. Not counted:
    norms, activations, pooling, resizing and other element-wise work. Example: torchvision's ResNet-18 has 1.814e9 at 224 px.
    """
    # no_grad instead of inference_mode: in inference_mode, composite operators are not decomposed and not counted.
    with undisturbed(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(example(network, 1, shape))
    return counter.get_total_flops() // 2
