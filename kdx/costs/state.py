"""Measurement of a network without changing its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(network: nn.Module, device: torch.device | None = None) -> Iterator[nn.Module]:
    """Put the network in eval mode (and on `device`, if given); restore all modes and the device afterwards."""
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
    """Return a noise image in [0,1] repeated to [batch,C,R,R], with the network's device and dtype.

    The global random state is not used.
    """
    device, dtype = _place(network)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    return image.to(device, dtype).expand(batch, *shape).contiguous()


def _place(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next(network.parameters(), None)
    return (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)
