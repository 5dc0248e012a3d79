"""Each optimizer takes a real step on real groups; those that are ours equal their formulas."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError
from kdx.distiller import Distiller
from kdx.experiment import build
from kdx.networks.network import Network
from kdx.temperatures.curriculum import Curriculum
from kdx.training.optimizers.functions import big_vision_adam
from kdx.training.optimizers.groups import Decay, fused_where_possible, optimizer_and_schedule, parameter_groups
from kdx.training.optimizers.schedules import CosineLr
from kdx.training.optimizers.shampoo import Shampoo

OPTIONS = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
EXTRAS = {"kron": ["pytorch_optimizer", "opt_einsum"]}

Vector = NDArray[np.float64]


@pytest.fixture(params=OPTIONS)
def option(request: pytest.FixtureRequest) -> str:
    for package in EXTRAS.get(request.param, []):
        pytest.importorskip(package)
    return str(request.param)


Make = Callable[..., Callable[..., Optimizer]]


@pytest.fixture
def make(config: Callable[..., DictConfig]) -> Make:
    """What `optimizer=NAME` and overrides build: groups -> optimizer."""
    return lambda name, *more: build.make(config("experiment=none", f"optimizer={name}", *more).optimizer, "optimizer")


def seed(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)


class Case:
    """A student and a temperature that learn one batch by heart."""

    def __init__(self, make: Callable[..., Optimizer], decay: Decay = "kernels", weight_decay: float = 0.01) -> None:
        seed(0)
        self.temperature = Curriculum(weight_decay=weight_decay)
        self.distiller = Distiller(Network("cifar_resnet8", 10), None, self.temperature)
        self.images, self.label = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
        groups = parameter_groups(self.distiller, self.temperature, decay)
        made = optimizer_and_schedule(groups, make, CosineLr(warmup_steps=2), 100, 10)
        self.optimizer, self.schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]

    def step(self, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.distiller.student(self.images), self.label) + self.temperature.raw**2
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.distiller.named_parameters()}


@pytest.mark.parametrize("decay", ["kernels", "all"])
def test_every_option_moves_every_parameter_and_lowers_the_loss(make: Make, option: str, decay: Decay) -> None:
    case = Case(make(option), decay)
    before = case.weights()
    losses = case.step(30)
    assert all(p.isfinite().all() and not torch.equal(p, before[name]) for name, p in case.weights().items())
    assert losses[-1] < 0.8 * losses[0]


def test_the_first_step_of_a_warmup_moves_nothing(make: Make, option: str) -> None:
    case = Case(make(option))
    before = case.weights()
    case.step(1)
    assert all(torch.equal(p, before[name]) for name, p in case.weights().items())


def test_an_option_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(make: Make, option: str) -> None:
    whole, part = Case(make(option)), Case(make(option))
    for case in (whole, part):
        seed(1)
        case.step(30)
    rest = Case(make(option))
    file = io.BytesIO()
    torch.save([part.distiller.state_dict(), part.optimizer.state_dict(), part.schedule.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)  # as runs load it
    for target, state in zip((rest.distiller, rest.optimizer, rest.schedule), states, strict=True):
        target.load_state_dict(state)
    for case in (whole, rest):
        seed(2)  # in a run it is the RandomState callback that sees to this
        case.step(10)
    assert all(torch.equal(p, whole.weights()[name]) for name, p in rest.weights().items())


def test_weight_decay_reaches_kernels_and_the_temperature_alone(make: Make, option: str) -> None:
    case = Case(make(option, "optimizer.weight_decay=0.1"), weight_decay=0.2)
    before = case.weights()
    for _ in range(2):  # the first has lr 0
        for p in case.distiller.parameters():
            p.grad = torch.zeros_like(p)
        case.optimizer.step()
        case.schedule.step()
    changed = {name for name, p in case.weights().items() if not torch.equal(p, before[name])}
    expected = {name for name, p in before.items() if p.ndim > 1}
    assert changed == expected | (set() if option == "kron" else {"temperature.raw"})  # kron's never acts on a scalar


def problem() -> tuple[Vector, Vector, Vector]:
    """A least-squares problem: rows [32,12], the first kernel [4,3] and the first bias [4]; it takes gradients above 1."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 12)), rng.normal(size=(4, 3)), rng.normal(size=4)


