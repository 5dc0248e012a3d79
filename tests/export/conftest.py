"""Finished runs without training: a student with weights that are not fresh, and what a run says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from kdx.networks import weights
from kdx.networks.network import Network

METRICS = {
    "val/student/accuracy": 0.8,
    "test/student/accuracy": 0.75,
    "test/student/nll": 0.5,
    "test/student_scaled/accuracy": 0.75,
    "test/student_scaled/nll": 0.4,
    "test/teacher/accuracy": 0.96,
    "calibration_temperature/student": 2.5,
}
CONFIG: dict[str, Any] = {
    "name": "demo",
    "seed": 7,
    "data": {"source": {"_target_": "kdx.data.digits.Digits", "root": "/where/it/was"}, "train_size": 300},
    "interpolation": {"student": "area"},
    "trainer": {"max_epochs": 3},
    "losses": {"kl": {}},
}


def lived_in(network: nn.Module) -> None:
    """Weights, biases and statistics that no layer could leave out unseen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if name.endswith(("weight", "running_var")) else noise - 0.5)


def write_run(folder: Path, architecture: str, num_classes: int, channels: int, side: int, **metrics: float) -> Path:
    """A finished run's folder, as kdx.experiment.train leaves it."""
    torch.manual_seed(0)
    network = Network(architecture, num_classes, channels, mean=(0.4,), std=(0.3,))
    lived_in(network.model)
    folder.mkdir(parents=True)
    weights.save(network.model, {**network.card, "resolution": side}, folder / "student.safetensors")
    crop = {"_target_": "kdx.views.crops.Center", "fraction": 0.875}
    config = {**CONFIG, "data": {**CONFIG["data"], "eval_crop": crop}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = {
        "metrics": {**METRICS, **metrics},
        "selection": {"rule": "best_val", "epoch": 2, "text": "epoch 2 of 3, the best val/student/accuracy"},
        "data": {"fingerprint": "f1n9er"},
        "provenance": {"git_commit": "c0ffee", "git_dirty": False},
    }
    (folder / "metrics.json").write_text(json.dumps(result))
    teacher = {
        "members": {"teacher": {"weights": "/secret/t.safetensors", "sha256": "5ha" * 20, "calibration_temperature": 1.5}}
    }
    (folder / "teacher.json").write_text(json.dumps(teacher))
    return folder


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Write a finished run: folder, architecture, classes, channels, side."""
    return write_run


@pytest.fixture
def digits_run(tmp_path: Path) -> Path:
    """A student of 1 channel and 4 px."""
    return write_run(tmp_path / "run", "cifar_resnet8", 10, 1, 4)


@pytest.fixture
def values() -> Callable[..., dict[str, Any]]:
    """The values of conf/export.yaml, as the command would have them."""
    text = (Path(__file__).parents[2] / "conf" / "export.yaml").read_text()
    shipped = {key: value for key, value in yaml.safe_load(text).items() if key not in ("defaults", "hydra")}
    return lambda run, **changed: {**shipped, "run": str(run), **changed}
