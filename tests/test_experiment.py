"""Whole runs through the command line: what they leave behind, and that it can be trusted."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import DictConfig

import kdx.networks.cifar  # noqa: F401 - registers its architectures with timm
from kdx.data.digits import Digits

Command = Callable[..., tuple[int, str, str]]
TIMING = {"train/images_per_second"}


def metrics(folder: Path) -> dict[str, float]:
    """The final metrics of a run."""
    return json.loads((folder / "metrics.json").read_text())["metrics"]


def curve(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without its timing columns."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(file)]


def test_run_leaves_everything_behind_and_evaluate_reproduces_it_exactly(train: Callable[..., Path], command: Command) -> None:
    folder = train("run")
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "metrics.json", "metrics.csv", "student.safetensors", "student.json", "train.log"} <= names
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    final = json.loads((folder / "metrics.json").read_text())
    for who in ("student", "teacher"):
        assert {f"test/{who}/{what}" for what in ("accuracy", "ece", "entropy", "nll", "brier", "top5")} <= set(
            final["metrics"]
        )
    assert {"test/agreement", "test/kl", "calibration_temperature", "images_per_second"} <= set(final["metrics"])
    assert final["selection"]["rule"] == "best_val"
    assert {"git_commit", "versions", "hardware", "command"} <= set(final["provenance"])
    for split in ("test", "val"):
        assert command("evaluate", f"run={folder}", f"split={split}")[0] == 0
        again = json.loads((folder / f"evaluation-{split}.json").read_text())["metrics"]
        measured = {k: v for k, v in final["metrics"].items() if k.startswith(f"{split}/")}
        assert measured == {k: v for k, v in again.items() if k.startswith(f"{split}/")}


def test_the_student_file_loads_in_plain_timm(train: Callable[..., Path]) -> None:
    folder = train("run", "experiment=supervised_digits", "resolution.student=8")
    card = json.loads((folder / "student.json").read_text())
    model = timm.create_model(card["architecture"], checkpoint_path=folder / "student.safetensors", **card["model_args"])
    mean, std = (torch.tensor(card["pretrained_cfg"][key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    images = Digits().splits()["train"].images
    logits = model.eval()((torch.from_numpy(images).float() / 255 - mean) / std)
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    own = {k.removeprefix("distiller.student.model."): v for k, v in state.items() if "student.model." in k}
    assert own.keys() == model.state_dict().keys()
    assert all(torch.equal(own[k], v) for k, v in model.state_dict().items())
    assert logits.shape == (1797, 10)


def test_checkpoints_hold_student_and_temperature_but_no_teacher(train: Callable[..., Path]) -> None:
    folder = train("run", "experiment=ctkd_digits")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert "distiller.temperature.raw" in state
    assert not [name for name in state if "teacher" in name]


def test_same_seed_gives_bitwise_the_same_curve(train: Callable[..., Path]) -> None:
    first, second = train("a", "experiment=funmatch_digits"), train("b", "experiment=funmatch_digits")
    assert curve(first) == curve(second)
    assert curve(first) != curve(train("c", "experiment=funmatch_digits", "seed=1"))


def test_workers_do_not_change_a_run(train: Callable[..., Path]) -> None:
    streamed = [train(f"w{n}", "data.loader=streamed", f"data.num_workers={n}", "trainer.max_epochs=1") for n in (0, 2)]
    resident = train("resident", "trainer.max_epochs=1")
    assert curve(streamed[0]) == curve(streamed[1])
    loss = [float(curve(folder)[-2]["train/loss"]) for folder in (streamed[0], resident)]
    assert loss[0] == pytest.approx(loss[1], abs=0.02)  # workers ship uint8: pixels differ by up to 1/255


def test_epochs_are_counted_alike_everywhere(train: Callable[..., Path]) -> None:
    """The epoch of the selection has the best value in the curves, and the last epoch is the number of epochs."""
    folder = train("run", "trainer.max_epochs=3")
    rows = [row for row in curve(folder) if row["val/student/accuracy"]]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert {int(row["epoch"]) for row in curve(folder) if row.get("train/loss")} == {1, 2, 3}
    selection = json.loads((folder / "metrics.json").read_text())["selection"]
    values = {int(row["epoch"]): float(row["val/student/accuracy"]) for row in rows}
    assert values[selection["epoch"]] == max(values.values()) == pytest.approx(metrics(folder)["val/student/accuracy"])
    assert selection["text"].startswith(f"epoch {selection['epoch']} of 3")


def test_the_time_of_a_run_is_without_its_teachers(train: Callable[..., Path], tmp_path: Path) -> None:
    fresh = f"outputs={tmp_path}/fresh"
    first, second = metrics(train("first", fresh)), metrics(train("second", fresh))
    assert first["teacher_seconds"] > 0 and "teacher_seconds" not in second
    teacher = next((tmp_path / "fresh" / "teachers").glob("*/metrics.json")).parent
    assert metrics(teacher)["seconds"] <= first["teacher_seconds"]


@pytest.mark.parametrize(
    ("at", "number", "status"),
    [(3, signal.SIGTERM, 143), (5, signal.SIGINT, 130), (7, signal.SIGTERM, 143), (11, signal.SIGINT, 130)],
    ids=["end of epoch", "mid-epoch", "end of second epoch", "end of training"],
)
def test_a_run_that_was_stopped_goes_on_bitwise_as_if_it_had_not_been(
    train: Callable[..., Path],
    command: Command,
    interrupted: Callable[..., AbstractContextManager[None]],
    teachers: Path,
    tmp_path: Path,
    tiny: tuple[str, ...],
    at: int,
    number: signal.Signals,
    status: int,
) -> None:
    options = [
        "experiment=ctkd_digits",
        "teacher.recipe.trainer.max_epochs=2",
        "+student.args.drop_rate=0.2",
        "trainer.max_epochs=3",
    ]
    whole, part = train("whole", *options), tmp_path / "part"
    with interrupted(at, number):
        code, _, err = command("train", *tiny, f"outputs={teachers}", f"hydra.run.dir={part}", *options)
    assert code == status and f"--config-name=rerun hydra.run.dir={part}" in err
    saved = torch.load(part / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert saved == at + 1 and not (part / "metrics.json").exists()
    assert train("part", *options) == part
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (whole, part)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (whole / "student.safetensors").read_bytes() == (part / "student.safetensors").read_bytes()
    assert curve(whole) == curve(part)  # every row once, also of the window in which the run was stopped


@pytest.mark.long
def test_multirun_makes_a_run_per_job_and_trains_the_teacher_once(
    command: Command, tmp_path: Path, teachers: Path, tiny: tuple[str, ...]
) -> None:
    jobs = ["experiment=cqkd_digits,ctkd_digits", "seed=0,1", "teacher.recipe.trainer.max_epochs=2"]
    overrides = [*tiny, f"outputs={teachers}", f"hydra.sweep.dir={tmp_path}/sweep", *jobs, "logger=wandb"]
    code, _, err = command("train", "-m", *overrides)
    assert code == 0, err
    folders = sorted((tmp_path / "sweep").glob("*-*"))
    assert [f.name for f in folders] == ["0-cqkd_digits", "1-cqkd_digits", "2-ctkd_digits", "3-ctkd_digits"]
    runs = [next(folder.glob("wandb/offline-run-*/run-*.wandb")) for folder in folders]
    assert len({run.name for run in runs}) == 4
    leet = Path(sys.executable).parent / "wandb"
    for folder, run in zip(folders, runs, strict=True):
        done = subprocess.run([leet, "leet", "inspect", "--json", run.parent], capture_output=True, text=True, check=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        text = json.dumps(records)
        assert list(run.parent.glob("files/media/images/views*.png"))
        assert "test/student/ece" in text and "val/student/accuracy" in text and '"sweep"' in text
        assert metrics(folder)["test/student/accuracy"] > 0


def test_trained_teacher_is_reused_and_another_recipe_is_another_teacher(train: Callable[..., Path], teachers: Path) -> None:
    train("a")
    before = {p: p.stat().st_mtime_ns for p in teachers.glob("teachers/*/student.safetensors")}
    train("b", "seed=5", "losses.kl.weight=0.1", "temperature.value=2", "optimizer.lr=0.01")
    assert before == {p: p.stat().st_mtime_ns for p in teachers.glob("teachers/*/student.safetensors")}
    train("c", "teacher.recipe.seed=7")
    assert len(list(teachers.glob("teachers/*/student.safetensors"))) == len(before) + 1


def test_teacher_from_a_checkpoint_keeps_its_weights_and_is_recorded(train: Callable[..., Path]) -> None:
    from kdx.networks.network import Network
    from kdx.networks.weights import digest

    first = train("teacher", "experiment=supervised_digits", "resolution.student=8", "student.architecture=cifar_resnet14")
    file = first / "student.safetensors"
    folder = train("student", f"teacher.checkpoint={file}", "teacher.network.architecture=cifar_resnet14")
    network = Network("cifar_resnet14", 10, 1)
    from kdx.networks.weights import load

    load(network.model, file)
    assert json.loads((folder / "teacher.json").read_text())["members"]["teacher"]["sha256"] == digest(network.model)
    assert metrics(folder)["preflight/teacher_raw/accuracy"] == metrics(first)["val/student/accuracy"]


@pytest.mark.parametrize(("flip", "expected"), [("null", True), ("true", True), ("false", False)])
def test_mirroring_is_the_data_sets_unless_the_config_says_otherwise(
    config: Callable[..., DictConfig], flip: str, expected: bool
) -> None:
    from kdx.experiment import build

    parts = build.unchecked(config("experiment=none", "data=fashion_mnist", "data.root=nowhere", f"data.flip={flip}"))
    assert parts.source.flip and parts.flip is expected


@pytest.mark.parametrize("temperature", ["curriculum", "curriculum_instance", "per_network", "standardized"])
def test_a_temperature_leaves_its_curve(train: Callable[..., Path], temperature: str) -> None:
    rows = curve(train("run", "experiment=ctkd_digits", f"temperature={temperature}"))
    columns = set(rows[0])
    if temperature.startswith("curriculum"):
        spread = {f"train/temperature{suffix}" for suffix in ("_min", "_max", "_std")}
        assert {"train/temperature", "train/lambda", "train/temperature_gradient"} <= columns
        assert (spread <= columns) == (temperature == "curriculum_instance")
        assert any(float(row["train/temperature_gradient"]) > 0 for row in rows if row.get("train/temperature_gradient"))
    else:
        assert {"train/temperature_teacher", "train/temperature_student"} <= columns


def test_a_stuck_temperature_is_said_once(command: Command, teachers: Path) -> None:
    own = ["experiment=ctkd_digits", "temperature.raw=12", "logger=none", "trainer=cpu", "trainer.max_epochs=2"]
    code, out, err = command("train", *own, f"outputs={teachers}", "teacher.recipe.trainer.max_epochs=2")
    told = [line for line in (out + err).splitlines() if "is stuck at the end of its range" in line]
    assert code == 0 and len(told) == 1 and "raise temperature.span" in told[0]


def test_a_teacher_that_runs_at_its_own_size_only_is_not_measured_at_the_students(command: Command, tmp_path: Path) -> None:
    vit = "{img_size: 8, patch_size: 4, embed_dim: 24, depth: 1, num_heads: 2}"
    network = [
        "network@teacher.network=timm",
        "teacher.network.architecture=vit_tiny_patch16_224",
        f"+teacher.network.args={vit}",
    ]
    short = ["logger=none", "trainer=cpu", "trainer.max_epochs=1", "teacher.recipe.trainer.max_epochs=1", "preflight=warn"]
    code, out, err = command("train", *network, *short, f"outputs={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    assert "The teacher does not run at the student's 4 px, and is not measured there" in out + err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert "test/teacher/nll" in metrics and not any("teacher_at_student_resolution" in name for name in metrics)
    code, out, err = command("evaluate", f"run={tmp_path / 'run'}")
    assert code == 0, err
