"""How large a network is, and how much it computes for one image."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdx.costs.state import example, undisturbed

NOT_COUNTED = "norms, activations, pooling, resizing and other element-wise work"


def parameters(network: nn.Module) -> int:
    """How many parameters there are, trained or frozen; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward in eval mode for one image [C,R,R]; the network stays as it was.

    Half of the operations that `torch.utils.flop_counter` finds in convolutions, matrix products and attention. Not counted:
    norms, activations, pooling, resizing and other element-wise work. So torchvision's ResNet-18 at 224 px has 1.814e9.
    """
    # Not inference_mode: under it composite operators reach the counter whole, and it knows only their parts.
    with undisturbed(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(example(network, 1, shape))
    return counter.get_total_flops() // 2
