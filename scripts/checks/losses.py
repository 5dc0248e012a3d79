"""How long do the losses and the suite of metrics take, forward and backward, for few and for many classes? Prints a table.

Logits are random, of a batch of 64. Times are the fastest of many runs, in milliseconds; the last line is a fixed kernel, which
tells a slow machine from a slow loss.

python scripts/checks/losses.py
python scripts/checks/losses.py --classes 1000 --threads 1 --to losses.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kdx.losses.ce import CE
from kdx.losses.dist import DIST
from kdx.losses.dkd import DKD
from kdx.losses.kl import KL
from kdx.losses.mse import MSE
from kdx.losses.objective import Loss
from kdx.losses.virtual import Virtual
from kdx.metrics.suite import Suite
from kdx.types import Outputs

BATCH, TEMPERATURE = 64, 4.0
LOSSES: dict[str, Loss] = {
    "ce": CE(),
    "ce, smoothed": CE(0.1),
    "kl": KL(),
    "kl, symmetric": KL(direction="symmetric"),
    "kl, js": KL(direction="js"),
    "dkd": DKD(),
    "dist": DIST(),
    "dist, epsilon": DIST(epsilon=1e-8),
    "mse": MSE(),
    "virtual": Virtual(),
}


def outputs_of(num_classes: int) -> Outputs:
    """Return random logits, labels and a temperature."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, BATCH, num_classes, generator=generator)
    label = torch.randint(num_classes, (BATCH,), generator=generator)
    return Outputs(student.requires_grad_(), teacher, label, temperature=torch.tensor(TEMPERATURE))


def fastest(action: Callable[[], object], seconds: float) -> float:
    """Return the time in ms of the fastest run within some seconds, and of at least 5 runs."""
    times: list[float] = []
    action()
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def update(loss: Loss, outputs: Outputs) -> Tensor:
    """Return the gradient of a loss with respect to the student's logits."""
    (gradient,) = torch.autograd.grad(loss(outputs).mean(), outputs.student_logits)
    return gradient


def measure(num_classes: int, seconds: float) -> dict[str, float]:
    """Return the time of each loss, of one update of the suite, and of a fixed kernel."""
    outputs = outputs_of(num_classes)
    found = {name: fastest(lambda loss=loss: update(loss, outputs), seconds) for name, loss in LOSSES.items()}
    suite, seen = Suite(num_classes), outputs_of(num_classes)
    seen.student_logits = seen.student_logits.detach()
    with torch.inference_mode():
        found["suite, update"] = fastest(lambda: suite.update(seen), seconds)
    matrix = torch.ones(512, 512)
    return found | {"matrix product of 512": fastest(lambda: matrix @ matrix, seconds)}


def main() -> None:
    """Measure all numbers of classes that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="*", type=int, default=[10, 1000, 21_841], metavar="K")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="for each number")
    parser.add_argument("--to", type=Path, help="file for the numbers")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {num_classes: measure(num_classes, given.seconds) for num_classes in given.classes}
    table = Table("ms", *(f"K = {num_classes:,}" for num_classes in found))
    for name in next(iter(found.values())):
        table.add_row(name, *(f"{times[name]:.3f}" for times in found.values()))
    Console(width=100).print(table)
    if given.to is not None:
        content = {"ms": found, "threads": given.threads, "torch": torch.__version__}
        given.to.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
