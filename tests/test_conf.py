"""Every option of every group composes, passes the check and fits its constructors; every experiment takes steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from kdx.config.check import conf_dir
from kdx.config.mounted import MOUNTED
from kdx.experiment import build


def ships(experiment: str) -> bool:
    """Whether an experiment brings its data."""
    return experiment == "none" or experiment.endswith(("_digits", "_glyphs"))


# tests/test_recipes.py has pairs, patience and the experiments that need data; tests/evidence has the claims,
# tests/test_evaluation.py the shifts.
ELSEWHERE = ("hydra", "local", "pair", "patience", "evidence", "shift")
GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in ELSEWHERE)
EXPERIMENTS = [name for name in sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml")) if ships(name)]
PRETRAINED = ["network@teacher.network=timm", "teacher.network.architecture=resnet18", "teacher.network.pretrained=true"]
DISTILLED = ["network@student=timm", "student.architecture=deit_tiny_distilled_patch16_224"]
# What an option needs beside itself to make sense.
COMPANIONS = {
    "teacher=finetune": PRETRAINED,
    "teacher=probe": PRETRAINED,
    "teacher=none": ["temperature=none", "losses=[ce]"],
    "peers=dml": ["teacher=none"],
    "peers=dml_e": ["teacher=none"],
    "temperature=none": ["teacher=none", "losses=[ce]"],
    "losses=ce": ["teacher=none"],
    "losses=deit": DISTILLED,
    "losses=deit_soft": DISTILLED,
    "losses=virtual": ["teacher=none"],
    "losses=tfkd": ["teacher=none"],
    "calibration=temperature": [],
    "network@student=timm": ["student.architecture=resnet18"],
    "callbacks=none": ["selection=last"],
    "trainer=ddp": ["trainer.accelerator=cpu"],
}


def options() -> list[str]:
    """All `group=option`, as typed on the command line; base.yaml is not an option but what the others share."""
    found = []
    for group in GROUPS:
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            if path.stem != "base" and (group != "experiment" or path.stem in EXPERIMENTS):
                found.append(f"{f'{group}@{MOUNTED[group][0]}' if group in MOUNTED else group}={path.stem}")
    return found


@pytest.mark.parametrize("option", options())
def test_option_composes_and_fits_its_constructors(config: Callable[..., DictConfig], option: str) -> None:
    if option == "trainer=gpu" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    if option == "optimizer=kron":
        pytest.importorskip("pytorch_optimizer")
    if option == "teacher=run":  # wants a finished run, which tests/test_teachers.py has
        return
    text = option.replace("=", "=[") + "]" if option.startswith(("losses=", "metrics=")) else option
    experiment = [] if option.startswith("experiment") else ["experiment=none"]
    if option.startswith("data=") and "digits" not in option and "glyphs" not in option:  # tests/test_formats.py has files
        config(*experiment, text, "data.root=somewhere")
        return
    build.parts(config(*experiment, text, *COMPANIONS.get(option, [])))


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_option_file_is_short(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    exceptions = {"train.yaml": 61, "evidence.yaml": 30, "evaluate.yaml": 40, "trainer/auto.yaml": 20, "data/base.yaml": 24}
    claims = 120 if path.parent.name == "family" else 13
    assert len(lines) <= exceptions.get(f"{path.parent.name}/{path.name}", exceptions.get(path.name, claims))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_takes_steps(train: Callable[..., Path], experiment: str) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "rehearsal=true"]  # of the teacher, too
    folder = train("run", f"experiment={experiment}", *short)
    assert (folder / "metrics.json").is_file()


@pytest.mark.parametrize("debug", ["default", "fdr", "limit", "profiler"])
def test_debug_option_runs(train: Callable[..., Path], debug: str) -> None:
    assert (train("run", f"debug={debug}", "trainer.max_epochs=1") / "metrics.json").is_file()


def test_local_options_come_from_a_folder_of_the_users(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "temperature"
    mine.mkdir(parents=True)
    (mine / "warm.yaml").write_text("_target_: kdx.temperatures.schedules.Constant\nvalue: 7.5\n")
    for where in ([f"--config-dir={tmp_path}/mine"], [f"hydra.searchpath=[file://{tmp_path}/mine]"]):
        code, out, _ = command("train", *where, "experiment=none", "temperature=warm", "--cfg", "job")
        assert code == 0
        assert "value: 7.5" in out
