"""The moving average: its formula, what validation and the exported files hold, and a run that goes on."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdx.training.callbacks.averaging import EMA
from kdx.training.module import DistillationModule

STUDENT = "distiller.student."
OPTIONS = ("experiment=ctkd_digits", "callbacks=ema", "trainer.max_epochs=3", "test=false", "optimizer.lr=0.01")

State = dict[str, Tensor]


class Interrupted(Exception):
    """Stands for a power cut at some step."""


def student(module: DistillationModule) -> State:
    return {name: value.clone() for name, value in module.distiller.student.state_dict().items()}


def load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def students(state: State) -> State:
    return {name.removeprefix(STUDENT): value for name, value in state.items() if name.startswith(STUDENT)}


def averaged(steps: list[State], start: State, decay: float, warmup: bool) -> dict[str, NDArray[np.float64]]:
    """The moving average in NumPy."""
    average = {name: value.double().numpy() for name, value in start.items()}
    for t, weights in enumerate(steps, start=1):
        own = min(decay, (1 + t) / (10 + t)) if warmup else decay
        for name, value in weights.items():
            new = value.double().numpy()
            average[name] = own * average[name] + (1 - own) * new if value.is_floating_point() else new
    return average


def close(state: State, expected: dict[str, NDArray[np.float64]]) -> bool:
    return state.keys() == expected.keys() and all(
        np.abs(value.double().numpy() - expected[name]).max() <= 1e-6 * max(1, np.abs(expected[name]).max())
        for name, value in state.items()
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[State]]:
    """The student's weights at the start, after each optimizer step, and as val saw them, in the runs that follow."""
    states: dict[str, list[State]] = {"start": [], "steps": [], "val": []}

    def record(hook: str, key: str) -> None:
        original = getattr(DistillationModule, hook)

        def wrapped(self: DistillationModule, *args: Any) -> Any:
            if self.distiller.teacher is not None:  # not while the teacher itself is trained
                states[key].append(student(self))
            return original(self, *args)

        monkeypatch.setattr(DistillationModule, hook, wrapped)

    record("on_train_start", "start")
    record("on_train_batch_end", "steps")
    record("on_validation_epoch_end", "val")
    return states


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_without_its_warmup_it_is_torchs(decay: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = EMA(decay, warmup=False)
    ours.average = {name: value.clone() for name, value in model.state_dict().items()}
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    torchs.n_averaged += 1  # or torch would begin with the weights after the first step
    for _ in range(5):
        model(torch.rand(2, 3, 5, 5)).sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
        ours._update(dict(model.state_dict()))
        torchs.update_parameters(model)
    for name, value in torchs.module.state_dict().items():
        if not value.is_floating_point():  # which torch averages too, and ours copies
            assert torch.equal(ours.average[name], model.state_dict()[name])
            continue
        torch.testing.assert_close(ours.average[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("warmup", [True, False])
def test_val_sees_the_average_and_training_does_not(
    train: Callable[..., Path], seen: dict[str, list[State]], warmup: bool
) -> None:
    folder = train("run", *OPTIONS, "callbacks.ema.decay=0.8", f"callbacks.ema.warmup={warmup}")
    steps, (start,) = seen["steps"], seen["start"]
    per_epoch = len(steps) // 3
    assert per_epoch >= 3 and len(seen["val"]) == 5  # one for each epoch, one of the last weights, one of the selected
    for epoch, state in enumerate(seen["val"][:3], start=1):
        assert close(state, averaged(steps[: epoch * per_epoch], start, 0.8, warmup))
    last = load(folder / "checkpoints" / "last.ckpt")
    assert close(students(last["state_dict"]), averaged(steps, start, 0.8, warmup))
    assert all(torch.equal(value, steps[-1][name]) for name, value in last["averaging"]["student"].items())
    moved = [name for name, value in steps[-1].items() if not torch.equal(value, last["state_dict"][STUDENT + name])]
    assert any("running_mean" in name for name in moved) and any("conv" in name for name in moved)
    assert not any("num_batches_tracked" in name for name in moved)
    best = load(folder / "checkpoints" / "best.ckpt")
    epoch = best["epoch"]
    assert close(students(best["state_dict"]), averaged(steps[: (epoch + 1) * per_epoch], start, 0.8, warmup))
    exported = {f"model.{name}": value for name, value in load_file(folder / "student.safetensors").items()}
    assert exported.keys() <= students(best["state_dict"]).keys()
    assert all(torch.equal(value, students(best["state_dict"])[name]) for name, value in exported.items())
    assert all(torch.equal(value, students(best["state_dict"])[name]) for name, value in seen["val"][4].items())


def test_a_learned_temperature_is_not_averaged(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    raws: list[float] = []
    original = DistillationModule.on_train_batch_end

    def record(self: DistillationModule, *args: Any) -> None:
        if self.distiller.temperature is not None:
            raws.append(self.distiller.temperature.raw.item())
        original(self, *args)

    monkeypatch.setattr(DistillationModule, "on_train_batch_end", record)
    folder = train("run", *OPTIONS, "temperature.ramp=constant")
    state = load(folder / "checkpoints" / "last.ckpt")["state_dict"]
    assert state["distiller.temperature.raw"].item() == raws[-1] != raws[0]


@pytest.mark.parametrize("rule", ["ema", "last"])
def test_the_rule_says_which_of_the_last_weights_are_exported(train: Callable[..., Path], rule: str) -> None:
    folder = train("run", *OPTIONS, f"selection={rule}", "callbacks.ema.decay=0.5")
    checkpoint = load(folder / "checkpoints" / "last.ckpt")
    average, own = students(checkpoint["state_dict"]), checkpoint["averaging"]["student"]
    exported = load_file(folder / "student.safetensors")
    wanted = average if rule == "ema" else own
    assert exported and all(torch.equal(value, wanted[f"model.{name}"]) for name, value in exported.items())
    assert any(not torch.equal(average[name], own[name]) for name in average)
    final = json.loads((folder / "metrics.json").read_text())
    assert final["selection"]["rule"] == rule
    if rule == "ema":  # the student's own last weights are stored and measured too
        kept = load_file(folder / "last.safetensors")
        assert all(torch.equal(value, own[f"model.{name}"]) for name, value in kept.items())
        assert final["last"]["val/student/nll"] != final["metrics"]["val/student/nll"]
    else:
        assert not (folder / "last.safetensors").exists()
        assert final["last"]["val/student/nll"] == final["metrics"]["val/student/nll"]


def test_accumulated_batches_are_one_update(train: Callable[..., Path]) -> None:
    folder = train("run", *OPTIONS, "trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2")
    assert load(folder / "checkpoints" / "last.ckpt")["averaging"]["updates"] == 6


def val(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key.startswith("val/student/")}
            for row in csv.DictReader(file)
            if row.get("val/student/nll")
        ]


@pytest.mark.long
@pytest.mark.parametrize("at", [3, 5], ids=["end of epoch", "mid-epoch"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    train: Callable[..., Path],
    command: Callable[..., tuple[int, str, str]],
    interrupted: Callable[..., AbstractContextManager[None]],
    teachers: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
    at: int,
) -> None:
    options = (*OPTIONS, "trainer.limit_train_batches=4", "teacher.recipe.trainer.max_epochs=2")
    whole = train("whole", *options)
    with interrupted(at, signal.SIGTERM):
        code, _, _ = command("train", *tiny, f"outputs={teachers}", f"hydra.run.dir={tmp_path}/part", *options)
    assert code == 143
    resumed = train("part", *options)
    first, second = (load(folder / "checkpoints" / "last.ckpt") for folder in (whole, resumed))
    assert first["averaging"]["updates"] == second["averaging"]["updates"] == 12
    for states in ((first["state_dict"], second["state_dict"]), [c["averaging"]["student"] for c in (first, second)]):
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert val(whole)[-1] == val(resumed)[-1]


@pytest.mark.long
@pytest.mark.parametrize("before", ["default", "ema"])
def test_the_average_may_be_switched_on_and_off_between_runs(
    train: Callable[..., Path], seen: dict[str, list[State]], before: str
) -> None:
    after = {"default": "ema", "ema": "default"}[before]
    short = ("experiment=ctkd_digits", "test=false", "trainer.limit_train_batches=2")
    path = train("run", *short, f"callbacks={before}", "trainer.max_epochs=1") / "checkpoints" / "last.ckpt"
    first = students(load(path)["state_dict"])
    train("run", *short, f"callbacks={after}", f"ckpt_path={path}", "trainer.max_epochs=2")
    second = load(path)
    assert all(torch.equal(value, first[name]) for name, value in seen["start"][1].items())
    assert ("averaging" in second) == (after == "ema")
    assert after == "default" or close(students(second["state_dict"]), averaged(seen["steps"][2:], first, 0.999, True))


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_out_of_range_is_a_value_error(decay: float) -> None:
    with pytest.raises(ValueError, match="EMA: decay"):
        EMA(decay=decay)
