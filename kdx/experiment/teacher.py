"""The weights of a run's teacher: from a file, from timm, or from a training run whose result is stored for later runs."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdx.config.check import MAY_BE_EMPTY, check_plain
from kdx.config.errors import ConfigError
from kdx.config.identity import code_of, digest
from kdx.config.influence import PLACE, UNRELATED, flat, relevant
from kdx.config.schema import AUTO, MemberConfig, Node, RunConfig, to_plain
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint as data_fingerprint
from kdx.experiment import build
from kdx.experiment.build import Parts
from kdx.experiment.teacher_classes import Outputs, outputs
from kdx.networks import metadata
from kdx.networks.normalization import of_weights
from kdx.run.provenance import VERSION
from kdx.teachers.store import WEIGHTS, Store
from kdx.training.ranks import rank
from kdx.views.policies import WHICH_EPOCHS

log = logging.getLogger("kdx")

NAME = "teacher"  # of the runs that train teachers

# What trained weights do not depend on, beside names, logs and the machine. Of the metrics, they depend on the monitored one;
# of the data set, on its pixels and labels, which have a fingerprint.
IRRELEVANT = (
    *UNRELATED,
    *PLACE,
    "test",
    "metrics",
    "baseline",
    "rehearsal",
    "resolution.teacher",
    "data.source",
    "data.teacher_view",
)
# What a teacher's training does without unless its recipe states it, and what it has from the run that needs the teacher.
NOT_OF_A_TEACHER = (
    *("teacher", "peers", "mixing", "augmentation", "calibration", "temperature"),
    *("logger", "lr_batch_size", "compile", "teacher_cache"),
)
OF_THE_RUN = ("outputs", "test", "preflight", "rehearsal", "speed", "teacher_cache_bits", "sweep", "max_attempts")


def teacher_run(config: RunConfig, member: MemberConfig) -> RunConfig:
    """Return the config of the run that trains this member of the teacher.

    The recipe states it in full, so the student's settings do not change a teacher. Only the keys in `recipe.takes` start from
    `config`, and the recipe changes them; a node with a `_target_` replaces the run's at any depth, others are merged.
    In a rehearsal, the teacher is trained for one epoch of as many batches as the student.

    Raises ConfigError if the recipe is incomplete.
    """
    side = member.resolution or config.resolution.teacher
    run, recipe = to_plain(config), to_plain(member.recipe or {})
    taken = {key: run[key] for key in recipe.pop("takes", ())} | {"student": to_plain(member.network)}
    if "views" in taken:  # the student's, not which epochs of them it sees
        taken["views"] = {name: value for name, value in run["views"].items() if name not in WHICH_EPOCHS}
    if "interpolation" in taken:  # in its own run, the teacher is in the place of the student
        taken["interpolation"] |= {"student": run["interpolation"]["teacher"], "student_from": "image"}
    without = dict.fromkeys(NOT_OF_A_TEACHER)
    own: dict[str, Any] = {"name": NAME, "tags": [], "losses": {}, "metrics": {}}
    own |= {"resolution": {"teacher": side, "student": side}, "baseline": None, "baselines": [], "measured": None}
    own |= {"ckpt_path": AUTO, "on_conflict": "refuse"}  # a teacher whose training was cut off goes on
    same = {key: run[key] for key in OF_THE_RUN}
    stated = {**without, **own, **same, **{key: value for key, value in recipe.items() if key not in taken}}
    stated |= {key: overlay(value, recipe[key]) if key in recipe else value for key, value in taken.items()}
    stated |= {key: None for key, value in stated.items() if value == {} and key not in MAY_BE_EMPTY}  # an option none.yaml
    if config.rehearsal:
        limits = {key: value for key, value in run["trainer"].items() if key.startswith("limit_")}
        stated["trainer"] = {**stated["trainer"], **limits, "max_epochs": 1, "max_steps": -1}
    missing = [name for name in run if name not in stated]
    if missing:
        raise ConfigError(
            f"The teacher's recipe lacks {missing[0]}, which it neither states nor takes: "
            f"add `/recipe@recipe: labels` to the defaults of the teacher's option, or {missing[0]} to recipe.takes"
        )
    return check_plain(stated)


def overlay(base: Any, diff: Any) -> Any:
    """Return `base` changed by `diff`; a node with a `_target_` is replaced as a whole."""
    if not isinstance(diff, Mapping) or not isinstance(base, Mapping) or "_target_" in diff:
        return diff
    changed = {key: overlay(base.get(key), value) for key, value in diff.items()}
    return {**{key: base[key] for key in base if key not in changed}, **changed}


def key(config: RunConfig, splits: Mapping[SplitName, Images], source: Node) -> str:
    """Return the fingerprint of the weights that `config` trains: config, own code, pixels and labels, version of kdx.

    Args:
        config: The config of the teacher's run.
        splits: The published splits of `source`.
        source: The data source of the student's run; a different source of the teacher enters the fingerprint by its config.
    """
    plain = to_plain(config)
    counted = relevant(flat(plain), IRRELEVANT)
    monitored = config.monitor.rpartition("/")[2]
    if monitored in config.metrics:  # the monitored metric selects the weights
        counted["metrics"] = {monitored: plain["metrics"][monitored]}
    if config.data.source != source:
        counted["data.source"] = plain["data"]["source"]
    if config.student.get("init"):
        start = Path(config.student["init"])
        with start.open("rb") as file:
            counted["student.init"] = hashlib.file_digest(file, "sha256").hexdigest()
        expected = of_weights(config.student.get("architecture"), start)
        if expected is not None:  # the values may stand beside the file
            counted["student.expected"] = [expected.mean, expected.std]
        outputs = metadata.outputs_by_name(start, build.make(config.data.source, "data.source").names)
        if outputs is not None:
            counted["student.init_outputs"] = list(outputs)
    code = code_of({**plain, "metrics": counted.get("metrics")})
    return digest({"config": counted, "code": code, "data": data_fingerprint(splits), "kdx": VERSION})


Train = Callable[[RunConfig, str, Path], None]  # a teacher's run, the key that is its identity, and its folder


@dataclass(frozen=True)
class MemberWeights:
    """The weights of a member of the teacher: their file (None: timm's pretrained weights), and the outputs that are used.

    `colors` are its `mean` and `std` in a run that has used it; empty in a new one.
    """

    file: Path | None
    outputs: Outputs
    colors: Mapping[str, Sequence[float]] = field(default_factory=dict)


def obtain(parts: Parts, splits: Mapping[SplitName, Images], train: Train) -> dict[str, MemberWeights]:
    """Return the weights of each member by name, after training missing ones."""
    return {path.rpartition(".")[2]: _obtain(parts, path, splits, train) for path in parts.config.members}


def existing(parts: Parts, path: str) -> Outputs | None:
    """Return the outputs of the weights that a member starts with; None if a run trains its weights by `recipe` first.

    Raises ConfigError if the weights are for other classes and are not to be trained further.
    """
    config, member = parts.config, parts.config.members[path]
    pretrained = bool(member.architecture.get("pretrained"))
    if member.finetune or (member.checkpoint is None and not pretrained):
        return None
    try:
        return outputs(path, member, parts.source.names, parts.num_classes, strict=config.preflight == "strict")
    except ConfigError:
        if member.checkpoint is not None or member.class_map is not None:
            raise
        return None


def _obtain(parts: Parts, path: str, splits: Mapping[SplitName, Images], train: Train) -> MemberWeights:
    config, member = parts.config, parts.config.members[path]
    known = existing(parts, path)
    if known is not None:
        if known.chosen is not None:
            how = "by name" if member.class_map is None else f"by {member.class_map}"
            log.info("%s: the data's %d classes are matched %s with %d outputs", path, parts.num_classes, how, known.count)
        return MemberWeights(Path(member.checkpoint) if member.checkpoint is not None else None, known)
    recipe = teacher_run(config, member)
    store = Store(Path(config.outputs) / "teachers")
    name = key(recipe, splits, config.data.source)
    trained = MemberWeights(store.folder(name) / WEIGHTS, Outputs(parts.num_classes))

    if rank() > 0:  # takes part in the training that rank 0 runs under the lock, then waits for the stored result
        if not store.has(name):
            train(recipe, name, store.root / f"{name}.part")
        store.arrival(name, log.info)
        return trained
    if not store.has(name):
        network, layers = member.architecture["architecture"], "the last layer of " if recipe.trainable == "head" else ""
        start = recipe.student.get("init") or ("pretrained weights" if recipe.student.get("pretrained") else "random weights")
        epochs, steps = recipe.trainer.get("max_epochs"), recipe.trainer.get("max_steps", -1)
        length = f"{epochs} epochs" if steps in (None, -1) else f"{steps} steps"
        text = "Training %sthe teacher %s first, from %s, for %s (%s.recipe); later runs load it from %s"
        log.info(text, layers, network, start, length, path, store.root)
    store.obtain(name, functools.partial(train, recipe, name), log.info)
    return trained
