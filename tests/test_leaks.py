"""A teacher that may know the images of test or val is found, and the numbers of its students carry the caveat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import formats
import pytest

from kdx.config.schema import RunConfig
from kdx.experiment import build
from kdx.experiment.data import read_splits
from kdx.experiment.leaks import OF_RUN_SAW_TEST, SAW_TEST, SAW_VAL, leaks
from kdx.networks import weights
from kdx.networks.network import Network

Config = Callable[..., RunConfig]
Command = Callable[..., tuple[int, str, str]]


def kinds(config: RunConfig) -> set[str]:
    parts = build.parts(config)
    return {fault.kind for fault in leaks(parts, read_splits(parts.config.data, parts.source))}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights from elsewhere, for ten classes."""
    network = Network("cifar_resnet8", 10, 1)
    weights.save(network.model, {"architecture": "cifar_resnet8"}, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def outside(file: Path) -> list[str]:
    return ["teacher.network.architecture=cifar_resnet8", f"teacher.checkpoint={file}"]


def test_a_teacher_of_the_same_splits_knows_neither(config: Config) -> None:
    assert not kinds(config())
    assert not kinds(config("experiment=none", "teacher=none", "losses=[ce]", "calibration=none"))


def test_weights_from_elsewhere_may_know_all_of_train(config: Config, file: Path) -> None:
    assert kinds(config(*outside(file), "calibration=temperature")) == {SAW_TEST, SAW_VAL}
    assert kinds(config(*outside(file), "calibration=none")) == {SAW_TEST}
    start = ["teacher=finetune", "teacher.network.architecture=cifar_resnet8", "teacher.network.pretrained=false"]
    assert SAW_TEST in kinds(config(*start, f"teacher.network.init={file}"))
    assert SAW_TEST in kinds(config("teacher=ensemble", f"+teacher.members.a.checkpoint={file}"))


def test_a_recipe_with_other_splits_knows_them(config: Config) -> None:
    assert SAW_TEST in kinds(config("+teacher.recipe.data.split_seed=7"))
    assert not kinds(config("data.train_size=100"))  # the teacher gets all images of train, and none of test


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "test"), {SAW_VAL}),
        (("train", "val"), set()),
        (("train", "val", "test"), set()),
        (("train",), {SAW_TEST, SAW_VAL}),
    ],
)
def test_only_splits_that_are_carved_from_train_are_in_doubt(
    splits: tuple[str, ...], expected: set[str], config: Config, tmp_path: Path
) -> None:
    for k, split in enumerate(splits):
        formats.write_tree(tmp_path / "data" / split, {"ant": 20, "bee": 20}, first=100 * k, ending="jpg")
    network = Network("cifar_resnet8", 2, 3)
    weights.save(network.model, {}, tmp_path / "own.safetensors")
    data = ["experiment=none", "data=imagefolder", f"data.root={tmp_path / 'data'}", "data.batch_size=8"]
    assert kinds(config(*data, *outside(tmp_path / "own.safetensors"), "calibration=temperature")) == expected


def test_the_caveat_stands_in_the_results_and_is_inherited(
    config: Config, command: Command, file: Path, tmp_path: Path
) -> None:
    tiny = ["logger=none", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "preflight=warn"]
    tiny += ["teacher.recipe.trainer.max_epochs=1", f"outputs={tmp_path}", "calibration=none", "callbacks=none"]
    for name, teacher in {"outside": outside(file), "own": ["teacher=none", "experiment=none", "losses=[ce]"]}.items():
        own = [word for word in tiny if not (name == "own" and word.startswith("teacher."))]
        code, out, err = command("train", *own, *teacher, f"hydra.run.dir={tmp_path / name}")
        assert code == 0, err
        found = json.loads((tmp_path / name / "metrics.json").read_text())["caveats"]
        assert (SAW_TEST in found) == (name == "outside")
        assert ("may have been trained on images of test" in out + err) == (name == "outside")
    by_run = {name: ["teacher=run", f"teacher.run={tmp_path / name}", "calibration=none"] for name in ("outside", "own")}
    parts = build.parts(config(*by_run["outside"]))
    [inherited] = leaks(parts, read_splits(parts.config.data, parts.source))
    assert inherited.kind == OF_RUN_SAW_TEST and f"on that run's test images ({tmp_path / 'outside'})" in inherited.text
    assert "data set has no" not in inherited.text  # which is that of the other run
    assert kinds(config(*by_run["own"])) == set()
    assert kinds(config(*by_run["own"], "data.split_seed=3")) == {SAW_TEST}
    (tmp_path / "own" / "metrics.json").write_text("{}")
    assert kinds(config(*by_run["own"])) == {SAW_TEST}  # nothing is known of it