def chained(lr: float, weight_decay: float, steps: int) -> tuple[Vector, Vector]:
    """clip -> Adam -> lr -> + weight_decay · kernel -> schedule -> minus, as one chain in NumPy."""
    rows, kernel, bias = problem()
    theta, kernels = np.concatenate([kernel.ravel(), bias]), np.r_[np.ones(12), np.zeros(4)]
    m = v = np.zeros(16)
    for t in range(steps):
        g = np.concatenate([rows.T @ (rows @ theta[:12] - 1) / 32, theta[12:] - 2])
        g = g / max(1, np.sqrt((g**2).sum()))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adam = (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        warm, progress = min(1, t / 20), min(max((t - 20) / (steps - 20), 0), 1)
        theta = theta - warm * 0.5 * (1 + np.cos(np.pi * progress)) * (lr * adam + weight_decay * kernels * theta)
    return theta[:12].reshape(4, 3), theta[12:]


def ours(make: Callable[..., Optimizer], steps: int) -> tuple[Vector, Vector]:
    rows, kernel, bias = problem()
    parameters = [nn.Parameter(torch.tensor(x, dtype=torch.float32)) for x in (kernel, bias)]
    learner, x = nn.ParameterList(parameters), torch.tensor(rows, dtype=torch.float32)
    made = optimizer_and_schedule(parameter_groups(learner, None, "kernels"), make, CosineLr(warmup_steps=20), steps, 10)
    for _ in range(steps):
        made["optimizer"].zero_grad()
        loss = ((x @ parameters[0].reshape(-1) - 1) ** 2).mean() / 2 + ((parameters[1] - 2) ** 2).sum() / 2
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return parameters[0].detach().double().numpy(), parameters[1].detach().double().numpy()


@pytest.mark.parametrize(("lr", "weight_decay"), [(3e-3, 3e-3), (1e-2, 1e-3), (3e-4, 1e-3)])
def test_big_visions_adam_is_its_chain_and_not_adamw(lr: float, weight_decay: float) -> None:
    expected = chained(lr, weight_decay, 200)
    found = ours(functools.partial(big_vision_adam, lr=lr, weight_decay=weight_decay), 200)
    naive = ours(functools.partial(AdamW, lr=lr, weight_decay=weight_decay), 200)
    for own, reference in zip(found, expected, strict=True):
        assert np.abs(own - reference).max() <= 1e-5
    assert np.abs(naive[0] - expected[0]).max() > 1e-2


def test_big_visions_adam_divides_each_groups_own_weight_decay() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], **own} for own in ({}, {"weight_decay": 0.0}, {"weight_decay": 5e-4})]
    built = big_vision_adam(groups, lr=1e-2, weight_decay=3e-4)
    assert [group["weight_decay"] for group in built.param_groups] == pytest.approx([0.03, 0.0, 0.05])
    assert "weight_decay" not in groups[0]  # what was given is as it was


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan")])
def test_big_visions_adam_refuses_an_lr_that_it_cannot_divide_by(lr: float, config: Callable[..., DictConfig]) -> None:
    with pytest.raises(ValueError, match=r"set optimizer\.lr=1e-3"):
        big_vision_adam([nn.Parameter(torch.ones(1))], lr=lr)
    if lr == lr:
        with pytest.raises(ConfigError, match=r"optimizer\.lr=.*greater than 0"):
            config("experiment=none", "optimizer=big_vision", f"optimizer.lr={lr}")


@pytest.mark.parametrize("package", ["pytorch_optimizer", "opt_einsum"])
def test_without_its_package_kron_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, config: Callable[..., DictConfig]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"^optimizer: .*: pip install kdx\[kron\]$"):
        build.parts(config("experiment=none", "optimizer=kron"))


@pytest.mark.parametrize("make", [SGD, partial(SGD, momentum=0.9, nesterov=True), Adam, AdamW, big_vision_adam])
def test_a_fused_optimizer_takes_the_same_steps(make: Any) -> None:
    g = torch.Generator().manual_seed(0)
    values, goals = torch.randn(2, 3, 5, generator=g)
    paths = []
    for fused in (False, True):
        weights = [nn.Parameter(value.clone()) for value in values]
        groups = [{"params": weights[:2]}, {"params": weights[2:], "weight_decay": 0.0}]
        built = optimizer_and_schedule(groups, partial(make, lr=0.01, weight_decay=0.1), CosineLr(), 20, 5, fused=fused)
        assert built["optimizer"].param_groups[1].get("fused") is (True if fused else None)
        for _ in range(20):
            built["optimizer"].zero_grad()
            sum((weight - goal).square().sum() for weight, goal in zip(weights, goals, strict=True)).backward()
            built["optimizer"].step()
            built["lr_scheduler"]["scheduler"].step()
        paths.append(torch.stack([weight.detach() for weight in weights]))
    torch.testing.assert_close(*paths, rtol=1e-5, atol=1e-6)
    assert not torch.equal(paths[0], values)


@pytest.mark.parametrize("make", [partial(SGD, fused=False), partial(Adam, foreach=True), partial(Shampoo, every=2)])
def test_an_optimizer_without_a_fused_kernel_is_left_as_it_is(make: Any) -> None:
    built = fused_where_possible(make, [{"params": [nn.Parameter(torch.ones(2, 2))]}])
    assert not built.param_groups[0].get("fused")


@pytest.mark.parametrize("elsewhere", [torch.ones(2, dtype=torch.complex64), torch.ones(2, device="meta")])
def test_parameters_without_a_fused_kernel_have_the_plain_one(elsewhere: Tensor) -> None:
    built = fused_where_possible(SGD, [{"params": [nn.Parameter(elsewhere)]}])
    assert not built.param_groups[0]["fused"]
