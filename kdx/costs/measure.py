"""Costs of a run's networks as flat metrics, and the measurement protocol."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn

from kdx.costs import counts, latency
from kdx.costs.latency import Context, Timing
from kdx.costs.state import example, undisturbed

Shape = tuple[int, int, int]
Part = tuple[nn.Module, Shape]  # a network, and the shape [C,R,R] of its input images
Measured = tuple[dict[str, float], str]  # costs by name, and how often they were measured
Once = Callable[[str, Callable[[], Measured]], Measured]  # gives what the function returns, or has returned to a like run


class Costs(NamedTuple):
    """Metrics by flat name; the protocol, equal for comparable runs; the number of repetitions of each network."""

    metrics: dict[str, float]
    protocol: str
    repetitions: str


def measure(
    networks: Mapping[str, Sequence[Part]],
    *,
    batch_size: int,
    device: torch.device,
    precision: Context = nullcontext,
    precision_name: str = "float32",
    images_per_second: float | None = None,
    teacher_runs: float = 0.0,
    once: Once = lambda role, make: make(),
) -> Costs:
    """Return the costs of the networks and the protocol. Modes, weights, statistics and devices are not changed.

    Metrics per network: `<role>/parameters`, `macs` (one image), `latency_ms_1`, `latency_ms_batch`, `images_per_second`, and
    on CUDA `peak_memory_mb` (MiB for one batch; this resets the GPU's peak, so read the run's peak first). `teacher_share` is
    the fraction of the training time spent in the teacher's forward: 0 if `teacher_runs` is 0, missing if `images_per_second`
    is None.

    Args:
        networks: parts by role, such as "student", "teacher", "peer_a"; the costs of an ensemble's parts are summed.
        batch_size: training batch size per device.
        device: where to measure.
        precision: context of the forward, such as autocast.
        precision_name: its name in the protocol.
        images_per_second: training throughput per device.
        teacher_runs: the share of the training batches for which the teacher runs.
        once: shares the costs of a role with runs that have measured the same.
    """
    metrics: dict[str, float] = {}
    notes: list[str] = []
    for role, parts in networks.items():
        costs, note = once(role, functools.partial(_one, parts, batch_size, device, precision))
        metrics |= {f"{role}/{name}": value for name, value in costs.items()}
        notes.append(f"{role} {note}")
    if not teacher_runs:
        metrics["teacher_share"] = 0.0
    elif images_per_second and "teacher/latency_ms_batch" in metrics:
        training = 1000 * batch_size / images_per_second
        metrics["teacher_share"] = min(1.0, teacher_runs * metrics["teacher/latency_ms_batch"] / training)
    return Costs(metrics, _protocol(device, precision_name), " | ".join(notes))


def _one(parts: Sequence[Part], batch: int, device: torch.device, precision: Context) -> Measured:
    singles = [latency.forward(network, shape, 1, device, precision) for network, shape in parts]
    batches = [
        latency.batched(network, shape, batch, single, device, precision)
        for (network, shape), single in zip(parts, singles, strict=True)
    ]
    whole = _seconds(batches)
    metrics = {
        "parameters": float(sum(counts.parameters(network) for network, _ in parts)),
        "macs": float(sum(counts.macs(network, shape) for network, shape in parts)),
        "latency_ms_1": 1000 * _seconds(singles),
        "latency_ms_batch": 1000 * whole,
        "images_per_second": batch / whole,
    }
    if device.type == "cuda":
        measured = min(timing.measured for timing in batches)
        metrics["peak_memory_mb"] = max(_peak(network, shape, measured, device, precision) for network, shape in parts)
    return metrics, "; ".join(
        f"at {shape[-1]} px {a.text}, {b.text}" for (_, shape), a, b in zip(parts, singles, batches, strict=True)
    )


def _seconds(timings: Sequence[Timing]) -> float:
    return sum(timing.seconds for timing in timings)


def _peak(network: nn.Module, shape: Shape, batch: int, device: torch.device, precision: Context) -> float:
    """Return the peak of allocated MiB during one forward, including the weights."""
    with undisturbed(network, device), torch.inference_mode(), precision():
        images = example(network, batch, shape)
        torch.cuda.reset_peak_memory_stats(device)
        network(images)
        latency.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def _protocol(device: torch.device, precision: str) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return (
        f"on {name}{threads}, torch {torch.__version__}: eval mode, inference_mode, precision {precision}, images "
        "already on the device, device synchronized after each forward; latency is the median of repetitions within "
        f"{latency.BUDGET} s, at least {latency.LEAST}, none started after {latency.LIMIT:g} s, measured again up to "
        f"{latency.ROUNDS} times while their interquartile range (spread) is over {latency.AGREE:.0%} of it; once for "
        "runs of a process with the same networks. MACs are half the operations that torch's FlopCounterMode counts for "
        "one image; not counted: "
        f"{counts.NOT_COUNTED}. teacher_share is the teacher's latency for a training batch divided by the training time per "
        "batch, 0 if the teacher does not run in training"
    )
