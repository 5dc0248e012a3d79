"""kdx-plan: what a command would do, by hand; how long, from short runs; and nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from kdx.cli import forecast, plan
from kdx.cli.forecast import Forecast
from kdx.config.schema import RunConfig
from kdx.data.source import SplitName
from kdx.experiment import build
from kdx.experiment.length import training_length
from kdx.experiment.outline import Outline, Training, outline
from kdx.training.callbacks import pace

Command = Callable[..., tuple[int, str, str]]
Config = Callable[..., RunConfig]


def test_an_outline_is_what_the_config_says(config: Config) -> None:
    words = ("data=digits100", "data.batch_size=20", "trainer.max_epochs=12", "trainer.check_val_every_n_epoch=3")
    found = outline(build.parts(config("experiment=cqkd_digits", *words, "trainer.accumulate_grad_batches=2")))
    assert found.images == {"train": 100, "val": 359, "test": 539}
    assert found.length == (2.5, 36) and found.validations == 4
    assert found.batches == 60  # 5 an epoch, of which Lightning makes 3 steps
    (training,) = found.teachers.values()
    assert not training.done and training.outline.config.student["architecture"] == "cifar_resnet20"
    training.folder.mkdir(parents=True)
    (training.folder / "student.safetensors").touch()
    assert outline(build.parts(config("experiment=cqkd_digits", *words))).teachers["teacher"].done
    assert not outline(build.parts(config("experiment=supervised_digits"))).teachers


def test_the_curve_of_the_learning_rate_is_that_of_the_schedule(config: Config) -> None:
    found = outline(build.parts(config("experiment=supervised_digits", "lr_schedule=constant", "optimizer.lr=0.25")))
    assert set(found.lr) == {0.25}


SHORT = {"seconds": 10.0, "batches": 25, "per_batch": 0.1, "validations": 5, "per_validation": 1.0}


def forecast_of(config: RunConfig, images: dict[SplitName, int], teachers: dict[str, Training] | None = None) -> Forecast:
    found = Outline(config, images, training_length(config, images["train"]), 1, [0.1], teachers or {})
    metrics = {"seconds": 12.0, "teacher_seconds": 1.0, "peak_memory_mb": 1000.0}
    return Forecast("run", 2, found, forecast.Pace(15.0, metrics, SHORT, {"teacher": SHORT}, 100))


def test_time_grows_with_batches_and_validations(config: Config, tmp_path: Path) -> None:
    cfg = config("experiment=supervised_digits", "data.batch_size=10", "trainer.max_epochs=20")
    images: dict[SplitName, int] = {"train": 100, "val": 100, "test": 100}
    one = forecast_of(cfg, images)
    assert one.plan.batches == 200 and one.plan.validations == 20
    assert one.seconds == pytest.approx(12 + 175 * 0.1 + 15 * 1.0)
    large = forecast_of(cfg, {**images, "val": 800, "test": 1000})  # of which 400 were measured each
    assert large.seconds == pytest.approx(12 + 175 * 0.1 + 20 * 2.0 - 5 * 1.0 + 600 / 400)
    trained = {"teacher": Training(tmp_path / "a", False, one.plan)}
    assert forecast_of(cfg, images, trained).trainings() == {str(tmp_path / "a"): pytest.approx(1 + 175 * 0.1 + 15)}
    assert forecast_of(cfg, images, {"teacher": Training(tmp_path / "a", True, one.plan)}).trainings() == {}
    assert one.pace.start_up == 2.0


def test_runs_are_of_one_kind_if_only_numbers_and_seeds_differ(config: Config) -> None:
    same = [config("experiment=cqkd_digits", *words) for words in ([], ["seed=3", "temperature.value=9", "optimizer.lr=1"])]
    others = [["student.architecture=cifar_resnet14"], ["data.batch_size=7"], ["baseline=scratch"], ["resolution.student=6"]]
    kinds = {plan._work(one) for one in same}
    assert len(kinds) == 1
    for words in others:
        assert plan._work(config("experiment=cqkd_digits", *words)) not in kinds, words


def test_the_pace_leaves_out_the_warm_up_and_the_validations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    callback, module = pace.Pace(str(tmp_path / "new" / "pace.json")), pl.LightningModule()
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), sanity_checking=False, is_global_zero=True)
    callback.on_train_start(trainer, module)
    for batch in range(9):
        clock[0] += 7.0 if batch < 5 else 0.5
        callback.on_train_batch_end()
        if batch % 2:
            callback.on_validation_start(trainer, module)
            clock[0] += 9.0 if batch == 1 else 2.0
            callback.on_validation_end(trainer, module)
    trainer.state.fn = TrainerFn.VALIDATING
    callback.on_validation_end(trainer, module)
    callback.on_train_end(trainer, module)
    found = (tmp_path / "new" / "pace.json").read_text()
    assert found == '{"seconds": 52.0, "batches": 9, "per_batch": 0.5, "validations": 4, "per_validation": 2.0}'


def test_a_mistake_is_told_before_anything_is_measured(command: Command) -> None:
    for name, words in (("plan", ["temperature.valu=4"]), ("train", ["--dry-run", "temperature.valu=4"])):
        code, _, err = command(name, *words)
        assert code == 2 and "Unknown key 'temperature.valu'. Did you mean" in err and "measuring" not in err


@pytest.mark.long
def test_a_plan_of_a_sweep_counts_its_runs_and_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    words = ("-m", "temperature.value=1,4", "seed=0,1", "baselines=[scratch]", "trainer=cpu", "trainer.max_epochs=30")
    code, out, err = command("plan", *words)
    assert code == 0, err
    assert "6 runs" in out and "cifar_resnet20 is trained first, 60 epochs" in out and "Time: about" in out
    assert not (tmp_path / "outputs").exists() and "measuring 2 of 2" in err
