"""How long a network takes: the median of repetitions, by a protocol that can be written down."""

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

BUDGET, LIMIT = 0.2, 5.0  # seconds: what repetitions may take where they are fast, and where they are slow
LEAST, WARMUPS = 3, 3

Clock = Callable[[], float]
Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Timing:
    """Median seconds for `batch` images, and how they were found: from `repetitions`, each of `measured` images."""

    seconds: float
    repetitions: int
    warmups: int
    batch: int = 1
    measured: int = 1

    @property
    def text(self) -> str:
        """As the protocol names it."""
        scaled = f" of {self.measured} images, scaled" if self.measured != self.batch else ""
        runs = "repetition" if self.repetitions == 1 else "repetitions"
        return f"batch {self.batch}: {self.repetitions} {runs}{scaled} after {self.warmups} warm-up"


def median(call: Callable[[], Any], clock: Clock = time.perf_counter) -> Timing:
    """The median time of `call`, which must be done when it returns.

    Up to 3 calls warm up; then it is repeated for 0.2 s, at least 3 times. No new call is begun once 5 s have passed, so that
    what is slower is measured less often, down to the single first call.
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
    """Time of one forward of `batch` images [C,R,R] that are on `device` already; the network stays as it was.

    Eval mode, `inference_mode`, inside `precision()` (an autocast context, say); the device is waited for after each call.
    """
    with undisturbed(network, device), torch.inference_mode(), precision():
        images = example(network, batch, shape)

        def call() -> None:
            network(images)
            synchronize(device)

        found = median(call)
    return Timing(found.seconds, found.repetitions, found.warmups, batch, batch)


def batched(
    network: nn.Module,
    shape: tuple[int, int, int],
    batch: int,
    single: Timing,
    device: torch.device,
    precision: Context = nullcontext,
) -> Timing:
    """Time of a forward of `batch` images; `single` is that of one image.

    Where the batch would take longer than the protocol has, fewer images are measured and their time is scaled.
    """
    affordable = max(1, int(LIMIT / (LEAST + 1) / max(single.seconds, 1e-9)))
    measured = min(batch, affordable)
    found = forward(network, shape, measured, device, precision)
    return Timing(found.seconds * batch / measured, found.repetitions, found.warmups, batch, measured)


def synchronize(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
