"""Words of other tools, names of kdx 0.1 and typos are answered with the right key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import kdx
from kdx.cli.arguments import parse
from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError
from kdx.config.other_words import KEYS, OPTIONS, TARGETS, key_for, target_for
from kdx.config.signatures import signature

Command = Callable[..., tuple[int, str, str]]

WORDS = {
    "lr=0.1": "Did you mean optimizer.lr=0.1?",
    "+lr=0.1": "Did you mean optimizer.lr=0.1?",
    "optimizer.learning_rate=0.1": "Did you mean optimizer.lr=0.1?",
    "epochs=5": "Did you mean trainer.max_epochs=5?",
    "trainer.epochs=5": "Did you mean trainer.max_epochs=5?",
    "batch_size=8": "Did you mean data.batch_size=8?",
    "arch=resnet18": "Did you mean network@student=resnet18?",
    "dataset=cifar10": "Did you mean data=cifar10?",
    "loss=kl": "Did you mean losses=[kl]?",
    "T=4": "Did you mean temperature.value=4?",
    "temperature=4": "Did you mean temperature.value=4?",
    "gpus=2": "Did you mean trainer.devices=2?",
    "output_dir=here": "Did you mean hydra.run.dir=here?",
    "resume=last.ckpt": "Did you mean ckpt_path=last.ckpt?",
    "resolution=32": "use resolution.student=PX resolution.teacher=PX",
    "data=/my/images": "use data=imagefolder data.root=/my/images",
    "network@student=resnet18d": "network@student=timm student.architecture=resnet18d",
    "control=scratch": "Did you mean baseline=scratch?",
    "controls=[scratch]": "Did you mean baselines=[scratch]?",
    "temperature=apart": "use temperature=per_network",
    "temperature=standardised": "use temperature=standardized",
    "pair=vgg13_vgg8": "add it with +pair=OPTION",
    "losses=[kl": "expected KEY=VALUE",
    "seed=0,1": "add -m for one run per value, or write seed=[0,1]",
    "+mixing.alpha=1": "Cannot set `mixing.alpha`: config group `mixing` is `none`",
    "callbacks.best._target_=kdx.temperatures.apart.PerNetwork": "use kdx.temperatures.per_network.PerNetwork",
    "--lr=0.1": "Did you mean optimizer.lr=0.1? Settings are written KEY=VALUE, without dashes",
    "--batch-size=8": "Did you mean data.batch_size=8?",
    "student=resnet18": "Did you mean network@student=resnet18?",
    "student=resnet26d": "Did you mean network@student=timm student.architecture=resnet26d?",
    "network=resnet18": "Did you mean network@student=resnet18 or network@teacher.network=resnet18?",
    "+teacher.network=resnet18": "Did you mean network@teacher.network=resnet18?",
    "recipe=finetune": "Did you mean teacher=finetune, or for the recipe alone recipe@teacher.recipe=finetune?",
    "+recipe=labels": "Cannot set `recipe` to a name. Did you mean recipe@teacher.recipe=labels?",
    "teacher.recipe=probe": "recipe@teacher.recipe=probe?",
    "recipe.trainer.max_epochs=3": "Unknown key 'recipe'. Did you mean teacher.recipe?",
    "recipe@teacher.recipe=finetunee": "Did you mean 'finetune'?",
    "crop=pad": "Did you mean crop@views.crop=pad or crop@data.eval_crop=pad?",
    "+views.crop=pad": "Did you mean crop@views.crop=pad?",
    "data.eval_crop=resize": "Did you mean crop@data.eval_crop=resize?",
    "network@teacher.network=resnet9": "network@teacher.network=timm teacher.network.architecture=resnet9.",
    "teacher=resnet50": "For a network: teacher=online network@teacher.network=resnet50.",
    "teacher=None": "Did you mean teacher=none?",
    "optimizer.LR=1": "Did you mean 'lr'?",
    "baselines=scratch": "baselines expects a list: baselines=[scratch]",
    "tags=mine": "tags expects a list: tags=[mine]",
    "tags.mine=1": "tags expects a list: tags=[VALUE]",
    "selection.monitor=val/student/nll": "selection is a value and has no keys: use selection=VALUE",
    "seed.first=1": "seed is a value and has no keys: use seed=VALUE",
    "optimizer.lr.start=1": "optimizer.lr is a value and has no keys: use optimizer.lr=VALUE",
    "losses=[kl,]": "remove the comma before the bracket",
    "ckpt_path=epoch=1-step=10.ckpt": """quote a value that contains '=': 'ckpt_path="epoch=1-step=10.ckpt"'""",
    "compile=true": "'teacher' or 'both'",
    "trainer.compile=true": "use compile=teacher or compile=both",
    "channels_last=true": "speed=safe",
    "swa=true": "use callbacks=ema",
    "hydra.run.dir=": "Missing value: hydra.run.dir=",
    "name=": "Missing value: name=. Write name=VALUE",
    "help": "did you mean --help?",
    "seed": "Unexpected word 'seed': expected KEY=VALUE",
    "--config-dir": "Missing value for option --config-dir",
    "--multi": "Did you mean '--multirun'?",
}


@pytest.mark.parametrize(("word", "answer"), WORDS.items(), ids=WORDS.keys())
def test_word_is_answered(command: Command, word: str, answer: str) -> None:
    code, _, err = command("train", "--cfg", "job", word)
    assert code == 2 and answer in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["seed=", "1"], "Did you mean seed=1? Write KEY=VALUE without spaces"),
        (["seed", "=1"], "without spaces, e.g. seed=1"),
        (["--config-dir", "seed=1"], "Missing value for option --config-dir"),
    ],
)
def test_spaces_are_explained(words: list[str], answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(words)
    assert answer in str(error.value)


@pytest.mark.parametrize(("key", "read"), [("1", "1 (int)"), ("0.5", "0.5 (float)"), ("on", "True (bool)")])
def test_a_key_that_yaml_reads_as_another_type_is_explained(command: Command, tmp_path: Path, key: str, read: str) -> None:
    (tmp_path / "mine" / "losses").mkdir(parents=True)
    (tmp_path / "mine" / "losses" / "sharp.yaml").write_text(f"{key}: {{_target_: kdx.losses.objective.Term}}\n")
    code, _, err = command("train", "--cfg", "job", "--config-dir=mine", "losses=[sharp]")
    assert code == 2 and f"YAML reads a key as {read}; put it in quotes" in err


def test_the_version_is_that_of_kdx(command: Command) -> None:
    assert command("train", "--version")[:2] == (0, f"kdx {kdx.__version__}\n")


def test_another_command_is_not_answered_with_keys_of_training(command: Command) -> None:
    code, _, err = command("evaluate", "run=somewhere", "lr=0.1")
    assert code == 2 and "Unknown key 'lr'" in err and "optimizer.lr" not in err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["network=resnet50", "severites=[1]"], "Unknown key 'severites'. Did you mean 'severities'?"),
        (["network=resnet5000"], "For a timm architecture: network=timm network.architecture=resnet5000."),
    ],
)
def test_a_network_to_evaluate_is_not_taken_for_a_mistake(command: Command, words: list[str], answer: str) -> None:
    code, _, err = command("evaluate", "checkpoint=somewhere", *words)
    assert code == 2 and answer in err and "student" not in err


def test_a_typo_lists_the_users_own_options(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "losses").mkdir(parents=True)
    (tmp_path / "mine" / "losses" / "sharp.yaml").write_text("sharp: {}\n")
    code, _, err = command("train", "--config-dir=mine", "losses=[sharpp]")
    assert code == 2 and "Did you mean 'sharp'? Available: at, ce," in err and ", sharp, " in err


def test_every_key_of_the_table_exists(plain_config: Callable[..., DictConfig]) -> None:
    cfg = plain_config("experiment=none", "losses=[kl,ce]", "optimizer=sgd", "data.num_workers=0")
    for key in set(KEYS.values()):
        name = key.partition("=")[0].partition("@")[0]
        if name.startswith("hydra.") or (conf_dir() / name).is_dir():
            continue
        assert OmegaConf.select(cfg, name, default="absent") != "absent", key
    for word in KEYS:
        assert key_for(word, "1"), word


def test_new_names_exist() -> None:
    for (group, old), new in OPTIONS.items():
        assert (conf_dir() / group / f"{new}.yaml").is_file() and not (conf_dir() / group / f"{old}.yaml").exists()
    for old in TARGETS:
        target = {"schedules": f"{old}.CosineLr", "shampoo": f"{old}.Shampoo"}.get(old.rpartition(".")[2], old)
        assert signature(str(target_for(target))) is not None


def test_a_word_inside_another_group_is_not_answered() -> None:
    assert key_for("trainer.lr") is None and key_for("teacher.alpha") is None and key_for("nonsense") is None


def test_words_are_sorted_into_options_and_overrides() -> None:
    given = parse(["a=1", "-m", "--cfg", "job", "b=2", "--info", "c=3", "-p", "losses"])
    assert given.overrides == ("a=1", "b=2", "c=3")
    assert given.for_hydra[:4] == ["--multirun", "--cfg=job", "--info", "--package=losses"]
    with pytest.raises(ConfigError, match="expected the name of a YAML file"):
        parse(["--config-name"])
