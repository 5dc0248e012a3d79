"""Every temperature that the command line offers takes steps, is logged, and is in the checkpoint where it is learned."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdx.config.check import conf_dir

OPTIONS = sorted(path.stem for path in (conf_dir() / "temperature").glob("*.yaml") if path.stem != "none")
LEARNED = {
    "curriculum": ["raw"],
    "curriculum_imagenet": ["raw"],
    "curriculum_instance": ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"],
}
NESTED = {
    "temperature=per_network temperature@temperature.student=curriculum": ["student.raw"],
    "temperature=standardized temperature@temperature.base=curriculum": ["base.raw"],
}


@pytest.mark.parametrize("option", [*(f"temperature={name}" for name in OPTIONS), *NESTED])
def test_a_temperature_takes_steps_in_a_run(train: Callable[..., Path], option: str) -> None:
    limits = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.log_every_n_steps=1", "test=false")
    folder = train("run", "experiment=cqkd_digits", "data=digits300", *limits, *option.split(), "optimizer.lr=0.01")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    apart = "per_network" in option or "standardized" in option
    names = ["train/temperature_teacher", "train/temperature_student"] if apart else ["train/temperature"]
    assert len(rows) == 3
    for row in rows:
        assert math.isfinite(float(row["train/loss"])) and all(float(row[name]) > 0 for name in names)
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    saved = [name.removeprefix("distiller.temperature.") for name in state if name.startswith("distiller.temperature.")]
    assert saved == {**LEARNED, **NESTED}.get(option.removeprefix("temperature=") if option not in NESTED else option, [])
    if saved:
        assert len({row["train/temperature_student" if apart else "train/temperature"] for row in rows}) == 3
