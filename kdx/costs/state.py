"""A network that is measured must not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(network: nn.Module, device: torch.device | None = None) -> Iterator[nn.Module]:
    """The network in eval mode (on `device`, if one is given); afterwards every module is in its own mode and place again."""
    modes = {module: module.training for module in network.modules()}
    home = _place(network)[0]
    network.eval()
    try:
        if device is not None:
            network.to(device)
        yield network
    finally:
        network.to(home)
        for module, training in modes.items():
            module.training = training


def example(network: nn.Module, batch: int, shape: tuple[int, int, int]) -> Tensor:
    """One noise image in [0,1], [batch,C,R,R] times, where and as the network is; no global generator is asked."""
    device, dtype = _place(network)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    return image.to(device, dtype).expand(batch, *shape).contiguous()


def _place(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next(network.parameters(), None)
    return (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)
