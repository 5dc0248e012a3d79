"""Latency of a network: the median of repetitions under a fixed protocol."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from kdx.costs.state import example, undisturbed

BUDGET, LIMIT = 0.05, 5.0  # seconds: minimum time for repetitions, and time after which no repetition starts
LEAST, WARMUPS, WARM = 3, 3, 0.2  # repetitions, warm-up calls, and seconds after which no further warm-up call starts
AGREE, ROUNDS = 0.1, 3  # spread at which repetitions agree; so often they are measured if they do not

Clock = Callable[[], float]
Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Timing:
    """Median time in seconds for `batch` images, from `repetitions` of `measured` images each, after `warmups`.

    `spread` is the interquartile range of the repetitions divided by the median; the best of `rounds`, if they disagreed.
    """

    seconds: float
    repetitions: int
    warmups: int
    batch: int = 1
    measured: int = 1
    spread: float = 0.0
    rounds: int = 1

    @property
    def text(self) -> str:
        """Description for the protocol."""
        scaled = f" of {self.measured} images, scaled" if self.measured != self.batch else ""
        runs = "repetition" if self.repetitions == 1 else "repetitions"
        again = f", the best of {self.rounds} rounds" if self.rounds > 1 else ""
        spread = f", spread {100 * self.spread:.0f} %" if self.repetitions > 1 else ""
        return f"batch {self.batch}: {self.repetitions} {runs}{scaled} after {self.warmups} warm-up{spread}{again}"


def median(call: Callable[[], Any], clock: Clock = time.perf_counter) -> Timing:
    """Return the median time of `call`, which must be synchronous.

    Up to 3 warm-up calls, then repetitions for 0.05 s, at least 3. No call starts after 5 s, so slow calls are repeated less
    often; the slowest ones are measured by the last warm-up call. Repetitions whose interquartile range is over 10 % of their
    median were disturbed: they are measured again, up to 3 times in all, and those with the smallest range count.
    """
    began, warm, rounds = clock(), list[float](), list[list[float]]()
    while len(warm) < WARMUPS and sum(warm) < WARM:
        warm.append(_once(call, clock))
    while len(rounds) < ROUNDS and not (rounds and _spread(rounds[-1]) <= AGREE):
        taken = list[float]()
        while (len(taken) < LEAST or sum(taken) < BUDGET) and clock() - began < LIMIT:
            taken.append(_once(call, clock))
        if (len(taken) < LEAST and rounds) or not taken:  # no time is left
            break
        rounds.append(taken)
    if not rounds:
        return Timing(warm[-1], 1, len(warm) - 1)
    best = min(rounds, key=_spread)
    return Timing(statistics.median(best), len(best), len(warm), spread=_spread(best), rounds=len(rounds))


def _spread(seconds: list[float]) -> float:
    """Return the interquartile range divided by the median; 0 for a single value."""
    if len(seconds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / max(middle, 1e-12)


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
    return replace(timing, batch=batch, measured=batch)


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
    return replace(timing, seconds=timing.seconds * batch / measured, batch=batch, measured=measured)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
