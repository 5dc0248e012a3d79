"""Two processes give the metrics of one with the same global batch: views, mixing, BatchNorm, losses, metrics."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def losses(folder: Path) -> list[float]:
    """The curve of the training loss, one mean per window of steps."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def one_pair(metrics: dict[str, float], name: str) -> float:
    """The share of one pair of a right and a wrong answer among all pairs, on the 359 images of val or 539 of test."""
    count = 539 if name.startswith("test/") else 359
    right = round(metrics[name.replace("_scaled", "").replace("auroc", "accuracy")] * count)
    return 1.01 / (right * (count - right))


@pytest.mark.parametrize(
    "two",
    [
        pytest.param(["trainer=ddp", "trainer.accelerator=cpu"], marks=pytest.mark.minutes, id="ddp"),
        pytest.param(["trainer=cpu"], marks=pytest.mark.long, id="devices alone"),
    ],
)
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
    for name in names:
        # AUROC counts pairs of a right and a wrong answer: one pair whose confidences differ by rounding may change places
        allowed = one_pair(found[1], name) if name.endswith("/auroc") else 1e-5
        assert found[0][name] == pytest.approx(found[1][name], abs=allowed), name
    assert losses(tmp_path / "two") == pytest.approx(losses(one), abs=1e-5)
    assert found[0]["teacher_seconds"] > 1 and "teacher_seconds" not in found[1]
    assert len(list((tmp_path / "outputs" / "teachers").glob("*/"))) == 1
    assert {path.name for path in tmp_path.iterdir()} >= {"two", "one", "outputs"}


@pytest.mark.long
def test_two_ranks_equal_one_where_images_are_skipped(
    train: Callable[..., Path], tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """Damaged files at unequal places of the ranks' shares; mixing, BatchNorm and the mean loss count each image once."""
    generator = np.random.default_rng(0)
    for name, level in (("a", 60), ("b", 160)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = generator.integers(level, level + 60, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i:02}.png")
    for i in (3, 4, 11, 17, 25):
        (tmp_path / "images" / "a" / f"{i:02}.png").write_bytes(b"damaged")
    data = ["data=imagefolder", f"data.root={tmp_path}/images", "data.on_bad_image=skip", "data.batch_size=16"]
    options = ["experiment=supervised_digits", *data, "mixing=mixup", *tiny, "trainer.log_every_n_steps=1"]
    options += ["resolution.student=8", "trainer.limit_train_batches=3"]
    one = train("one", *options, f"outputs={tmp_path}/outputs")
    command = [sys.executable, "-m", "kdx.cli.train", *options, f"outputs={tmp_path}/outputs", "trainer.devices=2"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KDX_", "HYDRA_"))}
    done = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path}/two"], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(one), abs=1e-5)
    found = [json.loads((f / "metrics.json").read_text())["metrics"] for f in (tmp_path / "two", one)]
    names = [name for name in found[1] if name.startswith(("val/", "test/"))]
    assert {name: found[0][name] for name in names} == pytest.approx({name: found[1][name] for name in names}, abs=1e-4)
