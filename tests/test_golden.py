"""Loss curves of 20 steps, recorded once: a refactor must not move them. KDX_WRITE_GOLDEN=1 records them anew."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdx.networks import weights
from kdx.networks.network import Network

GOLDEN = Path(__file__).parent / "golden.json"
STEPS = ["trainer.max_epochs=-1", "trainer.max_steps=20", "trainer.log_every_n_steps=1", "test=false"]
# The setting of all four experiments when the curves were recorded, and a random teacher is not refused.
RECORDED_WITH = ["data=digits300", "optimizer.lr=0.001", "preflight=off"]


@pytest.mark.parametrize("experiment", ["cqkd_digits", "ctkd_digits", "funmatch_digits", "supervised_digits"])
def test_loss_curve_is_the_recorded_one(train: Callable[..., Path], tmp_path: Path, experiment: str) -> None:
    torch.manual_seed(0)
    teacher = Network("cifar_resnet8", 10, 1, mean=[0.3053], std=[0.376])  # those of digits, which its card then states
    weights.save(teacher.model, teacher.card, tmp_path / "teacher.safetensors")
    own = [f"teacher.checkpoint={tmp_path}/teacher.safetensors", "teacher.network.architecture=cifar_resnet8"]
    taught = [] if experiment == "supervised_digits" else own
    folder = train("run", f"experiment={experiment}", *RECORDED_WITH, *STEPS, *taught)
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 20
    recorded = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("KDX_WRITE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps({**recorded, experiment: [round(x, 6) for x in losses]}, indent=1, sort_keys=True) + "\n")
    else:
        assert losses == pytest.approx(recorded[experiment], rel=1e-4, abs=1e-5)
