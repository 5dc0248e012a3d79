"""The papers' recipes: what they set, what they say where data is missing, and two steps of each on files as published."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import formats
import pytest
import torch
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from papers import BIT_PAIRS, LIGHT, PAIRS, PATIENCE, PLUGINS

from kdx.config.check import check, conf_dir
from kdx.config.schema import to_plain
from kdx.experiment import build
from kdx.experiment.teacher import teacher_run
from kdx.networks import weights
from kdx.networks.network import Network

Command = Callable[..., tuple[int, str, str]]
Config = Callable[..., DictConfig]


def names(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


# Those that bring their data are in tests/test_conf.py.
RECIPES = [name for name in names("experiment") if name != "none" and not name.endswith(("_digits", "_glyphs"))]


def test_every_option_of_the_recipes_is_known_here() -> None:
    assert set(PAIRS) | set(BIT_PAIRS) == set(names("pair"))
    assert set(PATIENCE) == set(names("patience"))
    assert set(PLUGINS) == set(names("losses/ctkd"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a few images in the format of every data set that a recipe reads."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        formats.write_cifar100(root, patch, train=120)
        formats.write_flowers102(root, patch, sizes=(102, 10, 10))
        formats.write_pets(root)
        formats.write_food101(root, per_class=(1, 1))
        formats.write_sun397(root)
        formats.write_tree(root / "tree", {"cat": 20, "dog": 20})
        formats.write_imagenet(root / "imagenet")
        yield root


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which teachers are kept while this file is tested."""
    return tmp_path_factory.mktemp("kept")


def root(experiment: str, data: Path) -> str:
    """Where a recipe finds its images."""
    return f"data.root={data / ('imagenet' if 'imagenet' in experiment else 'tree' if experiment == 'funmatch' else '')}"


def fresh(folder: Path, architecture: str, num_classes: int, **args: Any) -> Path:
    """A file with untrained weights, written once."""
    path = folder / f"{architecture}-{num_classes}.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        network = Network(architecture, num_classes, 3, args=args)
        weights.save(network.model, network.card, path)
    return path


SHORT = (
    "trainer=cpu", "logger=none", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "data.batch_size=4", "data.loader=streamed",
    "data.num_workers=0",
)  # fmt: skip


def two_steps(command: Command, folder: Path, kept: Path, experiment: str, *overrides: str) -> Any:
    """Train by the recipe for two steps; gives the config of the run."""
    short = (*SHORT, f"outputs={kept}", f"hydra.run.dir={folder}", f"experiment={experiment}")
    code, _, err = command("train", *short, *overrides)
    assert code == 0, err
    found = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert math.isfinite(found["test/student/nll"])
    return OmegaConf.load(folder / "config.yaml")


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_takes_two_steps_of_the_papers_recipe(
    command: Command, tmp_path: Path, data: Path, kept: Path, pair: str
) -> None:
    teacher, student = PAIRS[pair]
    own = (f"pair={pair}", f"data.root={data}", f"teacher.checkpoint={fresh(kept, teacher, 100)}")
    cfg = two_steps(command, tmp_path / "run", kept, "ctkd_cifar100", *own)
    assert (cfg.teacher.network.architecture, cfg.student.architecture) == (teacher, student)
    assert cfg.optimizer.lr == (0.01 if student in LIGHT else 0.05)
    recipe = cfg.teacher.recipe
    assert recipe.optimizer == {**cfg.optimizer, "lr": 0.05} and recipe.trainer.max_epochs == 240
    assert cfg.optimizer.weight_decay == 5e-4 and cfg.optimizer.momentum == 0.9 and cfg.decay == "all"
    assert cfg.lr_schedule == recipe.lr_schedule and list(cfg.lr_schedule.milestones) == [150, 180, 210]
    assert "Curriculum" in cfg.temperature._target_ and cfg.views.crop.fraction == 4 / 32


@pytest.mark.long
@pytest.mark.parametrize("loss", PLUGINS)
def test_a_loss_takes_two_steps_and_its_baseline_is_at_four(
    command: Command, plain_config: Config, tmp_path: Path, data: Path, kept: Path, loss: str
) -> None:
    teacher = f"teacher.checkpoint={fresh(kept, 'cifar_resnet56', 100)}"
    own = ("pair=resnet56_resnet20", f"losses=[ctkd/{loss}]", f"data.root={data}", teacher)
    cfg = two_steps(command, tmp_path / "run", kept, "ctkd_cifar100", *own)
    plain = plain_config("experiment=ctkd_cifar100", *own, *SHORT, f"outputs={kept}", "temperature=constant")
    build.parts(check(plain))
    differ = {key for key in cfg if cfg[key] != plain[key]}  # with ckpt_path, null in the config of a run without one
    assert plain.temperature.value == 4 and differ - {"ckpt_path"} == {"temperature"}


