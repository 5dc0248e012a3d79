"""Means of training numbers over steps and ranks without a host sync per step: sums stay on the device until logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kdx.metrics.gathering import everywhere


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite, first at `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Telemetry:
    """Sums named device scalars over steps and remembers the first step at which one was not finite. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.names: list[str] = []
        self.all_images, self.all_seconds = 0, 0.0
        self.restart()
        self.first_bad: Tensor | None = None

    def restart(self) -> None:
        """Reset the sums and the clock."""
        self.total: Tensor | None = None
        self.steps = self.images = 0
        self.seconds_before = 0.0  # of this window, before a resume
        self.began = self.clock()

    def add(self, values: dict[str, Tensor], step: int, num_images: int) -> None:
        """Add one step's numbers, each by its mean; no value leaves the device."""
        self.names = list(values)
        row = torch.stack([value.detach().float().mean() for value in values.values()])
        self.total = row if self.total is None else self.total.to(row.device) + row
        self.steps += 1
        self.images += num_images
        now = torch.cat([row.new_tensor([float(step)]), row])
        if self.first_bad is None:
            self.first_bad = torch.full_like(now, -1.0)
        is_first = (self.first_bad[0] < 0) & ~torch.isfinite(row).all()
        self.first_bad = torch.where(is_first, now, self.first_bad)

    def read(self) -> dict[str, float]:
        """Return means since the last reading over all ranks, and images per second; one transfer from the device.

        All ranks read at the same step.

        Raises:
            NonFiniteLossError: a number was NaN or infinite on a rank; names the first such step and its numbers.
        """
        if self.total is None or self.first_bad is None:
            return {}
        own = torch.cat([self.total / self.steps, self.first_bad])
        ranks = everywhere([own[None]]).tolist()
        count = len(self.names)
        means = [sum(column) / len(ranks) for column in zip(*(numbers[:count] for numbers in ranks), strict=True)]
        failed = [numbers[count:] for numbers in ranks if numbers[count] >= 0]
        if failed:
            bad_step, *bad = min(failed, key=lambda numbers: numbers[0])
            parts = ", ".join(f"{name} = {value:.6g}" for name, value in zip(self.names, bad, strict=True))
            raise NonFiniteLossError(f"Loss is not finite at step {int(bad_step)}: {parts}", int(bad_step))
        seconds = max(self.clock() - self.began, 1e-9)
        rate = self.images / seconds
        self.all_images += self.images
        self.all_seconds += seconds
        self.restart()
        return {**dict(zip(self.names, means, strict=True)), "images_per_second": rate}

    def state(self) -> dict[str, Any]:
        """Return the sums since the last reading and the throughput, as plain data for a checkpoint; of this rank only."""
        return {
            "names": self.names,
            "total": None if self.total is None else self.total.tolist(),
            "steps": self.steps,
            "images": self.images,
            "seconds": self.clock() - self.began if self.steps else 0.0,
            "all_images": self.all_images,
            "all_seconds": self.all_seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of a checkpoint, so that means after a resume are those of a run without it."""
        self.names, self.steps, self.images = list(state["names"]), state["steps"], state["images"]
        self.total = None if state["total"] is None else torch.tensor(state["total"], dtype=torch.float32)
        self.all_images, self.all_seconds = state["all_images"], state["all_seconds"]
        self.seconds_before = state["seconds"]
        self.start_clock()

    def start_clock(self) -> None:
        """Count the time from now on, after that before the checkpoint from which the run is resumed."""
        self.began = self.clock() - self.seconds_before

    @property
    def images_per_second(self) -> float:
        """Training throughput over all steps so far, without validation and start-up; 0 before the first step."""
        return self.all_images / self.all_seconds if self.all_seconds else 0.0
