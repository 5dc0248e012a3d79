"""Jobs of a sweep in processes of their own: several at a time, each with its GPUs, none harmed by another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdx.cli.child import Child, quoted
from kdx.cli.launchers import visible_gpus
from kdx.cli.sweep_job import own_words
from kdx.config.errors import ConfigError
from kdx.config.trainer import check_processes
from kdx.run import job, ranks

Command = Callable[..., tuple[int, str, str]]


def test_a_job_is_told_what_only_itself_needs() -> None:
    words = ["seed=1", "launcher=gpus", "baselines=[scratch]", "hydra.launcher.gpus=[0,1]", "sweep=new", "baseline=scratch"]
    assert own_words([*words, "hydra/launcher=joblib", "sweeper=1"]) == ["seed=1", "baseline=scratch", "sweeper=1"]


def test_a_killed_process_is_a_failed_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/cat")  # reads its words as files, and ends with an error
    child = Child([], tmp_path / "folder of é 'mine'")
    child.process.wait()
    assert child.ended() and job.attempts(child.folder) == []
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 600\n")
    endless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(endless))
    child = Child([], tmp_path)
    child.process.send_signal(signal.SIGKILL)
    child.process.wait()
    assert child.ended()
    assert [one.error for one in job.failures(tmp_path)] == [
        "its process was ended by SIGKILL: perhaps the machine had no memory left"
    ]


def test_a_folder_with_quotes_is_one_word() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    path = Path("/a b/it's, [é]=1")
    (override,) = OverridesParser.create().parse_overrides([f"hydra.run.dir={quoted(path)}"])
    assert override.value() == str(path)


@pytest.mark.parametrize(("given", "found"), [("2,0", ["2", "0"]), ("", []), ("GPU-1b,MIG-2", ["GPU-1b", "MIG-2"])])
def test_the_gpus_are_those_that_this_process_may_use(given: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == found


def test_a_sweep_on_gpus_is_refused_where_there_are_too_few(command: Command, tmp_path: Path) -> None:
    words = ["train", "-m", "seed=0,1", "launcher=gpus", f"outputs={tmp_path}"]
    code, _, err = command(*words, "hydra.launcher.gpus=[]")
    assert code == 2 and "this machine has no GPU, and a job needs 1" in err
    code, _, err = command(*words, "hydra.launcher.gpus=[3]", "hydra.launcher.gpus_per_job=2")
    assert code == 2 and "this machine has 1 GPUs, and a job needs 2" in err


def test_processes_that_were_started_together_must_be_those_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks.processes() == 1  # set, but no rank
    monkeypatch.setenv("RANK", "3")
    assert (ranks.own_rank(), ranks.processes()) == (3, 4)
    for trainer in ({"devices": 4}, {"devices": "2", "num_nodes": 2}, {"devices": [0, 1, 2, 3]}, {"devices": "auto"}):
        check_processes(trainer, ranks.processes())
    with pytest.raises(ConfigError, match=r"4 processes were started together .* trainer.devices=1"):
        check_processes({"devices": 1, "num_nodes": 1}, ranks.processes())


@pytest.mark.minutes
def test_jobs_at_a_time_have_gpus_of_their_own_and_a_killed_one_is_tried_again(
    tmp_path: Path, teachers: Path, tiny: tuple[str, ...]
) -> None:
    gpus = ["launcher=gpus", "hydra.launcher.gpus=[5,7]"]
    words = [
        "seed=range(3)",
        *tiny,
        "teacher.recipe.trainer.max_epochs=2",
        f"outputs={teachers}",
        f"hydra.sweep.dir={tmp_path}",
    ]
    command = [sys.executable, "-m", "kdx.cli.train", "-m", *words, f"hydra.sweep.dir={tmp_path}", *gpus]
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    killed = tmp_path / "0-cqkd_digits"
    while not (killed / "run.json").exists():
        assert sweep.poll() is None
        time.sleep(0.1)
    pid = job.attempts(killed)[-1].pid
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=5" in environment
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    _, err = sweep.communicate(timeout=600)
    assert sweep.returncode == 1 and "0-cqkd_digits (seed=0" in err and "ended by SIGKILL" in err, err
    assert [(tmp_path / f"{n}-cqkd_digits/metrics.json").exists() for n in range(3)] == [False, True, True]
    again = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0, again.stderr
    assert "Skipped 1-cqkd_digits: finished" in again.stderr
    run = json.loads((killed / "run.json").read_text())
    assert run["group"] == tmp_path.name and run["config"]["seed"] == 0
