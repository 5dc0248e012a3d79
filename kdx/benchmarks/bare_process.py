"""The bare loop alone in a process, for its start-up and memory: python -m kdx.benchmarks.bare_process NETWORKS TO BEGAN."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from kdx.networks.network import Network
from kdx.run.folder import peak_memory_mb
from kdx.training.bare_step import bare_step

STEPS = 8


def network(about: dict[str, Any]) -> Network:
    """Return a network with random weights as `BareLoop` describes it."""
    return Network(about["architecture"], about["num_classes"], about["shape"][1])


def train(networks: dict[str, dict[str, Any]], began: float) -> dict[str, float]:
    """Train `STEPS` steps on one random batch. Return the seconds from `began` to the first, and the peak memory in MiB."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = {role: network(about).to(device) for role, about in networks.items()}
    images = {role: torch.rand(about["shape"], device=device) for role, about in networks.items()}
    student, teacher = made["student"].train(), made["teacher"].eval() if "teacher" in made else None
    optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9)
    label = torch.zeros(len(images["student"]), dtype=torch.long, device=device)
    step = bare_step(student, teacher, optimizer, label)
    start_seconds = time.time() - began
    for _ in range(STEPS):
        step(images["student"], images.get("teacher", images["student"]))
    return {"start_seconds": start_seconds, "peak_memory_mb": peak_memory_mb()}


def main() -> None:
    """Train as the files and the time on the command line say."""
    networks, to, began = sys.argv[1:]
    Path(to).write_text(json.dumps(train(json.loads(networks), float(began))), encoding="utf-8")


if __name__ == "__main__":
    main()
