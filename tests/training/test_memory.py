"""Freed memory: steps after the first ones take none from the system."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from torch import nn
from kdx.training.memory import keep_freed_memory

keep_freed_memory()
network = nn.Sequential(*[nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(6)])
images = torch.rand(64, 16, 32, 32)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


for step in range(12):
    before = faults()
    network(images).mean().backward()
    if step >= 7:
        print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of its malloc")
def test_training_steps_take_no_memory_from_the_system_again() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    activations = 64 * 16 * 32 * 32 * 4 // 4096  # pages of one; without, several are taken again at each step
    assert statistics.median(int(line) for line in done.stdout.split()) < activations / 10
