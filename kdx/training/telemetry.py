"""Means of training numbers without a host sync per step: sums stay on the device until they are logged."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite, first at `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Telemetry:
    """Sums named device scalars over steps and remembers the first step at which one was not finite."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.all_images, self.all_seconds = 0, 0.0
        self.restart()
        self.first_bad: Tensor | None = None

    def restart(self) -> None:
        """Reset the sums and the clock."""
        self.total: Tensor | None = None
        self.steps = self.images = 0
        self.began = time.perf_counter()

    def add(self, values: dict[str, Tensor], step: int, num_images: int) -> None:
        """Add one step's numbers, each by its mean; no value leaves the device."""
        self.names = list(values)
        row = torch.stack([value.detach().float().mean() for value in values.values()])
        self.total = row if self.total is None else self.total + row
        self.steps += 1
        self.images += num_images
        now = torch.cat([row.new_tensor([float(step)]), row])
        if self.first_bad is None:
            self.first_bad = torch.full_like(now, -1.0)
        is_first = (self.first_bad[0] < 0) & ~torch.isfinite(row).all()
        self.first_bad = torch.where(is_first, now, self.first_bad)

    def read(self) -> dict[str, float]:
        """Return means since the last reading, and images per second; one transfer from the device.

        Raises:
            NonFiniteLossError: a number was NaN or infinite; names the first such step and its numbers.
        """
        if self.total is None or self.first_bad is None:
            return {}
        numbers = torch.cat([self.total / self.steps, self.first_bad]).tolist()
        means, (bad_step, *bad) = numbers[: len(self.names)], numbers[len(self.names) :]
        if bad_step >= 0:
            parts = ", ".join(f"{name} = {value:.6g}" for name, value in zip(self.names, bad, strict=True))
            raise NonFiniteLossError(f"Loss is not finite at step {int(bad_step)}: {parts}", int(bad_step))
        seconds = max(time.perf_counter() - self.began, 1e-9)
        rate = self.images / seconds
        self.all_images += self.images
        self.all_seconds += seconds
        self.restart()
        return {**dict(zip(self.names, means, strict=True)), "images_per_second": rate}

    @property
    def images_per_second(self) -> float:
        """Training throughput over all steps so far, without validation and start-up; 0 before the first step."""
        return self.all_images / self.all_seconds if self.all_seconds else 0.0