# What makes the recipes' large networks small: narrow ones, few pixels, no weights from timm.
SMALL = ("resolution.teacher=32", "resolution.student=24")
BRIEF = ("teacher.network.pretrained=false", "teacher.recipe.trainer.max_epochs=1")
RESNET, TAUGHT = "student.architecture=test_resnet", ("teacher.network.architecture=test_resnet", *BRIEF)
BIT, CHANNELS = "resnetv2_50x1_bit", [128, 128, 128, 128]
NARROW = f"+student.args={{channels: {CHANNELS}}}"
TEACHER = (f"teacher.network.architecture={BIT}", f"+teacher.network.args={{channels: {CHANNELS}}}", BRIEF[0])
FINE_TUNED = (
    *TEACHER,
    "teacher.recipe.trainer.max_steps=2",
    "teacher.recipe.trainer.limit_test_batches=1",
    f"teacher.recipe.student.architecture={BIT}",
    f"+teacher.recipe.student.args={{channels: {CHANNELS}}}",
    "teacher.recipe.student.pretrained=false",
)
MEMBERS = [word.replace("teacher.", f"teacher.members.{name}.") for name in "ab" for word in TEACHER]
RUNS: dict[str, tuple[str, ...]] = {
    "supervised_cifar100": (),
    "ctkd_cifar100 temperature=curriculum_instance": (BRIEF[1],),
    "ctkd_imagenet": (RESNET, *TAUGHT),
    "cqkd_imagenet_supervised": (RESNET,),
    "cqkd_imagenet": (RESNET, *TAUGHT),
    "cqkd_imagenet_dml": (RESNET,),
    "funmatch": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-2"),
    "funmatch_flowers102": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-102"),
    "funmatch_pets": (NARROW, *FINE_TUNED),
    "funmatch_food101": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-101"),
    "funmatch_sun397": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-397"),
    "funmatch_pets_from_food101": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-37"),
    "funmatch_imagenet": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-1000"),
    "funmatch_imagenet pair=bit224_mobilenetv3": (*TEACHER, "teacher.checkpoint=NARROW-1000"),
    "funmatch_imagenet pair=bit384_224_bit224": (
        NARROW,
        *MEMBERS,
        "teacher.members.a.resolution=28",
        "teacher.members.a.checkpoint=NARROW-1000",
        "teacher.members.b.checkpoint=NARROW-1000",
    ),
    "funmatch_imagenet_shampoo": (NARROW, *TEACHER, "teacher.checkpoint=NARROW-1000"),
}


@pytest.mark.long
@pytest.mark.parametrize("recipe", RUNS)
def test_a_recipe_takes_two_steps(command: Command, tmp_path: Path, data: Path, kept: Path, recipe: str) -> None:
    experiment, *more = recipe.split()
    for word in RUNS[recipe]:
        key, _, num_classes = word.partition("=NARROW-")
        more.append(f"{key}={fresh(kept, BIT, int(num_classes), channels=CHANNELS)}" if num_classes else word)
    px = () if "cifar100" in experiment else SMALL
    two_steps(command, tmp_path / "run", kept, experiment, *px, *more, root(experiment, data))


def test_every_recipe_takes_two_steps() -> None:
    assert {recipe.split()[0] for recipe in RUNS} == set(RECIPES)


@pytest.mark.parametrize("experiment", RECIPES)
def test_missing_data_is_told_with_layout_and_remedy(command: Command, tmp_path: Path, experiment: str) -> None:
    code, _, err = command("train", f"experiment={experiment}", f"data.root={tmp_path}/nowhere")
    assert code == 2
    assert "nowhere: folder not found" in err and "Expected layout: ROOT/" in err and "Correct data.root" in err
    assert experiment == "funmatch" or "data.download=true downloads it" in err or "image-net.org" in err


def test_without_a_root_the_key_is_asked_for(command: Command) -> None:
    code, _, err = command("train", "experiment=ctkd_cifar100")
    assert code == 2 and "Missing required option: data.root" in err and "data.download=true" in err


@pytest.mark.parametrize("patience", PATIENCE)
def test_patience_is_that_of_table_4(plain_config: Config, data: Path, patience: str) -> None:
    dataset = patience.rpartition("_")[0]
    cfg = plain_config(f"experiment=funmatch_{dataset}", f"patience={patience}", f"data.root={data}")
    build.parts(check(cfg))
    found = (cfg.temperature.value, cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.trainer.max_epochs)
    assert found == PATIENCE[patience]
    assert cfg.trainer.max_epochs % cfg.trainer.check_val_every_n_epoch == 0
    assert cfg.data.eval_crop.fraction == 128 / 160
    assert cfg.data.batch_size == (510 if dataset == "flowers102" else 512) and cfg.lr_schedule.warmup_steps == 1500


@pytest.mark.parametrize("pair", BIT_PAIRS)
def test_a_funmatch_pair_has_the_papers_pixels(plain_config: Config, data: Path, pair: str) -> None:
    cfg = plain_config("experiment=funmatch_imagenet", f"pair={pair}", f"data.root={data}/imagenet")
    build.parts(check(cfg))
    members = [cfg.teacher] if cfg.teacher.members is None else list(cfg.teacher.members.values())
    teachers, student = BIT_PAIRS[pair]
    assert [member.resolution or cfg.resolution.teacher for member in members] == teachers
    assert [member.network.architecture.endswith("_384") for member in members] == [px == 384 for px in teachers]
    assert cfg.resolution.student == student and cfg.teacher.combine == "logits"


