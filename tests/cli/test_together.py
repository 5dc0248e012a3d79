"""Jobs of a sweep: to the last bit those of separate runs; in lock-step, with one forward pass of the teacher for all."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdx.cli.train import in_full
from kdx.data.resident import Resident
from kdx.data.source import Images
from kdx.teachers.teacher import OnlineTeacher
from kdx.training import datamodule
from kdx.training.module import DistillationModule

Command = Callable[..., tuple[int, str, str]]
Sweep = Callable[..., tuple[int, str, Path]]
TIMES = ("second", "latency", "memory", "joules", "teacher_share")
TWO = ("student.architecture=cifar_resnet8,cifar_resnet14",)
SHORT = ("data=digits300", "teacher.recipe.trainer.max_epochs=2")


@pytest.fixture
def sweep(command: Command, teachers: Path, tiny: tuple[str, ...], tmp_path: Path) -> Sweep:
    """Run a sweep into a folder of the test: (exit status, stderr, folder)."""

    def run(name: str, *words: str) -> tuple[int, str, Path]:
        folder = tmp_path / name
        code, _, err = command("train", "-m", *tiny, *SHORT, f"outputs={teachers}", f"hydra.sweep.dir={folder}", *words)
        return code, err, folder

    return run


def results(folder: Path) -> dict[str, Any]:
    """All that a run leaves behind but times: weights, final metrics, selection, curves."""

    def timeless(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not any(time in name for time in TIMES)}

    report = json.loads((folder / "metrics.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        curves = [timeless(row) for row in csv.DictReader(file)]
    kept = {name: report[name] for name in ("selection", "last", "caveats", "data")}
    weights = (folder / "student.safetensors").read_bytes()
    return {"metrics": timeless(report["metrics"]), "curves": curves, "weights": weights, **kept}


def jobs(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("*/metrics.json"))


def same(together: Path, separate: Path, count: int) -> None:
    assert len(jobs(separate)) == count
    for folder in jobs(separate):
        assert results(together / folder.name) == results(folder), folder.name


@contextmanager
def counted() -> Iterator[list[int]]:
    """The sizes of the batches that a teacher saw in training steps."""
    seen: list[int] = []
    original, step = OnlineTeacher.logits, DistillationModule.training_step
    inside = [False]

    def logits(self: OnlineTeacher, images: Tensor) -> Tensor:
        if inside[0]:
            seen.append(len(images))
        return original(self, images)

    def training_step(self: DistillationModule, *args: Any) -> Tensor:
        inside[0] = True
        try:
            return step(self, *args)
        finally:
            inside[0] = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnlineTeacher, "logits", logits)
        patch.setattr(DistillationModule, "training_step", training_step)
        yield seen


SETTINGS = {
    "mixup": ("experiment=funmatch_digits", "temperature=constant", "losses=[kl,ce]", "optimizer.lr=0.001,0.003"),
    "repeated epochs": (
        "experiment=funmatch_digits",
        "temperature=constant",
        "views.distinct_epochs=1",
        "optimizer.lr=0.001,0.003",
    ),
    "independent views, several resolutions": ("views=ind", "resolution.student=4,6", "temperature.value=1,4"),
    "stored targets": ("views=fix", *TWO),
    "features": ("losses=[kl,sp]", *TWO),
    "dropout": ("views=same", "+student.args.drop_rate=0.3", "student.architecture=resnet10t", "seed=0,1"),
    "streamed": ("views=same", "data.loader=streamed", *TWO),
    "kept answers": ("views=same", "teacher_cache={kept}", *TWO),
}
"""Words of a sweep of two or four jobs."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "mixup" else pytest.mark.long) for name in SETTINGS])
def test_jobs_together_are_those_of_a_sweep_one_after_the_other(sweep: Sweep, tmp_path: Path, name: str) -> None:
    words = SETTINGS[name]
    code, err, separate = sweep("separate", *(word.format(kept=tmp_path / "kept 1") for word in words))
    assert code == 0, err
    count = len(jobs(separate))
    with counted() as seen:
        code, err, together = sweep("together", *(word.format(kept=tmp_path / "kept 2") for word in words), "launcher=together")
    assert code == 0, err
    same(together, separate, count)
    steps = 2 * (300 // 64)
    runs = {"stored targets": 0, "features": count, "dropout": count}.get(name, 1)
    assert seen == [64] * steps * runs
    if name == "mixup":
        shares = [json.loads((path / "metrics.json").read_text())["metrics"]["teacher_share"] for path in jobs(together)]
        assert shares[0] > 0 and shares[1:] == [0.0]  # the first has asked for all


def test_jobs_one_after_the_other_share_what_is_equal_and_are_runs_by_themselves(
    sweep: Sweep, command: Command, teachers: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone"
    words = (*tiny, *SHORT, f"outputs={teachers}", f"hydra.run.dir={alone}", "temperature.value=4")
    assert command("train", *words)[0] == 0  # and now the teacher is there
    decoded, decode = list[Images](), datamodule.resident

    def counted(images: Images, *how: Any) -> Resident | None:
        decoded.append(images)
        return decode(images, *how)

    monkeypatch.setattr(datamodule, "resident", counted)
    assert sweep("jobs", "temperature.value=1,4")[0] == 0
    assert len(decoded) == 3  # train, val and test for both
    first, second = jobs(tmp_path / "jobs")
    assert results(second) == results(alone)
    latencies = [json.loads((job / "metrics.json").read_text())["metrics"]["student/latency_ms_1"] for job in (first, second)]
    assert latencies[0] == latencies[1]


@pytest.mark.long
def test_a_job_whose_loss_is_nan_leaves_the_others(sweep: Sweep) -> None:
    words = ("optimizer.lr=1e30,0.001", "optimizer=sgd", "trainer.log_every_n_steps=1", "test=false")
    code, err, together = sweep("together", *words, "launcher=together")
    assert code == 1 and "0-cqkd_digits failed (NonFiniteLossError: Loss is not finite at step" in err, err
    code, err, separate = sweep("separate", *words)
    assert code == 1
    same(together, separate, 1)
    own = (together / "1-cqkd_digits/train.log").read_text()
    assert "NonFinite" not in own and "failed" not in own
    assert "failed" in (together / "0-cqkd_digits/train.log").read_text()


@pytest.mark.long
def test_an_interrupted_sweep_goes_on(sweep: Sweep, interrupted: Callable[..., AbstractContextManager[None]]) -> None:
    words = ("views=same", "temperature.value=1,4", "test=false")
    code, err, separate = sweep("separate", *words)
    assert code == 0, err
    with pytest.MonkeyPatch.context() as patch, interrupted(5, signal.SIGINT):
        kill, sent = os.kill, []
        patch.setattr(os, "kill", lambda *signal: sent or (sent.append(signal), kill(*signal)))  # the second would not wait
        code, err, together = sweep("together", *words, "launcher=together")
    assert code == 130, err
    for number in (0, 1):
        checkpoint = torch.load(together / f"{number}-cqkd_digits/checkpoints/last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 6
    shutil.rmtree(together / "1-cqkd_digits/checkpoints")  # so one begins again, and the other waits for it
    with counted() as seen:
        code, err, _ = sweep("together", *words, "launcher=together")
    assert code == 0, err
    same(together, separate, 2)
    assert len(seen) == 2 * (300 // 64)
    code, err, _ = sweep("together", *words, "launcher=together")
    assert code == 0 and "Skipped 0-cqkd_digits: finished" in err


@pytest.mark.long
def test_a_second_interrupt_ends_all_jobs_at_once(
    sweep: Sweep, interrupted: Callable[..., AbstractContextManager[None]]
) -> None:
    handler, kill, sent = signal.getsignal(signal.SIGINT), os.kill, list[Any]()
    with pytest.MonkeyPatch.context() as patch, interrupted(5, signal.SIGINT):
        patch.setattr(
            os, "kill", lambda *signal: len(sent) == 2 or (sent.append(signal), kill(*signal))
        )  # in the first two jobs
        code, err, together = sweep("together", "views=same", "temperature.value=1,4,8", "test=false", "launcher=together")
    assert code == 130 and "failed" not in err, err
    files = sorted(together.glob("*/checkpoints/last.ckpt"))
    steps = [torch.load(file, weights_only=True)["global_step"] for file in files]
    assert steps == [6, 4, 4]  # the first had written its checkpoint; the others have that of their epoch
    assert signal.getsignal(signal.SIGINT) is handler


def test_jobs_with_other_seeds_are_not_together_and_ranks_are_refused(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdx.cli.together import TogetherLauncher

    groups: list[list[str]] = []
    monkeypatch.setattr(TogetherLauncher, "_train", lambda self, jobs: groups.append([job.name for job in jobs]))
    words = ("temperature.value=1,2,4", "seed=0,1", "launcher=together", "hydra.launcher.jobs=2")  # the seed varies fastest
    sweep("seeds", *words)
    assert [[int(name.split("-")[0]) for name in group] for group in groups] == [[0, 2], [4], [1, 3], [5]]
    code, err, _ = sweep("ranks", "seed=0,1", "launcher=together", "trainer.devices=2", "trainer.strategy=ddp")
    assert code == 2 and "trains on one device in one process, and 0-cqkd_digits has trainer.devices=2" in err
    assert not [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    code, err, _ = sweep("compiled", "seed=0,1", "launcher=together", "compile=teacher")
    assert code == 2 and "0-cqkd_digits has compile=teacher; use compile=null and not speed=max, or launcher=basic" in err
    code, err, _ = sweep("none", "seed=0,1", "launcher=together", "hydra.launcher.jobs=0")
    assert code == 2 and "hydra.launcher.jobs=0: expected at least 1" in err


def test_students_is_short_for_a_sweep_together(command: Command) -> None:
    words = "-m student.architecture=cifar_resnet8,resnet10t launcher=together hydra.launcher.jobs=2"
    assert in_full("students=[cifar_resnet8,resnet10t]") == words.split() and in_full("seed=1") == ["seed=1"]
    code, _, err = command("train", "students=[cifar_resnet8,cifar_resnet88]")
    assert code == 2 and "Unknown architecture 'cifar_resnet88'. Did you mean cifar_resnet8" in err, err
