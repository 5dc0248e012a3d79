"""Finished runs without training: a student with weights that are not fresh, and what a run says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from torch import nn

from kdx.config.check import check, conf_dir
from kdx.config.schema import to_plain
from kdx.data.digits import Digits
from kdx.data.splits import carve
from kdx.experiment.students import student_card
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


WORDS = ("experiment=none", "data=digits", "teacher=none", "calibration=none", "losses=[ce]", "temperature=none")
WORDS += ("student.architecture=cifar_resnet8", "resolution.student=8", "resolution.teacher=8", "data.train_size=300")


def images_and_labels(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N,1,8,8] in [0,1] and labels of a split of the digits, carved as in `fitted_run`."""
    images = carve(Digits().splits(), val=0.2, test=0.3, train_size=300, seed=0)[name]
    return np.stack([images[i] for i in range(len(images))]).astype(np.float32) / 255, images.labels


@pytest.fixture(scope="session")
def digits_split() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """The images and labels of a split of the digits."""
    return images_and_labels


@pytest.fixture(scope="session")
def fitted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, with their config, whose student has random features and a last layer that fits them."""
    place = tmp_path_factory.mktemp("fitted") / "run"
    place.mkdir()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = check(compose("train", list(WORDS)))
    torch.manual_seed(0)
    # With a mean of 0.3, each pixel would be in the middle of two numbers of int8.
    network = Network("cifar_resnet8", 10, 1, mean=(0.31,), std=(0.4,)).train()
    images, labels = images_and_labels("train")
    features: list[torch.Tensor] = []
    network.model.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
    with torch.no_grad():
        for _ in range(30):  # the statistics of BatchNorm
            network(torch.from_numpy(images))
        network.eval()(torch.from_numpy(images))
    fitted = LogisticRegression(C=10, max_iter=5000).fit(features[-1].numpy(), labels)
    with torch.no_grad():
        network.model.fc.weight.copy_(torch.from_numpy(fitted.coef_))
        network.model.fc.bias.copy_(torch.from_numpy(fitted.intercept_))
    weights.save(network.model, student_card(network, config, [f"digit {i}" for i in range(10)]), place / "student.safetensors")
    OmegaConf.save(OmegaConf.create(to_plain(config)), place / "config.yaml")
    result = {"metrics": {"test/student/accuracy": 0.5, "calibration_temperature/student": 2.0}, "selection": {}}
    (place / "metrics.json").write_text(json.dumps(result))
    return place


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
