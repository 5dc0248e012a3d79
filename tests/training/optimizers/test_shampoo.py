"""Shampoo equals its formula, block by block."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kdx.training.optimizers.shampoo import Blocks, Shampoo

Array = NDArray[np.float64]


def inverse_root(matrix: Array, order: int) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    result: Array = (vectors * (values + 1e-6 * values.max()) ** (-1 / order)) @ vectors.T
    return result


class Reference:
    """Shampoo of one tensor of any rank in NumPy, whose blocks are slices of it."""

    def __init__(self, theta: Array, slices: list[tuple[slice, ...]], graft: str, start_step: int, every: int) -> None:
        self.theta, self.slices, self.graft, self.start_step, self.every = theta, slices, graft, start_step, every
        self.statistics = [[np.zeros((side, side)) for side in theta[part].shape] for part in slices]
        self.roots: list[list[Array]] = []
        self.squares, self.momentum, self.steps = np.zeros_like(theta), np.zeros_like(theta), 0

    def grafted(self, g: Array) -> Array:
        if self.graft == "sgd":
            return g
        self.squares = self.squares + g**2 if self.graft == "adagrad" else 0.99 * self.squares + 0.01 * g**2
        corrected = self.squares if self.graft == "adagrad" else self.squares / (1 - 0.99**self.steps)
        result: Array = g / (np.sqrt(corrected) + (1e-8 if self.graft == "rmsprop" else 1e-10))
        return result

    def step(self, g: Array) -> None:
        self.steps += 1
        direction = np.zeros_like(g)
        for part, own in zip(self.slices, self.statistics, strict=True):
            for axis in range(g.ndim):
                other = [a for a in range(g.ndim) if a != axis]
                own[axis] = 0.99 * own[axis] + 0.01 * np.tensordot(g[part], g[part], (other, other))
        if self.steps >= self.start_step and (self.steps - self.start_step) % self.every == 0:
            self.roots = [[inverse_root(matrix, 2 * g.ndim) for matrix in own] for own in self.statistics]
        for part, roots in zip(self.slices, self.roots, strict=False):
            block = g[part]
            for axis, matrix in enumerate(roots):
                block = np.moveaxis(np.tensordot(matrix, block, (1, axis)), 0, axis)
            direction[part] = block
        move = self.grafted(g)
        if self.steps >= self.start_step:
            move = direction * np.linalg.norm(move) / np.linalg.norm(direction)
        move = move + 0.01 * self.theta
        self.momentum = 0.9 * self.momentum + move
        self.theta = self.theta - 0.1 * (move + 0.9 * self.momentum)


def slices(shape: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[slice, ...]]:
    cuts = [[slice(i, i + size) for i in range(0, side, size)] for side, size in zip(shape, sizes, strict=True)]
    return list(itertools.product(*cuts))


@pytest.mark.parametrize("graft", ["sgd", "adagrad", "rmsprop"])
@pytest.mark.parametrize(
    ("shape", "sides", "sizes"),
    [
        ((12,), (12,), (6,)),  # two blocks of a vector
        ((6, 5), (6, 5), (6, 5)),  # one block of a matrix
        ((13, 5), (13, 5), (7, 5)),  # the second has a row less
        ((17, 20), (17, 20), (6, 7)),  # 3 x 3 blocks
        ((9, 2, 2, 2), (9, 8), (5, 8)),  # a kernel's small sides are one
        ((5, 4, 3, 2), (5, 4, 6), (5, 4, 6)),
    ],
)
def test_it_is_its_formula(shape: tuple[int, ...], sides: tuple[int, ...], sizes: tuple[int, ...], graft: Any) -> None:
    rng = np.random.default_rng(0)
    theta, spread = rng.normal(size=shape), rng.uniform(0.1, 3, size=shape)
    parameter = nn.Parameter(torch.tensor(theta))
    settings: dict[str, Any] = {"graft": graft, "start_step": 4, "every": 3}
    built = Shampoo([parameter], lr=0.1, weight_decay=0.01, betas=(0.9, 0.99), block_size=8, **settings)
    reference = Reference(theta.reshape(sides), slices(sides, sizes), **settings)
    for _ in range(15):
        gradient = spread * rng.normal(size=shape)
        parameter.grad = torch.tensor(gradient)
        built.step()
        reference.step(gradient.reshape(sides))
        expected = reference.theta.reshape(shape)
        assert np.abs(parameter.detach().numpy() - expected).max() < 1e-9 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    "shape", [(), (1,), (1, 1), (7,), (300,), (10, 64), (64, 32, 3, 3), (256, 1, 3, 3), (2048, 10), (129, 2), (1, 5, 130)]
)
def test_blocks_are_small_and_join_to_what_was_split(shape: tuple[int, ...]) -> None:
    blocks, tensor = Blocks(shape, 128), torch.randn(shape)
    split = blocks.split(tensor)
    assert max(split.shape[1:]) <= 128 and split.shape[1:] == tuple(blocks.sizes)
    assert torch.equal(blocks.join(split), tensor)
    assert split.numel() < 1.1 * tensor.numel() + 128  # few zeros


def test_a_side_longer_than_a_block_does_not_change_the_order_of_the_root() -> None:
    assert [Blocks(shape, 128).rank for shape in ((100, 100), (200, 100), (100, 200), (200, 200), (256, 128, 3, 3))] == [
        2,
        2,
        2,
        2,
        3,
    ]


def test_badly_scaled_directions_are_evened_out() -> None:
    """A quadratic whose curvatures differ by 1e4 in a rotated basis: SGD at its largest stable lr is still far away."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    curvature = torch.tensor(basis * np.geomspace(1e-4, 1, 8) @ basis.T)
    ends = {}
    for name, make in {
        "shampoo": lambda p: Shampoo([p], lr=0.3, weight_decay=0.0, betas=(0.0, 0.999), start_step=1, graft="rmsprop"),
        "sgd": lambda p: torch.optim.SGD([p], lr=1.0),
    }.items():
        weight = nn.Parameter(torch.tensor(rng.normal(size=(8, 8))))
        optimizer = make(weight)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 300)
        for _ in range(300):
            optimizer.zero_grad()
            ((curvature @ weight) * weight).sum().backward()
            optimizer.step()
            schedule.step()
        ends[name] = weight.norm().item()
    assert ends["shampoo"] < 0.2 * ends["sgd"]


@pytest.mark.parametrize("value", [0.0, 1e-20, 1e12, float("nan"), float("inf")])
def test_a_gradient_of_any_size_is_no_crash(value: float) -> None:
    parameter = nn.Parameter(torch.ones(4, 3))
    built = Shampoo([parameter], start_step=1)
    for _ in range(2):
        parameter.grad = torch.full((4, 3), value)
        built.step()
    assert parameter.isfinite().all() == np.isfinite(value)


@pytest.mark.parametrize(
    "wrong", [{"lr": 0}, {"betas": (0.9, 1.1)}, {"block_size": 0}, {"every": 0}, {"graft": "adam"}], ids=str
)
def test_a_setting_out_of_range_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Shampoo: {next(iter(wrong))}"):
        Shampoo([nn.Parameter(torch.ones(1))], **wrong)
