"""The weights of a run's teacher: from a file, from timm, or from a training run whose result is stored for later runs."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdx.config.check import check_plain
from kdx.config.schema import MemberConfig, Node, RunConfig, to_plain
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint as data_fingerprint
from kdx.run.provenance import VERSION
from kdx.teachers.store import WEIGHTS, Store, fingerprint
from kdx.training.ranks import rank

log = logging.getLogger("kdx")

NAME = "teacher"  # of the runs that train teachers

# Config keys that trained weights do not depend on.
IRRELEVANT = (
    "name",
    "tags",
    "outputs",
    "logger",
    "callbacks",
    "ckpt_path",
    "test",
    "metrics",
    "baseline",
    "baselines",
    "measured",
)

# Data settings that trained weights depend on; the images have their own fingerprint.
DETERMINING = ("eval_crop", "train_size", "val_share", "test_share", "split_seed", "batch_size", "on_bad_image")


def teacher_run(config: RunConfig, member: MemberConfig) -> RunConfig:
    """Return the config of the run that trains this member of the teacher: `config` without a teacher, changed by the recipe.

    A recipe is a diff of a run's config. A node with a `_target_` replaces the node of the run at any depth; others are merged.
    """
    side = member.resolution or config.resolution.teacher
    fixed: dict[str, Any] = {"name": NAME, "teacher": None, "calibration": None, "temperature": None, "mixing": None}
    fixed |= {"losses": {}, "student": member.network, "peers": None, "resolution": {"teacher": side, "student": side}}
    fixed |= {
        "logger": None,
        "ckpt_path": None,
        "callbacks": config.callbacks,
        "baseline": None,
        "baselines": [],
        "measured": None,
    }
    run = to_plain(config)
    for key, value in {**fixed, **(member.recipe or {})}.items():
        run[key] = value if key in fixed else overlay(run[key], value, merge=key == "trainer")
    return check_plain(run)


def overlay(base: Any, diff: Any, merge: bool = False) -> Any:
    """Return `base` changed by `diff`; a node with a `_target_` is replaced as a whole, unless `merge`."""
    if not isinstance(diff, Mapping) or not isinstance(base, Mapping) or ("_target_" in diff and not merge):
        return diff
    changed = {key: overlay(base.get(key), value) for key, value in diff.items()}
    return {**{key: base[key] for key in base if key not in changed}, **changed}


def key(config: RunConfig, splits: Mapping[SplitName, Images], source: Node) -> str:
    """Return the fingerprint of the weights that `config` trains: config, pixels and labels, version of kdx.

    Args:
        config: The config of the teacher's run.
        splits: The published splits of `source`.
        source: The data source of the student's run; a different source of the teacher enters the fingerprint by its config.
    """
    plain = to_plain(config)
    relevant = {name: value for name, value in plain.items() if name not in IRRELEVANT}
    relevant["resolution"] = plain["resolution"]["student"]
    hardware = ("devices", "num_nodes", "strategy", "accelerator", "enable_progress_bar", "log_every_n_steps")
    relevant["trainer"] = {k: v for k, v in plain["trainer"].items() if k not in hardware}
    relevant["data"] = {k: v for k, v in plain["data"].items() if k in DETERMINING}
    if config.data.source != source:
        relevant["data"]["source"] = plain["data"]["source"]
    if config.student.get("init"):
        with open(config.student["init"], "rb") as file:
            relevant["student"]["init"] = hashlib.file_digest(file, "sha256").hexdigest()
    monitored = config.monitor.rpartition("/")[2]
    if monitored in config.metrics:  # the monitored metric selects the weights
        relevant["metrics"] = {monitored: plain["metrics"][monitored]}
    return fingerprint({"config": relevant, "data": data_fingerprint(splits), "kdx": VERSION})


Train = Callable[[RunConfig, Path], None]


def obtain(config: RunConfig, splits: Mapping[SplitName, Images], train: Train) -> dict[str, Path | None]:
    """Return the weights file of each member by name, after training missing ones; None for pretrained weights of timm."""
    return {path.rpartition(".")[2]: _obtain(config, member, splits, train) for path, member in config.members.items()}


def _obtain(config: RunConfig, member: MemberConfig, splits: Mapping[SplitName, Images], train: Train) -> Path | None:
    if not member.is_trained_first:
        return Path(member.checkpoint) if member.checkpoint is not None else None
    recipe = teacher_run(config, member)
    store = Store(Path(config.outputs) / "teachers")
    name = key(recipe, splits, config.data.source)

    if rank() > 0:  # takes part in the training that rank 0 runs under the lock, then waits for the stored result
        if not store.has(name):
            train(recipe, store.root / f"{name}.part")
        while not store.has(name):
            time.sleep(0.1)
        return store.folder(name) / WEIGHTS
    if not store.has(name):
        architecture = member.architecture["architecture"]
        log.info("Training the teacher %s first; later runs load it from %s", architecture, store.root)
    return store.obtain(name, functools.partial(train, recipe), log.info) / WEIGHTS
