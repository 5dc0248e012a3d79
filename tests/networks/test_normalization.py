"""One file of weights is normalized in one way, whether it is evaluated, teaches or is a start."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import formats
import pytest
import timm
import torch

from kdx.experiment import build
from kdx.experiment.assemble import load_teacher, make_distiller
from kdx.experiment.teacher import MemberWeights, key, teacher_run
from kdx.experiment.teacher_classes import Outputs
from kdx.networks import normalization

OWN, DATA, TIMMS = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)
STATED = {"mean": list(OWN[0]), "std": list(OWN[1])}


def write(folder: Path, num_classes: int, inside: dict[str, Any] | None = None, beside: dict[str, Any] | None = None) -> Path:
    """A file of test_resnet, whose published weights expect a mean and std of 0.5."""
    folder.mkdir(exist_ok=True)
    state = timm.create_model("test_resnet", num_classes=num_classes).state_dict()
    torch.save({"state_dict": state, **(inside or {})}, folder / "weights.pth")
    for name, content in (beside or {}).items():
        (folder / name).write_text(json.dumps(content))
    return folder / "weights.pth"


@pytest.mark.parametrize(
    ("arguments", "expected", "origin"),
    [
        ((3,), None, ""),  # trained anew, with a normalization that nobody knows
        ((1000,), TIMMS, "as published with test_resnet"),
        ((1000, None, {"config.json": {"num_classes": 1000, "pretrained_cfg": STATED}}), OWN, "as stated in config.json"),
        ((3, None, {"weights.json": {"num_classes": 3, "pretrained_cfg": STATED}}), OWN, "as stated in weights.json"),
        ((3, None, {"config.json": {"num_classes": 1000, **STATED}}), None, ""),  # of other weights
        ((3, {"args": argparse.Namespace(**STATED)}), OWN, "as stated in weights.pth"),
        ((3, {"args": argparse.Namespace(mean=None, std=None)}), None, ""),
        ((3, {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}), None, ""),  # not of images in [0,1]
        ((3, None, {"weights.json": ["no", "card"], "config.json": {"pretrained_cfg": 1, "mean": "a"}}), None, ""),
    ],
)
def test_what_weights_expect(tmp_path: Path, arguments: tuple, expected: Any, origin: str) -> None:
    file = write(tmp_path, *arguments)
    found = normalization.of_weights("test_resnet", file)
    assert found == (None if expected is None else normalization.Normalization(*expected, origin))
    first, *others = normalization.candidates("test_resnet", 3, DATA, file)
    assert (first.mean, first.std) == (expected or DATA)
    assert {(one.mean, one.std) for one in others} == {DATA, TIMMS} - {expected or DATA}


def test_gray_images_take_the_mean_of_the_channels(tmp_path: Path) -> None:
    first, *_ = normalization.candidates("test_resnet", 1, ((0.3,), (0.2,)), write(tmp_path, 3, STATED))
    assert (first.mean, first.std) == (pytest.approx((0.2,)), pytest.approx((0.5,)))


def test_an_architecture_without_published_weights_expects_nothing(tmp_path: Path) -> None:
    torch.save(timm.create_model("cifar_resnet8", num_classes=100).state_dict(), tmp_path / "a.pth")
    assert normalization.of_weights("cifar_resnet8", tmp_path / "a.pth") is None


@pytest.mark.parametrize(
    ("arguments", "stated", "expected"),
    [
        ((2,), [], DATA),
        ((2, STATED), [], OWN),
        ((2, STATED), ["mean=[0.5]"], (TIMMS[0], OWN[1])),
        ((2,), ["std=[0.5]"], (DATA[0], TIMMS[1])),
    ],
)
def test_evaluation_teacher_and_start_agree(
    arguments: tuple,
    stated: list[str],
    expected: Any,
    tmp_path: Path,
    config: Callable[..., Any],
    command: Callable[..., tuple[int, str, str]],
) -> None:
    for split in ("train", "val", "test"):
        formats.write_tree(tmp_path / "data" / split, {"a": 6, "b": 6})
    file, data = write(tmp_path / "weights", *arguments), ["data=imagefolder", f"data.root={tmp_path}/data"]
    for network in ([f"timm=test_resnet weights={file}"], [f"checkpoint={file} network=timm network.architecture=test_resnet"]):
        code, _, err = command(
            "evaluate", *network[0].split(), *data, *stated, "resolution=32", f"to={tmp_path}/to", "name=one"
        )
        assert code == 0 and "images are normalized with mean=" in err, err
        found = json.loads((tmp_path / "to" / "one.json").read_text())["of"]
        assert (found["mean"], found["std"]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    options = [*data, "experiment=none", "losses=[kd]", "resolution.student=32", "resolution.teacher=32", "teacher=online"]
    for path, start in (("teacher.network", f"teacher.checkpoint={file}"), ("student", f"student.init={file}")):
        own = [f"network@{path}=timm", f"{path}.architecture=test_resnet", start, *(f"{path}.{item}" for item in stated)]
        parts = build.parts(config(*options, *own))
        if path == "student":
            network = make_distiller(parts, None).student
        else:
            teacher = load_teacher(parts, 2, {"teacher": MemberWeights(file, Outputs(2))})
            assert teacher is not None
            network = teacher.network
            assert (expected not in [(one.mean, one.std) for one in teacher.alternatives]) and teacher.alternatives
            again = load_teacher(parts, 2, {"teacher": MemberWeights(file, Outputs(2), {"mean": [0.7], "std": [0.7]})})
            assert again is not None and again.network.colors[0] == pytest.approx((0.7,) * 3)  # as recorded in teacher.json
        assert network.colors == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_a_stored_teacher_depends_on_what_its_start_expects(tmp_path: Path, config: Callable[..., Any]) -> None:
    file = write(tmp_path / "weights", 7)
    network = ["network@teacher.network=timm", "teacher.network.architecture=test_resnet", f"teacher.network.init={file}"]
    cfg = config("teacher=finetune", *network)
    run, source = teacher_run(cfg, cfg.members["teacher"]), cfg.data.source
    before = key(run, {}, source)
    (tmp_path / "weights" / "config.json").write_text(json.dumps({"num_classes": 7, **STATED}))
    assert key(run, {}, source) != before
