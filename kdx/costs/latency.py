"""Latency of a network: the median of repetitions under a fixed protocol."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdx.costs.state import example, undisturbed

BUDGET, LIMIT = 0.2, 5.0  # seconds: minimum time for repetitions, and time after which no repetition starts
LEAST, WARMUPS = 3, 3

Clock = Callable[[], float]
Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Timing:
    """Median time in seconds for `batch` images, from `repetitions` of `measured` images each, after `warmups`."""

    seconds: float
    repetitions: int
    warmups: int
    batch: int = 1
    measured: int = 1

    @property
    def text(self) -> str:
        """Description for the protocol."""
        scaled = f" of {self.measured} images, scaled" if self.measured != self.batch else ""
        runs = "repetition" if self.repetitions == 1 else "repetitions"
        return f"batch {self.batch}: {self.repetitions} {runs}{scaled} after {self.warmups} warm-up"


def median(call: Callable[[], Any], clock: Clock = time.perf_counter) -> Timing:
    """Return the median time of `call`, which must be synchronous.

    Up to 3 warm-up calls, then repetitions for 0.2 s, at least 3. No call starts after 5 s, so slow calls are repeated less
    often; the slowest ones are measured by the last warm-up call.
    """
    began, warm, taken = clock(), list[float](), list[float]()
    while len(warm) < WARMUPS and sum(warm) < BUDGET:
        warm.append(_once(call, clock))
    while (len(taken) < LEAST or sum(taken) < BUDGET) and clock() - began < LIMIT:
        taken.append(_once(call, clock))
    if not taken:
        return Timing(warm[-1], 1, len(warm) - 1)
    return Timing(statistics.median(taken), len(taken), len(warm))


def _once(call: Callable[[], Any], clock: Clock) -> float:
    began = clock()
    call()
    return clock() - began


def forward(
    network: nn.Module, shape: tuple[int, int, int], batch: int, device: torch.device, precision: Context = nullcontext
) -> Timing:
    """Return the time of one forward of `batch` images [C,R,R] that are already on `device`.

    Runs in eval mode and `inference_mode`, inside `precision()` (for example an autocast context), and synchronizes the device
    after each call. The network's state is not changed.
    """
    with undisturbed(network, device), torch.inference_mode(), precision():
        images = example(network, batch, shape)

        def call() -> None:
            network(images)
            synchronize(device)

        timing = median(call)
    return Timing(timing.seconds, timing.repetitions, timing.warmups, batch, batch)


def batched(
    network: nn.Module,
    shape: tuple[int, int, int],
    batch: int,
    single: Timing,
    device: torch.device,
    precision: Context = nullcontext,
) -> Timing:
    """Return the time of one forward of `batch` images; `single` is the time of one image.

    If the batch would exceed the protocol's time limit, fewer images are measured and their time is scaled.
    """
    affordable = max(1, int(LIMIT / (LEAST + 1) / max(single.seconds, 1e-9)))
    measured = min(batch, affordable)
    timing = forward(network, shape, measured, device, precision)
    return Timing(timing.seconds * batch / measured, timing.repetitions, timing.warmups, batch, measured)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
