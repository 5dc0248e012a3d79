"""Settings of other tools or of Lightning that kdx does not support, found by `check` without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import cloudpickle
import pytest
from hydra import compose, initialize_config_dir

from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError
from kdx.config.monitor import possible_names
from kdx.config.overrides import checked_overrides
from kdx.config.schema import RunConfig, to_plain
from kdx.metrics.builtin import BUILT_IN
from kdx.metrics.names import OF_NETWORK, OF_PAIR

REFUSED = {
    "trainer.max_epochs=-1": "trains without end: set trainer.max_epochs=N",
    "trainer.max_epochs=null": "trainer.max_epochs=null trains without end",
    "trainer.max_epochs=0": "trainer.max_epochs=0 trains nothing; expected 1 or more",
    "trainer.max_epochs=-5": "trainer.max_epochs=-5 trains nothing",
    "trainer.max_steps=0": "trainer.max_steps=0 trains nothing",
    "teacher.recipe.trainer.max_epochs=0": "teacher.recipe.trainer.max_epochs=0 trains nothing",
    "trainer.limit_val_batches=0": "trainer.limit_val_batches=0: val selects the weights",
    "trainer.limit_val_batches=1.5": "or a share up to 1.0",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0: expected a number from 1",
    "trainer.limit_test_batches=0": "use test=false",
    "trainer.precision=bf16-true": "available: 32-true, bf16-mixed, 16-mixed",
    "trainer.precision=64-true": "available: 32-true",
    "trainer.precision=64": "available: 32-true",
    "+trainer.val_check_interval=0.5": "use trainer.check_val_every_n_epoch=N",
    "trainer.check_val_every_n_epoch=0": "val selects the weights; expected 1 or more, or auto",
    "trainer.check_val_every_n_epoch=often": "check_val_every_n_epoch=often: Input should be a valid integer",
    "trainer.check_val_every_n_epoch=1000": "never validates in trainer.max_epochs=150; expected 1 to 150",
    "+trainer.logger=false": "trainer.logger is set by kdx: use logger=OPTION",
    "+trainer.enable_checkpointing=false": "for no checkpoints, use callbacks=none selection=last",
    "+trainer.fast_dev_run=true": "use debug=fdr",
    "+callbacks.swa={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.01}": "use callbacks=ema",
    "+callbacks.a={_target_: pytorch_lightning.callbacks.BatchSizeFinder}": "set data.batch_size",
    "+callbacks.ema.decay=0.9": "callbacks.ema has no _target_: select its option first, such as callbacks=ema",
    "+losses.dkd.weight=1": "such as losses=[kl,ce,dkd]",
    "+losses.kl2=3": "losses.kl2 has no _target_",
    "monitor=val/acc": "Did you mean 'val/student/accuracy'?",
    "monitor=accuracy": "Did you mean 'val/student/accuracy'?",
    "monitor=train/loss": "Did you mean 'val/student/nll'?",
    "monitor=val/teacher/accuracy": "Did you mean 'val/student/accuracy'?",
    "monitor=val/student/nll": "with monitor_mode=max selects the worst epoch: set monitor_mode=min",
    "monitor_mode=min": "selects the worst epoch: set monitor_mode=max",
    "+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss}": "callbacks.stop.monitor=",
    "+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/student/accuracy}": (
        "set callbacks.stop.mode=max"
    ),
    "seed=4294967296": "seed=4294967296: Input should be less than 4294967296",
    "data.split_seed=-1": "data.split_seed=-1",
    "name=''": "at least 1 character",
}
ACCEPTED = (
    ("trainer.max_epochs=-1", "trainer.max_steps=10"),
    ("trainer.precision=bf16",),
    ("trainer.precision=16",),
    ("trainer.limit_val_batches=0.5",),
    ("trainer.limit_val_batches=1",),
    ("monitor=val/kl", "monitor_mode=min"),
    ("monitor=val/student/entropy", "monitor_mode=min"),
    ("monitor=val/student/top3", "metrics=[top3]"),
    ("seed=4294967295",),
    ("callbacks=none", "selection=last", "+trainer.enable_checkpointing=false"),
)


@pytest.mark.parametrize(("override", "words"), REFUSED.items(), ids=REFUSED.keys())
def test_a_setting_that_cannot_work_is_refused(config: Callable[..., RunConfig], override: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(override)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("overrides", ACCEPTED, ids=" ".join)
def test_a_setting_that_works_is_accepted(config: Callable[..., RunConfig], overrides: tuple[str, ...]) -> None:
    config(*overrides)


@pytest.mark.parametrize("override", ["teacher.checkpoint=x", "teacher.resolution=16", "teacher.recipe.seed=2"])
def test_keys_of_one_network_are_not_lost_in_an_ensemble(command: Callable[..., tuple[int, str, str]], override: str) -> None:
    key = override.partition("=")[0]
    code, _, err = command("train", "--cfg", "job", "experiment=none", "teacher=ensemble", override)
    assert code == 2 and f"Cannot set `{key}`: in an ensemble each member has its own: teacher.members.a.{key[8:]}=..." in err


def test_the_resolution_of_a_single_teacher_is_that_of_the_run(config: Callable[..., RunConfig]) -> None:
    assert config("teacher.resolution=16").resolution.teacher == 16
    of_member = config("experiment=none", "teacher=ensemble", "teacher.members.a.resolution=16")
    assert of_member.resolution.teacher == 8 and of_member.other_resolutions == [16]


def test_the_names_known_without_torch_are_those_of_the_metrics(config: Callable[..., RunConfig]) -> None:
    directions = {name: metric.higher_is_better for name, metric in BUILT_IN.items()}
    assert directions == {**OF_NETWORK, **OF_PAIR}
    assert {name for name, metric in BUILT_IN.items() if metric.needs_teacher} == set(OF_PAIR)
    from kdx.metrics.suite import Suites

    cohort = to_plain(config("experiment=dml_digits"))
    assert set(Suites(10, ["a", "b"]).names) == {name.removeprefix("val/") for name in possible_names(cohort)}


WORDS = {
    "data.train_size=None": "data.train_size=null",
    "a=[None,1]": "a=[null,1]",
    "a={b: None, c: Nonesuch}": "a={b: null, c: Nonesuch}",
    "a=None,1": "a=null,1",
    "a='None'": "a='None'",
    "a=runs/None/x": "a=runs/None/x",
    "~losses": "~losses",
}


@pytest.mark.parametrize(("word", "read"), WORDS.items())
def test_none_of_python_is_read_as_null(word: str, read: str) -> None:
    assert checked_overrides([word]) == [read]


def test_a_composed_config_travels_to_other_processes() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = cloudpickle.dumps(compose("train", ["seed=3"]))  # as joblib and submitit do
    code = "import pickle, sys\nfrom kdx.config.check import check\nprint(check(pickle.load(sys.stdin.buffer)).seed)"
    done = subprocess.run([sys.executable, "-c", code], input=config, capture_output=True, check=False)
    assert done.stdout == b"3\n", done.stderr.decode()
