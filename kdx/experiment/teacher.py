"""Where a run's teacher comes from: a file, timm, or a training run of its own, done once and kept."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

import kdx
from kdx.config.check import check, members
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint as data_fingerprint
from kdx.teachers.store import WEIGHTS, Store, fingerprint
from kdx.training.ranks import rank

log = logging.getLogger("kdx")

# What a trained network's weights do not depend on.
IRRELEVANT = ("name", "tags", "outputs", "logger", "callbacks", "ckpt_path", "test", "metrics", "baseline", "baselines")

# What of the data settings they do; the images themselves have a fingerprint of their own.
DETERMINING = ("eval_crop", "train_size", "val_share", "test_share", "split_seed", "batch_size", "on_bad_image")


def graduate(cfg: DictConfig, member: DictConfig) -> DictConfig:
    """The config of the run that trains this member of the teacher: the run of `cfg` without a teacher, changed by the recipe.

    A recipe is a diff in the keys of a run. A node with a `_target_` replaces the run's own, however deep; others are merged.
    """
    recipe: Any = OmegaConf.to_container(member.recipe, resolve=True)
    side = member.resolution or cfg.resolution.teacher
    resolution = {"teacher": side, "student": side}
    fixed: dict[str, Any] = {"name": "teacher", "teacher": None, "calibration": None, "temperature": None, "mixing": None}
    fixed |= {"losses": {}, "student": member.network, "peers": None, "resolution": resolution}
    fixed |= {"logger": None, "ckpt_path": None, "callbacks": cfg.callbacks, "baseline": None, "baselines": []}
    run = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    with open_dict(run):
        for key, value in {**fixed, **recipe}.items():
            run[key] = value if key in fixed else overlay(run[key], value, merge=key == "trainer")
    assert isinstance(run, DictConfig)
    return run


def overlay(base: Any, diff: Any, merge: bool = False) -> Any:
    """`base` changed by `diff`, where a node with a `_target_` counts as one value, unless `merge`."""
    if not isinstance(diff, dict) or not isinstance(base, DictConfig) or ("_target_" in diff and not merge):
        return diff
    changed = {key: overlay(base.get(key), value) for key, value in diff.items()}
    return OmegaConf.create({**{key: base[key] for key in base if key not in changed}, **changed})


def key(cfg: DictConfig, splits: Mapping[SplitName, Images], source: Any) -> str:
    """The fingerprint of the weights that `cfg` trains: config, pixels and labels, version of kdx.

    `splits` are what `source` reads; a teacher that learns from another source has that one's config in its fingerprint.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    config = {name: value for name, value in plain.items() if name not in IRRELEVANT}
    monitored = plain["monitor"].rpartition("/")[2]
    if monitored in plain["metrics"]:  # it chooses the weights
        config["metrics"] = {monitored: plain["metrics"][monitored]}
    config["resolution"] = plain["resolution"]["student"]
    hardware = ("devices", "num_nodes", "strategy", "accelerator", "enable_progress_bar", "log_every_n_steps")
    config["trainer"] = {k: v for k, v in plain["trainer"].items() if k not in hardware}
    config["data"] = {k: v for k, v in plain["data"].items() if k in DETERMINING}
    if cfg.data.source != source:
        config["data"]["source"] = plain["data"]["source"]
    if plain["student"].get("init"):
        with open(plain["student"]["init"], "rb") as file:
            config["student"]["init"] = hashlib.file_digest(file, "sha256").hexdigest()
    return fingerprint({"config": config, "data": data_fingerprint(splits), "kdx": kdx.__version__})


Train = Callable[[DictConfig, Path], None]


def obtain(cfg: DictConfig, splits: Mapping[SplitName, Images], train: Train) -> dict[str, Path | None]:
    """The file with each member's weights, by name, after training those that nobody has yet; None where timm brings them."""
    return {path.rpartition(".")[2]: _obtain(cfg, member, splits, train) for path, member in members(cfg).items()}


def _obtain(cfg: DictConfig, member: DictConfig, splits: Mapping[SplitName, Images], train: Train) -> Path | None:
    if member.checkpoint is not None:
        return Path(member.checkpoint)
    if member.network.get("pretrained"):
        return None
    recipe = check(graduate(cfg, member))
    store = Store(Path(cfg.outputs) / "teachers")
    name = key(recipe, splits, cfg.data.source)

    if rank() > 0:  # joins the training that rank 0 does under the lock, and waits for its result
        if not store.has(name):
            train(recipe, store.root / f"{name}.part")
        while not store.has(name):
            time.sleep(0.1)
        return store.folder(name) / WEIGHTS
    if not store.has(name):
        log.info("training the teacher %s first; later runs find it in %s", member.network.architecture, store.root)
    return store.obtain(name, functools.partial(train, recipe), log.info) / WEIGHTS
