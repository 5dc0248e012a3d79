"""Shampoo: gradients preconditioned by one matrix per tensor dimension, with the step size of a grafted method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer

from kdx.ranges import Count, Fraction, NonNegative, Positive, validated

TINY = 1e-30  # avoids a division by zero for zero gradients


class Blocks:
    """Partition of a tensor of `shape` into equal blocks with sides of at most `limit`, after merging small neighboring sides.

    With a limit of 128, a kernel [64,32,3,3] has the sides 64, 96, 3, and a bias [300] has three blocks of 100.
    """

    def __init__(self, shape: Sequence[int], limit: int) -> None:
        self.shape, self.sides = shape, [1]
        for side in shape:
            if self.sides[-1] * side <= limit:
                self.sides[-1] *= side
            elif self.sides[-1] == 1:
                self.sides[-1] = side
            else:
                self.sides.append(side)
        self.counts = [math.ceil(side / limit) for side in self.sides]
        self.sizes = [math.ceil(side / count) for side, count in zip(self.sides, self.counts, strict=True)]

    @property
    def rank(self) -> int:
        """The number of sides of a block."""
        return len(self.sides)

    def split(self, tensor: Tensor) -> Tensor:
        """Return the blocks [N, *sizes], padded with zeros, which do not affect the result."""
        whole = zip(self.sides, self.counts, self.sizes, strict=True)
        margins = [margin for side, count, size in reversed(list(whole)) for margin in (0, count * size - side)]
        grid = [number for pair in zip(self.counts, self.sizes, strict=True) for number in pair]
        order = [*range(0, 2 * self.rank, 2), *range(1, 2 * self.rank, 2)]
        return pad(tensor.reshape(self.sides), margins).reshape(grid).permute(order).reshape(-1, *self.sizes)

    def join(self, blocks: Tensor) -> Tensor:
        """Return the tensor of these blocks, the inverse of `split`."""
        order = [number for i in range(self.rank) for number in (i, self.rank + i)]
        padded = [count * size for count, size in zip(self.counts, self.sizes, strict=True)]
        whole = blocks.reshape(*self.counts, *self.sizes).permute(order).reshape(padded)
        return whole[tuple(slice(side) for side in self.sides)].reshape(self.shape)


@validated
class Shampoo(Optimizer):
    """Shampoo in blocks of at most `block_size` squared, grafted, with Nesterov momentum (arXiv:1802.09568, arXiv:2002.09018).

    For a block G with k sides, S_i ← β2 S_i + (1 - β2) G_i G_iᵀ for every side i. The direction is G times all
    (S_i + eps · λmax)^(-1/2k), where λmax is the largest eigenvalue. The step has this direction and the norm of the `graft`
    method's step, so lr has the scale of that method; before `start_step`, the step is that of the graft. Roots are computed
    once per `every` steps. Weight decay · θ is added before the momentum, and multiplied by lr.
    """

    def __init__(
        self,
        params: Any,
        lr: Positive = 0.05,
        weight_decay: NonNegative = 5e-4,
        betas: Sequence[Fraction] = (0.9, 0.999),
        block_size: Count = 128,
        start_step: Count = 25,
        every: Count = 1,
        graft: Literal["sgd", "adagrad", "rmsprop"] = "sgd",
        eps: Positive = 1e-6,
    ) -> None:
        self.block_size, self.start_step, self.every, self.graft, self.eps = block_size, start_step, every, graft, eps
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, betas=tuple(betas), step=0))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the parameters. Return the loss of the closure; None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] += 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        momentum, decay = group["betas"]
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        blocks = Blocks(parameter.shape, self.block_size)
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            if self.graft != "sgd":
                state["squares"] = torch.zeros_like(parameter)
            count = math.prod(blocks.counts)
            precise = torch.promote_types(parameter.dtype, torch.float32)
            state["statistics"] = [parameter.new_zeros(count, size, size, dtype=precise) for size in blocks.sizes]
            state["roots"] = [torch.zeros_like(statistic) for statistic in state["statistics"]]
        pieces = blocks.split(gradient.to(state["statistics"][0].dtype))
        for i, statistic in enumerate(state["statistics"]):
            sides = pieces.movedim(i + 1, 1).flatten(2) if blocks.rank > 1 else pieces.unsqueeze(-1)
            statistic.mul_(decay).baddbmm_(sides, sides.mT, alpha=1 - decay)
        size = self._grafted(gradient, state, decay, group["step"])
        move = size
        if group["step"] >= self.start_step:
            if (group["step"] - self.start_step) % self.every == 0:
                state["roots"] = [self._root(statistic, 2 * blocks.rank) for statistic in state["statistics"]]
            direction = blocks.join(_times(pieces, state["roots"])).to(gradient.dtype)
            move = direction * (size.norm() / (direction.norm() + TINY))
        move = move.add(parameter, alpha=group["weight_decay"])
        state["momentum"].mul_(momentum).add_(move)
        parameter.sub_(group["lr"] * (move + momentum * state["momentum"]))

    def _grafted(self, gradient: Tensor, state: dict[str, Any], decay: float, step: int) -> Tensor:
        """Return the step of the grafted method."""
        if self.graft == "sgd":
            return gradient
        squares: Tensor = state["squares"]
        if self.graft == "adagrad":
            return gradient / (squares.addcmul_(gradient, gradient).sqrt() + 1e-10)
        squares.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        return gradient / ((squares / (1 - decay**step)).sqrt() + 1e-8)

    def _root(self, statistic: Tensor, order: int) -> Tensor:
        """Return the inverse root of the given order of each matrix [N,b,b]."""
        values, vectors = torch.linalg.eigh(torch.nan_to_num(statistic, 0.0, 0.0, 0.0))  # telemetry reports NaN
        floor = self.eps * values[:, -1:].clamp_min(TINY)
        return vectors * (values.clamp_min(0) + floor).pow(-1 / order).unsqueeze(1) @ vectors.mT


def _times(blocks: Tensor, roots: list[Tensor]) -> Tensor:
    """Return the blocks [N, *sizes], multiplied along each side by its matrix [N,b,b]."""
    for i, matrix in enumerate(roots):
        turned = blocks.movedim(i + 1, 1)
        blocks = (matrix @ turned.reshape(*turned.shape[:2], -1)).reshape(turned.shape).movedim(1, i + 1)
    return blocks
