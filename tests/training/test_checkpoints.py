"""When checkpoints are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from kdx.training.callbacks.checkpoints import Best, Last


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs at whose end a checkpoint was written."""
    epochs: list[int] = []
    write = lambda self, trainer, module: epochs.append(trainer.current_epoch)  # noqa: E731 - shorter than a function
    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", write)
    return epochs


def trainer(epoch: int, **own: Any) -> Any:
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    facts: dict[str, Any] = {
        "max_epochs": 6,
        "max_steps": -1,
        "global_step": 3 * epoch,
        "should_stop": False,
        "check_val_every_n_epoch": 1,
    }
    facts["callback_metrics"] = {"val/student/accuracy": 0.5}
    return SimpleNamespace(current_epoch=epoch, strategy=strategy, **{**facts, **own})


def test_the_first_and_the_last_of_many_short_epochs_are_kept(written: list[int]) -> None:
    last = Last(seconds=1e6)
    for epoch in range(6):
        last.on_train_epoch_end(trainer(epoch), None)
    assert written == [0, 5]


def test_every_long_epoch_is_kept(written: list[int]) -> None:
    last = Last(seconds=0)
    for epoch in range(3):
        last.on_train_epoch_end(trainer(epoch), None)
    assert written == [0, 1, 2]


@pytest.mark.parametrize("end", [{"should_stop": True}, {"max_epochs": -1, "max_steps": 9, "global_step": 9}])
def test_training_that_ends_otherwise_is_kept_too(written: list[int], end: dict[str, Any]) -> None:
    last = Last(seconds=1e6)
    last.on_train_epoch_end(trainer(0), None)
    last.on_train_epoch_end(trainer(2, **end), None)
    assert written == [0, 2]


def test_the_best_is_looked_for_only_where_val_was_measured(written: list[int]) -> None:
    best = Best("val/student/accuracy")
    for epoch in range(6):
        best.on_train_epoch_end(trainer(epoch, check_val_every_n_epoch=3), None)
    assert written == [2, 5]
    best.on_train_epoch_end(trainer(8, callback_metrics={}), None)  # cut short before val
    assert written == [2, 5]


def test_a_run_that_validates_seldom_keeps_the_best_of_what_it_saw(train: Callable[..., Path]) -> None:
    import torch

    folder = train("run", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=auto")  # 359 val images, 100 in training
    assert "auto: val after every 4 epochs" in (folder / "train.log").read_text()
    folder = train("other", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2")
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] in (1, 3)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3
