"""A teacher's training is decided by its recipe, and by what the recipe takes from the run; its key knows all of that."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import formats
import pytest
import torch

from kdx.config.check import check_plain
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig, to_plain
from kdx.experiment.teacher import IRRELEVANT, key, teacher_run
from kdx.networks import weights
from kdx.networks.network import Network

Config = Callable[..., RunConfig]
Train = Callable[..., Path]


def key_of(cfg: RunConfig) -> str:
    assert cfg.teacher is not None
    return key(teacher_run(cfg, cfg.teacher), {}, cfg.data.source)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.max_steps=3"],
        ["views.seed=7", "views.distinct_epochs=2"],
        ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"],
        ["trainer.accumulate_grad_batches=4", "trainer.gradient_clip_val=0.1", "trainer.check_val_every_n_epoch=5"],
        ["+trainer.overfit_batches=1", "trainer.deterministic=true"],
        ["callbacks=ema", "selection=ema"],
        ["teacher.precision=bf16-mixed", "compile=both", "trainer.check_val_every_n_epoch=auto"],
        ["monitor=val/student/nll", "monitor_mode=min"],
        ["metrics=[margin]", "monitor=val/student/margin"],
        ["selection=last", "callbacks=none"],
        ["optimizer=sgd", "optimizer.lr=1", "decay=all", "trainable=head", "lr_schedule=constant"],
        ["losses=[kl]", "temperature=curriculum", "calibration=none", "mixing=mixup", "seed=7"],
        ["network@student=cifar_resnet14", "resolution.student=6", "data.teacher_view=student", "data.train_size=50"],
        ["interpolation.student=bilinear_aliased", "interpolation.student_from=teacher"],
        ["name=other", "tags=[a]", "test=false", "preflight=warn", "logger=none", "data.num_workers=2", "data.loader=streamed"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_no_setting_of_the_student_changes_its_teacher(config: Config, overrides: list[str]) -> None:
    plain, changed = config("experiment=cqkd_digits"), config("experiment=cqkd_digits", *overrides)
    assert plain != changed
    assert key_of(plain) == key_of(changed)


def test_speed_max_compiles_what_is_not_said_otherwise(config: Config) -> None:
    compiled = [config("speed=max", *words).compile for words in ([], ["compile=teacher"])]
    assert compiled == ["both", "teacher"] and config("speed=safe").compile is None


LESS = ["teacher.recipe.takes=[data]", "+views@teacher.recipe.views=same_rc", "+augmentation@teacher.recipe.augmentation=none"]
LESS += ["+teacher.recipe.interpolation={teacher: bilinear, student: bilinear}"]


@pytest.mark.parametrize("override", ["data.flip=true", "data.batch_size=32", "data.val_share=0.3"])
def test_a_recipe_takes_the_data(config: Config, override: str) -> None:
    assert key_of(config("experiment=ctkd_digits")) != key_of(config("experiment=ctkd_digits", override))


@pytest.mark.parametrize("override", ["views=same_ic", "augmentation=blur", "interpolation.teacher=area"])
def test_a_recipe_takes_the_views_unless_it_states_its_own(config: Config, override: str) -> None:
    own = ["experiment=ctkd_digits"]
    assert key_of(config(*own)) != key_of(config(*own, override))
    assert key_of(config(*own, *LESS)) == key_of(config(*own, *LESS, override))


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else []
    for name, value in items:
        yield from leaves(value, (*path, name)) if isinstance(value, (dict, list)) and value else [(*path, name)]


OTHER = {bool: lambda value: not value, int: lambda value: value + 1, float: lambda value: value / 2 + 0.01}


def test_every_setting_of_the_teachers_run_that_changes_weights_changes_the_key(config: Config) -> None:
    cfg = config("experiment=funmatch_digits", "teacher.recipe.optimizer.lr=0.002")
    assert cfg.teacher is not None
    run = teacher_run(cfg, cfg.teacher)
    changed, irrelevant = 0, 0
    for path in leaves(to_plain(run)):
        plain = copy.deepcopy(to_plain(run))
        parent = plain
        for name in path[:-1]:
            parent = parent[name]
        other = OTHER.get(type(parent[path[-1]]))
        if other is None:
            continue
        parent[path[-1]] = other(parent[path[-1]])
        try:
            mutated = check_plain(plain)
        except ConfigError:
            continue
        inert = any(f"{'.'.join(map(str, path))}.".startswith(f"{prefix}.") for prefix in IRRELEVANT)
        differs = key(mutated, {}, cfg.data.source) != key(run, {}, cfg.data.source)
        assert differs is not inert, path
        changed, irrelevant = changed + differs, irrelevant + (not differs)
    assert changed > 25 and irrelevant > 5


def test_the_code_of_a_plug_in_is_part_of_the_key(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDX_PLUGIN_FOLDERS", str(tmp_path))
    source = "import kdx.losses.ce\nclass Mine(kdx.losses.ce.CE):\n    pass\n"
    (tmp_path / "own_loss_of_a_teacher.py").write_text(source)
    own = ["experiment=cqkd_digits", "teacher.recipe.losses.ce.loss._target_=own_loss_of_a_teacher.Mine"]
    before = key_of(config(*own))
    assert key_of(config(*own)) == before
    (tmp_path / "own_loss_of_a_teacher.py").write_text(source + "\n    weight = 2\n")
    assert key_of(config(*own)) != before


def test_a_rehearsal_trains_the_teacher_as_briefly_as_the_student_and_keeps_it_apart(config: Config) -> None:
    cfg = config("experiment=cqkd_digits", "debug=limit")
    assert cfg.teacher is not None
    trainer = teacher_run(cfg, cfg.teacher).trainer
    assert trainer["max_epochs"] == 1 and trainer["limit_train_batches"] == cfg.trainer["limit_train_batches"] == 4
    assert key_of(cfg) != key_of(config("experiment=cqkd_digits"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~teacher.recipe.decay"], "The teacher's recipe lacks decay, which it neither states nor takes"),
        (["teacher.recipe.takes=[dta]"], "Did you mean 'data'?"),
        (["teacher=finetune"], "teacher.finetune=true needs weights to start from: add teacher.network.init=FILE"),
    ],
)
def test_an_incomplete_recipe_is_refused(config: Config, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        key_of(config(*overrides))
    assert message in str(error.value)


@pytest.mark.long
def test_students_with_other_budgets_share_one_teacher(train: Train, teachers: Path) -> None:
    own = ["teacher.recipe.seed=41"]
    before = set((teachers / "teachers").glob("*/student.safetensors"))
    first = train("first", *own, "trainer.max_steps=3")
    second = train(
        "second", *own, "callbacks=ema", "monitor=val/student/nll", "monitor_mode=min", "trainer.limit_train_batches=1"
    )
    cards = [json.loads((folder / "teacher.json").read_text()) for folder in (first, second)]
    assert cards[0] == cards[1]
    assert len(set((teachers / "teachers").glob("*/student.safetensors")) - before) == 1


@pytest.mark.parametrize("option", ["finetune", "probe"])
def test_pretrained_weights_with_other_classes_start_the_teacher(train: Train, tmp_path: Path, option: str) -> None:
    torch.manual_seed(0)
    pretrained = Network("cifar_resnet8", 7, 1)
    file = tmp_path / "pretrained.safetensors"
    weights.save(pretrained.model, pretrained.card, file)
    own = [f"teacher={option}", "teacher.network.architecture=cifar_resnet8", f"teacher.network.init={file}"]
    folder = train("run", *own, "teacher.recipe.trainer.max_epochs=1", "preflight=warn")
    assert "for 1 epochs (teacher.recipe); later runs load it from" in (folder / "train.log").read_text()
    card = json.loads((folder / "teacher.json").read_text())["members"]["teacher"]
    trained, start = weights.read(Path(card["weights"])), pretrained.model.state_dict()
    same = {name for name in trained if trained[name].shape == start[name].shape and torch.equal(trained[name], start[name])}
    head = {"fc.weight", "fc.bias"}
    assert trained["fc.weight"].shape[0] == 10
    assert same == (set(trained) - head if option == "probe" else set())


def test_the_names_of_the_classes_beside_a_start_count_if_they_decide_its_last_layer(config: Config, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        formats.write_tree(tmp_path / "data" / split, {"ant": 2, "bee": 2}, ending="png")
    file, network, keys = tmp_path / "start.safetensors", Network("cifar_resnet8", 2, 3), []
    for names in (None, ["bee", "ant"], ["cat", "dog"]):
        weights.save(network.model, {**network.card, "label_names": names}, file)
        start = ["teacher=finetune", "network@teacher.network=cifar_resnet8", f"teacher.network.init={file}"]
        keys.append(key_of(config("experiment=none", "data=imagefolder", f"data.root={tmp_path / 'data'}", *start)))
    assert len(set(keys)) == 3
