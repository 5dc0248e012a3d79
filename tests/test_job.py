"""A run in a folder that is not empty: not repeated, gone on with, or refused, and never silently overwritten."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdx.run import job

Command = Callable[..., tuple[int, str, str]]
SHORT = ("logger=none", "trainer=cpu", "experiment=supervised_digits", "trainer.max_epochs=1")


@pytest.fixture
def finished(command: Command, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    code, _, err = command("train", *SHORT, f"hydra.run.dir={folder}")
    assert code == 0, err
    return folder


def test_a_finished_run_is_not_repeated(command: Command, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.suffix in (".json", ".csv", ".ckpt")}
    code, out, err = command("train", *SHORT, f"hydra.run.dir={finished}", "name=other", "data.num_workers=1")
    assert code == 0 and "Finished already" in err and "accuracy" in out
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= {finished / job.FILE}


def test_the_result_of_a_finished_run_and_its_baselines_is_told_without_torch(command: Command, tmp_path: Path) -> None:
    words = [*SHORT[:2], "teacher.recipe.trainer.max_epochs=2", "trainer.max_epochs=1", "preflight=off"]
    words += [f"hydra.run.dir={tmp_path}/run", f"outputs={tmp_path}"]
    code, first, err = command("train", *words)
    assert code == 0, err
    program = (
        f"import sys, kdx.cli.train\nsys.argv = ['kdx-train', *{words!r}]\n"
        "try: kdx.cli.train.main()\n"
        "finally: assert not {'torch', 'timm', 'pytorch_lightning'} & set(sys.modules), 'heavy import'\n"
    )
    again = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "heavy import" not in again.stderr, again.stderr
    assert "Finished already" in again.stderr and "against scratch" in again.stdout
    assert again.stdout.splitlines()[-3:] == first.splitlines()[-3:]
    shutil.rmtree(tmp_path / "run" / "baselines")  # what is missing is trained
    code, out, err = command("train", *words)
    assert code == 0 and "against scratch" in out and (tmp_path / "run" / "baselines" / "scratch" / "metrics.json").is_file()


def test_another_run_is_refused_with_the_difference_and_may_fork(command: Command, finished: Path) -> None:
    other = (*SHORT, f"hydra.run.dir={finished}", "seed=5", "optimizer.lr=0.02")
    code, _, err = command("train", *other)
    assert code == 2 and f"{finished} holds another run:" in err and "seed: 0 -> 5" in err and "on_conflict=fork" in err
    for _ in range(2):  # the fork is a folder like another one
        code, _, err = command("train", *other, "on_conflict=fork")
        assert code == 0, err
    fork = finished.with_name("run-2")
    assert json.loads((fork / "run.json").read_text())["config"]["seed"] == 5 and not finished.with_name("run-3").exists()
    assert json.loads((finished / "run.json").read_text())["config"]["seed"] == 0
    assert len(job.attempts(finished)) == 1, "a run that was refused or took another folder has not tried this one"


def test_a_run_that_must_not_go_on_is_refused(command: Command, finished: Path) -> None:
    code, _, err = command("train", *SHORT, f"hydra.run.dir={finished}", "ckpt_path=null")
    assert code == 2 and "with which ckpt_path=auto goes on, and not ckpt_path=null" in err


def test_a_begun_run_goes_on_and_refuses_other_data_or_another_version(command: Command, finished: Path) -> None:
    (finished / "metrics.json").unlink()
    again = (*SHORT, f"hydra.run.dir={finished}")
    code, _, err = command("train", *again)
    assert code == 0 and f"Going on from {finished}/checkpoints/last.ckpt" in err
    (finished / "metrics.json").unlink()
    about = json.loads((finished / "run.json").read_text())
    (finished / "run.json").write_text(json.dumps({**about, "data": "other"}))
    code, _, err = command("train", *again)
    assert code == 2 and "holds a run on other data" in err
    about["provenance"]["versions"]["kdx"] = "0.2.9"
    (finished / "run.json").write_text(json.dumps(about))
    code, _, err = command("train", *again)
    assert code == 2 and "kdx 0.2.9 began" in err


def test_a_held_folder_is_refused(command: Command, finished: Path) -> None:
    with job.held(finished):
        code, _, err = command("train", *SHORT, f"hydra.run.dir={finished}")
    assert code == 2 and "in use by process" in err and "since" in err
