"""What losses and metrics cost by the number of classes, from 10 to ImageNet-21k's 21,841."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from kdx.benchmarks.machine import device, synchronize
from kdx.losses.ce import CE
from kdx.losses.dist import DIST
from kdx.losses.kl import KL
from kdx.losses.objective import Loss
from kdx.metrics.suite import Suite
from kdx.types import Outputs

CLASSES = (10, 1000, 21_841)
BATCH = 64
REPEATS = 15
LOSSES: dict[str, Callable[[], Loss]] = {"ce": CE, "kl": KL, "dist": DIST}


def outputs(num_classes: int) -> Outputs:
    """Return random logits of student and teacher, and labels."""
    where = device()
    student, teacher = (torch.randn(BATCH, num_classes, device=where) for _ in range(2))
    label = torch.arange(BATCH, device=where) % num_classes
    found = Outputs(student.requires_grad_(), teacher, label)
    found.temperature = torch.tensor(4.0, device=where)
    return found


def milliseconds(action: Callable[[], object]) -> float:
    """Return the median time of an action in ms, after a warm-up."""
    action()
    times = []
    for _ in range(REPEATS):
        synchronize()
        began = time.perf_counter()
        action()
        synchronize()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def rows() -> Iterator[tuple[str, str, str]]:
    """Measure a batch of 64: what, the result, and the protocol."""
    for num_classes in CLASSES:
        seen = outputs(num_classes)
        for name, make in LOSSES.items():
            loss = make()
            lasted = milliseconds(lambda loss=loss, seen=seen: loss(seen).mean().backward())  # type: ignore[misc]
            yield f"loss {name}, K = {num_classes:,}", f"{lasted:.2f} ms", "forward and backward"
        suite = Suite(num_classes).to(device())
        with torch.no_grad():
            lasted = milliseconds(lambda suite=suite, seen=seen: suite.update(seen))  # type: ignore[misc]
        yield f"metrics, K = {num_classes:,}", f"{lasted:.2f} ms", "of student, teacher and both"
