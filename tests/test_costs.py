"""Costs: counted by hand, timed by a clock of the test's, and the network does not notice."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import timm
import torch
from torch import nn

from kdx.config.schema import RunConfig
from kdx.costs import counts, latency
from kdx.costs.energy import EnergyMeter
from kdx.costs.latency import Timing
from kdx.costs.measure import Measured, measure
from kdx.experiment import build
from kdx.experiment.cost import measured_once
from kdx.networks.network import Network
from kdx.training.sharing import Successive

CPU = torch.device("cpu")


class Clock:
    """A clock that only moves when something takes time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        """A call that takes these seconds, the last for ever after."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time to lose on what is fast."""
    monkeypatch.setattr(latency, "BUDGET", 0.01)


def test_macs_and_parameters_are_those_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )
    assert counts.macs(network, (3, 8, 8)) == 8 * 8 * 8 * 3 * 9 + 4 * 4 * 8 * 2 * 9 + 128 * 10
    assert counts.parameters(network) == 8 * 3 * 9 + 16 + (8 * 2 * 9 + 8) + (1280 + 10)


def test_macs_of_attention_count_both_products() -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=1, embed_dim=48, num_heads=3)
    tokens, width = 5, 48
    linear = 3 * width**2 + width**2 + 8 * width**2  # qkv, projection, two layers of the MLP
    expected = 4 * 3 * 16 * 16 * width + tokens * linear + 2 * tokens * tokens * width
    assert counts.macs(network, (3, 32, 32)) == expected


def test_resnet18_at_224_px_has_the_published_macs() -> None:
    with torch.device("meta"):
        network = timm.create_model("resnet18")
    assert counts.macs(network.to_empty(device="cpu"), (3, 224, 224)) == pytest.approx(1.814e9, rel=1e-3)


def test_latency_is_the_median_after_the_warm_up() -> None:
    clock = Clock()
    found = latency.median(clock.takes(9e-2, 8e-2, 7e-2, 0.0103, 0.010, 0.0097, 0.0175, 0.010), clock)
    assert found == Timing(pytest.approx(0.01), 5, 3, spread=pytest.approx(0.0003 / 0.01))  # one outlier is no disagreement


@pytest.mark.parametrize(
    ("disturbed", "rounds", "seconds", "spread"),
    [
        ([0.2, 0.1, 0.3], 2, 0.04, 0.0),  # then quiet
        ([0.2, 0.1, 0.3, 0.09, 0.06, 0.06, 0.5, 0.25, 0.75], 3, 0.06, 0.015 / 0.06),  # always disturbed: the best round
    ],
)
def test_repetitions_that_disagree_are_measured_again(
    disturbed: list[float], rounds: int, seconds: float, spread: float
) -> None:
    clock = Clock()
    found = latency.median(clock.takes(0.2, *disturbed, 0.04), clock)
    assert found.rounds == rounds
    assert (found.seconds, found.spread) == (pytest.approx(seconds), pytest.approx(spread))
    assert f"spread {100 * spread:.0f} %, the best of {rounds} rounds" in found.text


@pytest.mark.parametrize(
    "seconds, repetitions, warmups",
    [(0.001, 50, 3), (0.1, 3, 2), (1.0, 3, 1), (2.0, 2, 1), (4.0, 1, 1), (60.0, 1, 0)],
)
def test_slow_networks_are_measured_less_often(seconds: float, repetitions: int, warmups: int) -> None:
    clock = Clock()
    found = latency.median(clock.takes(seconds), clock)
    assert found.seconds == pytest.approx(seconds)
    assert (found.repetitions, found.warmups) == (pytest.approx(repetitions, abs=1), warmups)


def test_a_batch_that_would_take_too_long_is_measured_smaller_and_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def forward(network: nn.Module, shape: object, batch: int, *rest: object) -> Timing:
        seen.append(batch)
        return Timing(0.1 * batch, 3, 1, batch, batch)

    monkeypatch.setattr(latency, "forward", forward)
    slow = latency.batched(nn.Identity(), (1, 4, 4), 500, Timing(0.1, 3, 1), CPU)
    fast = latency.batched(nn.Identity(), (1, 4, 4), 500, Timing(1e-4, 3, 1), CPU)
    assert seen == [12, 500]
    assert slow.seconds == pytest.approx(fast.seconds) == pytest.approx(50)
    assert slow.text == "batch 500: 3 repetitions of 12 images, scaled after 1 warm-up, spread 0 %"
    assert fast.text == "batch 500: 3 repetitions after 1 warm-up, spread 0 %"


@pytest.mark.usefixtures("quick")
def test_the_networks_do_not_notice() -> None:
    torch.manual_seed(0)
    network = Network("cifar_resnet8", 10, 1).train()
    network.model.layer1.eval()
    network(torch.rand(4, 1, 8, 8)).sum().backward()
    before = copy.deepcopy(network.state_dict())
    grads = {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}
    modes = [module.training for module in network.modules()]
    random = torch.random.get_rng_state()
    measure({"student": [(network, (1, 8, 8))]}, batch_size=4, device=CPU)
    assert [module.training for module in network.modules()] == modes
    assert True in modes and False in modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(parameter.grad, grads[name]) for name, parameter in network.named_parameters() if name in grads)
    assert not any(parameter.is_inference() for parameter in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    network(torch.rand(4, 1, 8, 8)).sum().backward()  # it can go on learning


def test_modes_come_back_when_the_network_fails() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(99, 3)).train()
    with pytest.raises(RuntimeError):
        latency.forward(network, (1, 8, 8), 2, CPU)
    assert network.training


