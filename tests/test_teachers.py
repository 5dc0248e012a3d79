"""Teachers and cohorts through the command: ensembles, chains of runs, self-distillation, students that teach each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Command = Callable[..., tuple[int, str, str]]
Train = Callable[..., Path]
SHORT_MEMBERS = [f"teacher.members.{name}.recipe.trainer.max_epochs=2" for name in "ab"]


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())["metrics"]


@pytest.fixture
def bare(command: Command, teachers: Path, tmp_path: Path) -> Train:
    """Train a short run without a short recipe for a single teacher."""

    def run(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        tiny = ["logger=none", "trainer=cpu", "trainer.max_epochs=2", "data.train_size=128"]
        code, _, err = command("train", *tiny, f"outputs={teachers}", f"hydra.run.dir={folder}", *overrides)
        assert code == 0, err
        return folder

    return run


@pytest.mark.long
@pytest.mark.parametrize(("combine", "views"), [("logits", "same_resize"), ("probs", "funmatch"), ("losses", "same_resize")])
def test_ensemble_of_different_networks_and_resolutions_trains_and_is_measured_again(
    bare: Train, command: Command, combine: str, views: str
) -> None:
    folder = bare(
        "run",
        "teacher=ensemble",
        f"teacher.combine={combine}",
        *SHORT_MEMBERS,
        "network@teacher.members.b.network=cifar_resnet8",
        "teacher.members.b.resolution=6",
        f"views={views}",
    )
    found = metrics(folder)
    cards = json.loads((folder / "teacher.json").read_text())["members"]
    assert cards["a"]["calibration_temperature"] != cards["b"]["calibration_temperature"]
    assert found["calibration_temperature_a"] == cards["a"]["calibration_temperature"]
    assert 0 <= found["preflight/teacher/disagreement"] <= 1
    assert found["preflight/teacher_a/accuracy"] != found["preflight/teacher_b/accuracy"]
    code, _, err = command("evaluate", f"run={folder}", "split=test")
    assert code == 0, err
    again = json.loads((folder / "evaluation-test.json").read_text())["metrics"]
    assert {name: value for name, value in again.items() if name.startswith("test/")} == pytest.approx(
        {name: value for name, value in found.items() if name.startswith("test/")}, rel=1e-9
    )


@pytest.mark.long
def test_a_student_teaches_the_next_one(train: Train, bare: Train) -> None:
    first = train("first", "resolution.student=6", "student.architecture=cifar_resnet14")
    second = bare("second", "teacher=run", f"teacher.run={first}", "calibration=none")
    config = yaml.safe_load((second / "config.yaml").read_text())
    assert config["teacher"]["network"]["architecture"] == "cifar_resnet14"
    assert config["resolution"]["teacher"] == 6
    for what in ("accuracy", "nll", "ece"):
        assert metrics(second)[f"test/teacher/{what}"] == pytest.approx(metrics(first)[f"test/student/{what}"], rel=1e-6)
    third = bare("third", "teacher=run", f"teacher.run={second}")
    assert metrics(third)["preflight/teacher_raw/nll"] == pytest.approx(metrics(second)["val/student/nll"], rel=1e-6)


@pytest.mark.long
def test_a_chain_can_have_members_too(train: Train, bare: Train) -> None:
    first = train("first")
    folder = bare("run", "teacher=ensemble", f"+teacher.members.a.run={first}", SHORT_MEMBERS[1])
    assert json.loads((folder / "teacher.json").read_text())["members"]["a"]["weights"] == str(first / "student.safetensors")


def test_a_run_without_weights_is_no_teacher(command: Command, train: Train) -> None:
    first = train("first")
    words = ("train", "logger=none", "teacher=run", f"teacher.run={first}")
    code, _, err = command(*words, "teacher.resolution=16")
    assert code == 2 and "was trained at 4 px: use teacher.resolution=null" in err
    (first / "student.safetensors").unlink()
    code, _, err = command(*words)
    assert code == 2 and "has no student.safetensors: the run is not finished" in err


@pytest.mark.long
def test_self_distillation_trains_the_students_own_network_first(train: Train) -> None:
    folder = train("run", "teacher=self", "student.architecture=cifar_resnet14")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["teacher"]["network"] == config["student"]
    assert config["resolution"] == {"teacher": 4, "student": 4}
    found = metrics(folder)
    assert found["teacher/parameters"] == found["student/parameters"]


@pytest.mark.parametrize("peers", ["dml", "dml_e"])
def test_cohort_of_different_networks_trains_and_is_measured_again(bare: Train, command: Command, peers: str) -> None:
    own = ["teacher=none", "calibration=none", "temperature=constant_1", "losses=[kd]", "callbacks=none", "selection=last"]
    folder = bare("run", f"peers={peers}", *own, "+network@peers.members.b=cifar_resnet14")
    found = metrics(folder)
    assert found["peer_b/parameters"] > found["peer_a/parameters"] == found["student/parameters"]
    assert found["test/peer_a/nll"] != found["test/student/nll"]  # they started from different weights
    assert {"test/peer_b/accuracy", "test/peer_b/ece", "test/peer_b/kl", "val/peer_a/agreement", "test/kl"} <= set(found)
    code, _, err = command("evaluate", f"run={folder}", "split=test")
    assert code == 0, err
    again = json.loads((folder / "evaluation-test.json").read_text())["metrics"]
    assert again["test/peer_b/nll"] == pytest.approx(found["test/peer_b/nll"], rel=1e-9)


def test_students_of_a_cohort_are_back_in_train_mode_after_validation(
    config: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CQKD's code validated its cohort in eval mode and never left it: BatchNorm stood still from the first step on."""
    from kdx.experiment import build
    from kdx.experiment.train import train
    from kdx.run.folder import RunFolder
    from kdx.training.module import DistillationModule

    modes: list[bool] = []
    step = DistillationModule.training_step

    def watched(self: DistillationModule, batch: object, number: int) -> object:
        modes.append(all(part.training for part in self.distiller.modules()))
        return step(self, batch, number)

    monkeypatch.setattr(DistillationModule, "training_step", watched)
    own = ["teacher=none", "calibration=none", "temperature=constant_1", "logger=none", "trainer=cpu", "data.train_size=128"]
    cfg = config("peers=dml", *own, "trainer.max_epochs=2")
    train(build.parts(cfg), RunFolder(tmp_path / "run"), quiet=True)
    assert len(modes) == 4 and all(modes)


def test_a_teacher_that_is_to_see_the_students_pixels_does_so_also_where_no_view_is_drawn(train: Train) -> None:
    """With views=same_resize the teacher's answers are stored; those would be of its own pixels."""
    own, students = (train(view, f"data.teacher_view={view}", "views=same_resize") for view in ("full", "student"))
    assert metrics(own)["preflight/teacher/nll"] == metrics(students)["preflight/teacher/nll"]
    assert metrics(own)["test/student/nll"] != metrics(students)["test/student/nll"]
