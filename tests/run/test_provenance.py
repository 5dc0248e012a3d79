"""Where numbers come from, and that they come again."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kdx.run import provenance


def curve(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith("per_second")} for row in csv.DictReader(file)]


@pytest.mark.parametrize("options", [["experiment=ctkd_digits"], ["experiment=cqkd_digits", "baseline=scratch"]])
def test_a_run_runs_again_from_its_folder_to_the_same_curve(
    train: Callable[..., Path], command: Callable[..., tuple[int, str, str]], tmp_path: Path, options: list[str]
) -> None:
    first = train("first", *options)
    second = tmp_path / "second"
    code, _, err = command("train", f"--config-dir={first}", "--config-name=rerun", f"hydra.run.dir={second}")
    assert code == 0, err
    assert curve(first) == curve(second)
    assert (first / "config.yaml").read_text() == (second / "config.yaml").read_text()
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (first, second))
    assert one["data"] == two["data"]
    timed = ("seconds", "memory", "latency", "per_second", "share", "energy")
    stable = {name for name in one["metrics"] if not any(word in name for word in timed)}
    assert {name: one["metrics"][name] for name in stable} == {name: two["metrics"][name] for name in stable}
    started = json.loads((first / "run.json").read_text())
    assert started["provenance"] == one["provenance"] and started["config"]["seed"] == 0
    assert "torch==" in (first / "environment.txt").read_text()


def test_a_run_that_went_on_from_a_checkpoint_runs_again_from_its_start(
    train: Callable[..., Path], command: Callable[..., tuple[int, str, str]]
) -> None:
    first = train("first", "trainer.max_epochs=1")
    resumed = train("resumed", f"ckpt_path={first}/checkpoints/last.ckpt")
    _, out, _ = command("train", f"--config-dir={resumed}", "--config-name=rerun", "--cfg", "job")
    assert "ckpt_path: auto" in out


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody."""
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True, capture_output=True
    )


def test_the_commit_and_the_difference_are_those_of_the_code_and_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "loss.py").write_text("weight = 1\n")
    git(tmp_path, "add", "."), git(tmp_path, "commit", "-qm", "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    assert "loss.py" not in provenance.difference()
    (tmp_path / "loss.py").write_text("weight = 2\n")
    assert "+weight = 2" in provenance.difference()
    found = provenance.provenance(("seed=1",))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert found["project_commit"] == head != found["git_commit"]
    assert "hunter2" not in json.dumps(found) + provenance.environment()


def test_a_huge_difference_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda folder, *arguments: "x" * 3_000_000)
    assert len(provenance.difference()) < 1_100_000


def test_without_git_a_run_still_has_a_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda folder, *arguments: None)
    found = provenance.provenance(())
    assert found["git_commit"] is None and found["git_dirty"] is False and provenance.difference() == ""
