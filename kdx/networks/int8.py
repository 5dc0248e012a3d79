"""A network as it computes in an int8 file: weights and activations rounded to 256 levels, with gradients as if they were not.

The roundings are those of `onnx_int8` of kdx-export: weights symmetric with a scale per output channel, activations with one
scale per tensor, before convolutions, linear layers, sums, products, means and activation functions, and of the logits. Biases
are not rounded: in a file they have 32 bits. BatchNorm stays as it is: in a file it is folded into the convolution before it,
which multiplies an output channel, and its scale, by a number, so the rounded weights are the same.

Reference: Jacob et al., arXiv:1712.05877; straight-through gradients: Bengio et al., arXiv:1308.3432.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdx.networks.network import Network

LOW, HIGH = -128, 127  # of an activation; of a weight -127 to 127
LEAST = 1e-12  # scale
WEIGHTED: frozenset[Callable[..., Any]] = frozenset((F.conv2d, F.linear))
JOINED: frozenset[Callable[..., Any]] = frozenset(
    {
        *(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__),
        *(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__),
        *(F.hardsigmoid, F.gelu, torch.sigmoid, Tensor.sigmoid, F.sigmoid),
        *(torch.mean, Tensor.mean, F.avg_pool2d, F.adaptive_avg_pool2d),
    }
)
GATES: dict[Callable[..., Any], Callable[[Tensor], Tensor]] = {F.hardswish: F.hardsigmoid, F.silu: torch.sigmoid}


class Operands(TorchFunctionMode, ABC):
    """Replaces the operands of a network's layers while it is active. Activations are numbered in the order of computation."""

    number = 0

    def __enter__(self) -> Operands:
        self.number = 0
        super().__enter__()
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WEIGHTED:
            images, weight, *rest = args
            args = (self.next(images), self.weight(weight), *rest)
        elif func in JOINED:
            args = tuple(self.next(arg) if _is_activation(arg) else arg for arg in args)
        elif func in GATES:  # a file has two operators for these
            images = self.next(args[0])
            return images * self.next(GATES[func](images))
        return func(*args, **(kwargs or {}))

    def next(self, value: Tensor) -> Tensor:
        """Return what the next operand, an activation, is replaced by."""
        self.number += 1
        return self.activation(self.number - 1, value)

    @abstractmethod
    def activation(self, number: int, value: Tensor) -> Tensor:
        """Return what replaces activation `number` of this forward pass."""

    @abstractmethod
    def weight(self, value: Tensor) -> Tensor:
        """Return what replaces a weight [out, ...]."""


class Observing(Operands):
    """Changes nothing, and keeps the smallest and the largest value of each activation over all forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[Tensor] = []

    def activation(self, number: int, value: Tensor) -> Tensor:
        found = extremes(value)
        if number == len(self.ranges):
            self.ranges.append(found)
        before = self.ranges[number]
        self.ranges[number] = torch.stack([torch.minimum(before[0], found[0]), torch.maximum(before[1], found[1])])
        return value

    def weight(self, value: Tensor) -> Tensor:
        return value


class Rounding(Operands):
    """Rounds to int8: activations within given ranges [2], by number, or, without these, within those of the batch."""

    def __init__(self, ranges: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.ranges = ranges

    def activation(self, number: int, value: Tensor) -> Tensor:
        return rounded(value, extremes(value) if self.ranges is None else self.ranges[number])

    def weight(self, value: Tensor) -> Tensor:
        return rounded_weight(value)


def extremes(value: Tensor) -> Tensor:
    """Return the smallest and the largest value [2] of a tensor and zero, which int8 has to contain."""
    low, high = value.detach().float().aminmax()
    return torch.stack([low.clamp_max(0), high.clamp_min(0)])


def rounded(value: Tensor, within: Tensor) -> Tensor:
    """Return `value` rounded to 256 levels `within` a range [2]. What lies outside is clipped, and has no gradient."""
    scale = ((within[1] - within[0]) / (HIGH - LOW)).clamp_min(LEAST)
    zero = (LOW - within[0] / scale).round().clamp(LOW, HIGH).int()
    return torch.fake_quantize_per_tensor_affine(value.float(), scale, zero, LOW, HIGH).to(value.dtype)


def rounded_weight(weight: Tensor) -> Tensor:
    """Return a weight [out, ...] rounded to 255 levels, symmetric, up to the largest absolute value of each output channel."""
    largest = weight.detach().float().flatten(1).abs().amax(1)
    scale = (largest / HIGH).clamp_min(LEAST)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), scale, zeros, 0, -HIGH, HIGH).to(weight.dtype)


def put(network: Network, operands: Operands | None) -> None:
    """Let a network compute with these operands from now on; None: with its own. Weights and their names stay as they are."""
    network.__dict__.pop("forward", None)
    if operands is None:
        return
    plain = network.forward

    def forward(images: Tensor) -> Tensor:
        with operands:
            return operands.next(plain(images))

    network.__dict__["forward"] = forward


@torch.no_grad()
def measured_ranges(network: Network, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return the range [2] of each activation of a network, in its mode, on images [B,C,R,R]: as kdx-export takes them."""
    observing = Observing()
    put(network, observing)
    try:
        for images in batches:
            network(images)
    finally:
        put(network, None)
    return observing.ranges


def _is_activation(value: Any) -> bool:
    """Whether an operand is [B,F] or [B,C,H,W], and no parameter or number."""
    return isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point() and not isinstance(value, nn.Parameter)