def test_funmatch_on_imagenet_is_the_papers(plain_config: Config) -> None:
    cfg = plain_config("experiment=funmatch_imagenet", "data.root=somewhere")
    assert cfg.data.batch_size == 4096 and cfg.lr_schedule.warmup_steps == 5000 and cfg.data.val_share == 0.02
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.decay) == (0.03, 3e-4, "kernels")
    assert cfg.trainer.gradient_clip_val == 1.0 and cfg.temperature.value == 1.0 and list(cfg.losses) == ["kl"]
    crop = {"_target_": "kdx.views.crops.Inception", "area": [0.05, 1.0], "aspect": [3 / 4, 4 / 3], "law": "side"}
    endless = {"seed": None, "distinct_epochs": None}
    assert cfg.views == {"_target_": "kdx.views.policies.SharedView", "crop": crop, **endless}
    assert cfg.mixing == {"_target_": "kdx.views.mixing.Mixup", "concentration": 1.0, "per": "batch"}


def test_the_fine_tuned_teacher_does_not_depend_on_the_patience(config: Config) -> None:
    own = ("experiment=funmatch_flowers102", "data.root=somewhere")
    found = [
        OmegaConf.create(to_plain(teacher_run(cfg, cfg.teacher)))
        for cfg in (config(*own, f"patience=flowers102_{name}") for name in ("1k", "1m"))
    ]
    assert found[0] == found[1]
    assert found[0].trainer.max_steps == 500 and found[0].optimizer.lr == 0.003 and found[0].mixing is None
    assert found[0].student.pretrained and found[0].student.architecture == "resnetv2_152x2_flax.goog_in21k"


def test_the_cqkd_runs_differ_only_in_what_teaches(plain_config: Config) -> None:
    own = ("data.root=somewhere", "resolution.student=56")
    labels, taught, peers = (plain_config(f"experiment=cqkd_imagenet{end}", *own) for end in ("_supervised", "", "_dml"))
    for other in (taught, peers):
        different = {key for key in labels if labels[key] != other[key]}
        assert different <= {"name", "logger", "teacher", "peers", "temperature", "losses"}
    assert taught.temperature.value == 10 and peers.temperature.value == 1 and taught.losses == peers.losses
    assert {name: term.weight for name, term in taught.losses.items()} == {"kl": 0.5, "ce": 0.5}
    assert peers.peers.combine == "losses"
    assert [member.architecture for member in peers.peers.members.values()] == ["resnet18", "resnet18"]
    assert taught.teacher.network.architecture == "resnet50.tv_in1k" and taught.teacher.network.pretrained
    assert labels.resolution == {"teacher": 224, "student": 56} and labels.lr_schedule.rise == 0.1
    assert (labels.optimizer.lr, labels.optimizer.weight_decay, labels.decay) == (1e-3, 0.01, "all")
    assert (labels.augmentation.num_ops, labels.augmentation.magnitude) == (2, 9) and labels.trainer.max_epochs == 20


@pytest.mark.parametrize("loss", names("losses/ctkd_imagenet"))
def test_ctkd_on_imagenet_is_the_papers(plain_config: Config, data: Path, loss: str) -> None:
    cfg = plain_config("experiment=ctkd_imagenet", f"losses=[ctkd_imagenet/{loss}]", f"data.root={data}/imagenet")
    build.parts(check(cfg))
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.data.batch_size, cfg.trainer.max_epochs) == (0.1, 1e-4, 256, 120)
    assert list(cfg.lr_schedule.milestones) == [30, 60, 90] and cfg.temperature.ramp_epochs == 5 and cfg.decay == "all"


SWEEPS = {
    "temperature_lr": ("cqkd_digits", 12),
    "funmatch_grid": ("funmatch_pets", 80),
    "ctkd_pairs": ("ctkd_cifar100", 66),
    "ctkd_plugins": ("ctkd_cifar100", 42),
    "cqkd_small": ("cqkd_imagenet", 4),
    "cqkd_large": ("cqkd_imagenet", 2),
}


SEARCHES = {"digits_optuna", "digits_pareto"}  # of kdx-tune: tests/cli/test_tune.py


@pytest.mark.parametrize("search", [name for name in names("hparams_search") if name not in {"none", *SEARCHES}])
def test_a_grid_has_as_many_runs_as_it_says(command: Command, plain_config: Config, search: str) -> None:
    experiment, size = SWEEPS[search]
    shown = ("--cfg", "hydra", "--package", "hydra.sweeper.params")
    code, out, err = command("train", f"experiment={experiment}", f"hparams_search={search}", *shown)
    assert code == 0, err
    params = OmegaConf.create(out)
    words = [f"{key}={','.join(PAIRS) if 'glob' in str(value) else value}" for key, value in params.items()]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), max_batch_size=None)[0]
    assert len(jobs) == size
    plain_config(f"experiment={experiment}", "data.root=somewhere", *jobs[-1])