@pytest.mark.usefixtures("quick")
def test_it_runs_as_the_run_did() -> None:
    seen: list[tuple[bool, bool, torch.dtype]] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = self.linear(images.flatten(1))
            seen.append((self.training, torch.is_inference_mode_enabled(), logits.dtype))
            return logits

    latency.forward(Spy(), (1, 4, 4), 2, CPU, lambda: torch.autocast("cpu", torch.bfloat16))
    assert set(seen) == {(False, True, torch.bfloat16)}
    latency.forward(Spy().to(torch.bfloat16), (1, 4, 4), 2, CPU)


@pytest.mark.usefixtures("quick")
def test_metrics_of_a_run() -> None:
    student, teacher = Network("cifar_resnet8", 10, 1), Network("cifar_resnet20", 10, 1)
    networks = {"student": [(student, (1, 4, 4))], "teacher": [(teacher, (1, 8, 8)), (student, (1, 4, 4))]}
    metrics, protocol, repetitions = measure(
        networks,
        batch_size=16,
        device=CPU,
        precision=nullcontext,
        precision_name="32-true",
        images_per_second=1.0,
        teacher_runs=True,
    )
    names = {"parameters", "macs", "latency_ms_1", "latency_ms_batch", "images_per_second"}
    assert set(metrics) == {f"{who}/{name}" for who in networks for name in names} | {"teacher_share"}
    assert all(value > 0 for value in metrics.values())
    assert metrics["student/parameters"] == 77754
    assert metrics["teacher/parameters"] == 77754 + 272186
    assert metrics["teacher/macs"] == counts.macs(teacher, (1, 8, 8)) + counts.macs(student, (1, 4, 4))
    assert metrics["student/images_per_second"] == pytest.approx(16000 / metrics["student/latency_ms_batch"])
    assert metrics["teacher_share"] == pytest.approx(metrics["teacher/latency_ms_batch"] / 16000)  # 16 s for a batch
    for said in ("32-true", "batch 16", "at 8 px", "not counted: norms", "inference_mode", "1 threads"):
        assert said in f"{protocol} {repetitions}"


OF_TRAINING = [
    "temperature.value=2",
    "optimizer.lr=0.1",
    "seed=3",
    "losses=[kl]",
    "data.train_size=50",
    "teacher.recipe.seed=1",
]
OF_BOTH = ["speed=exact", "compile=both", "data.batch_size=10", "trainer.precision=bf16-mixed", "resolution.student=6"]


@pytest.mark.parametrize(
    ("role", "change", "again"),
    [
        *(("student", change, False) for change in OF_TRAINING),
        *((role, change, True) for role in ("student", "teacher") for change in OF_BOTH),
        ("student", "student.architecture=cifar_resnet14", True),
        ("teacher", "student.architecture=cifar_resnet14", False),
        ("teacher", "teacher.network.architecture=cifar_resnet14", True),
        ("student", "teacher.network.architecture=cifar_resnet14", False),
    ],
)
def test_costs_are_measured_again_if_something_changes_the_forward(
    config: Callable[..., RunConfig], role: str, change: str, again: bool
) -> None:
    sharing, measured = Successive(), list[str]()
    for words in ([], [change]):
        parts = build.parts(config(*words))
        parts.sharing = sharing

        def make(words: str = str(words)) -> Measured:
            measured.append(words)
            return {"macs": float(len(measured))}, words

        assert measured_once(parts, role, make)[0]["macs"] == len(measured)
    assert len(measured) == 1 + again


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("runs, rate, share", [(False, 1e9, 0.0), (True, 1e9, 1.0), (True, None, None), (True, 0.0, None)])
def test_teachers_share(runs: bool, rate: float | None, share: float | None) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    metrics, *_ = measure(
        {"teacher": [(teacher, (1, 4, 4))]}, batch_size=2, device=CPU, images_per_second=rate, teacher_runs=runs
    )
    assert metrics.get("teacher_share") == share


def test_energy_is_absent_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert EnergyMeter().joules() is None


def fake_gpus(monkeypatch: pytest.MonkeyPatch, nvml: object) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: types.SimpleNamespace(uuid=f"uuid-{i}"))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


def test_energy_sums_the_counters_of_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = {"GPU-uuid-0": 1_000_000, "GPU-uuid-1": 5_000_000, "GPU-of-another": 9_000_000}
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    nvml.nvmlDeviceGetTotalEnergyConsumption = counters.__getitem__
    fake_gpus(monkeypatch, nvml)
    both, second = EnergyMeter(), EnergyMeter([1])
    for name in counters:
        counters[name] += 2500  # mJ
    assert (both.joules(), second.joules()) == (5.0, 2.5)
    del counters["GPU-uuid-1"]  # it fell off the bus
    assert both.joules() is None


@pytest.mark.parametrize("broken", [None, types.ModuleType("pynvml")], ids=["no library", "a library that fails"])
def test_energy_never_fails_a_run(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    fake_gpus(monkeypatch, broken)
    assert EnergyMeter().joules() is None
