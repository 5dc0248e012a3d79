"""Two processes give the metrics of one with the same global batch: views, mixing, BatchNorm, losses, metrics."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def losses(folder: Path) -> list[float]:
    """The curve of the training loss, one mean per window of steps."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


@pytest.mark.long
@pytest.mark.parametrize("two", [["trainer=ddp", "trainer.accelerator=cpu"], ["trainer=cpu"]], ids=["ddp", "devices alone"])
def test_two_ranks_equal_one_and_share_folder_and_teacher(
    train: Callable[..., Path], tmp_path: Path, tiny: tuple[str, ...], two: list[str]
) -> None:
    options = ["experiment=funmatch_digits", "teacher.recipe.seed=3", "teacher.recipe.trainer.max_epochs=2", *tiny]
    two = [*two, "trainer.devices=2", f"hydra.run.dir={tmp_path}/two"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KDX_", "HYDRA_"))}
    done = subprocess.run(
        [sys.executable, "-m", "kdx.cli.train", *options, f"outputs={tmp_path}/outputs", *two],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    teacher = next((tmp_path / "outputs" / "teachers").glob("*/student.safetensors"))
    one = train("one", *options[:-1], f"teacher.checkpoint={teacher}")  # the same weights, to the last bit
    found = [json.loads((f / "metrics.json").read_text())["metrics"] for f in (tmp_path / "two", one)]
    names = [name for name in found[1] if name.startswith(("val/", "test/", "preflight/"))]
    assert {name: found[0][name] for name in names} == pytest.approx({name: found[1][name] for name in names}, abs=1e-5)
    assert losses(tmp_path / "two") == pytest.approx(losses(one), abs=1e-5)
    assert found[0]["teacher_seconds"] > 1 and "teacher_seconds" not in found[1]
    assert len(list((tmp_path / "outputs" / "teachers").glob("*/"))) == 1
    assert {path.name for path in tmp_path.iterdir()} >= {"two", "one", "outputs"}
