"""Checkpoints to resume from: what `ckpt_path` may name, and whether it fits this run."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from kdx.config.errors import ConfigError
from kdx.config.influence import PLACE, UNRELATED, flat, relevant
from kdx.config.schema import RunConfig, to_plain
from kdx.run.folder import LAST, PREVIOUS

log = logging.getLogger("kdx")

LEARNER = ("distiller.", "objective.")  # prefixes of what a run trains in a checkpoint
SHOWN = 3  # names per line of a difference
# What may differ from the run of the checkpoint without changing what is trained, beside names, logs and the machine.
FREE = (
    *UNRELATED, *PLACE, "callbacks", "test", "metrics", "selection", "trainer.max_epochs", "trainer.max_steps",
    "trainer.num_sanity_val_steps", "trainer.limit_val_batches", "trainer.limit_test_batches",
)  # fmt: skip


class DamagedError(ConfigError):
    """A checkpoint cannot be read."""


def from_good_checkpoint(config: RunConfig, path: Path) -> RunConfig:
    """Return the config with the checkpoint at `path`, or with the last but one, with a warning, if it is damaged.

    Raises:
        ConfigError: If there is no checkpoint to resume from.
    """
    good = newest_good_checkpoint(path.parent) if path.name == LAST else None
    if good is None:
        check_checkpoint(path)
        return config
    return replace(config, ckpt_path=str(good))


def newest_good_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint in a folder, or the one before, with a warning, if it is damaged; None if there is none."""
    for path in (folder / LAST, folder / PREVIOUS):
        if path.is_file():
            try:
                check_checkpoint(path)
                return path
            except DamagedError as error:
                log.warning("%s; going on from an earlier state", str(error).partition(": ")[0])
    return None


def check_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint of a run, with tensors without data. ConfigError if the file is something else."""
    from_weights = f"to start from its weights, use ckpt_path=null student.init={path}"
    expected = "to resume, use the checkpoints/last.ckpt of a run"
    if not zipfile.is_zipfile(path):
        if path.suffix == ".safetensors":
            raise ConfigError(f"ckpt_path={path} holds weights, no state of the training: {expected}; {from_weights}")
        raise DamagedError(f"ckpt_path={path} is not a checkpoint, or is damaged: {expected}; {from_weights}")
    try:
        content: Any = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"ckpt_path={path} holds Python objects, which kdx does not load: {expected}; {from_weights}"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise DamagedError(f"ckpt_path={path} is damaged ({str(error).splitlines()[0]}): copy it again") from None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "loops" not in content or "optimizer_states" not in content:
        raise ConfigError(f"ckpt_path={path} holds weights, no state of the training: {expected}; {from_weights}")
    if not any(str(name).startswith(LEARNER[0]) for name in state):
        raise ConfigError(f"ckpt_path={path} is a checkpoint of another program: {expected}; {from_weights}")
    return dict(content)


def check_fit(config: RunConfig, learner: Mapping[str, Any], total_steps: int) -> list[str]:
    """Return warnings if settings differ from those of the checkpoint's run, or if nothing is left to train.

    Args:
        config: The config of this run.
        learner: The state that this run trains, by the names in a checkpoint.
        total_steps: The number of optimizer steps of the whole training.

    Raises:
        ConfigError: If names or shapes of the checkpoint differ.
    """
    path = config.checkpoint
    assert path is not None
    content = check_checkpoint(path)
    saved = {name: value for name, value in content["state_dict"].items() if name.startswith(LEARNER)}
    changed = _changes(path, config)
    lines = _differences(saved, learner)
    if lines:
        because = f"; {changed} in its run" if changed else ""
        raise ConfigError(
            f"ckpt_path={path} is of a run with other networks or losses{because}. Use the same settings, or start from the "
            "student's weights with ckpt_path=null student.init=RUN/student.safetensors"
            + "".join(f"\n  {line}" for line in lines)
        )
    warnings = []
    if changed:
        warnings.append(f"ckpt_path: {changed} in the run of the checkpoint; the optimizer's state and lr come from that run")
    done = int(content["global_step"])
    if done >= total_steps:
        epochs = config.trainer.get("max_epochs")
        key = "trainer.max_steps" if epochs in (None, -1) else "trainer.max_epochs"
        warnings.append(
            f"ckpt_path: nothing is left to train ({done} of {total_steps} steps are done), so the run is only measured again; "
            f"to train on, increase {key}={config.trainer[key.partition('.')[2]]}"
        )
    return warnings


def _differences(saved: Mapping[str, Any], learner: Mapping[str, Any]) -> list[str]:
    """Return the difference of two states in at most three lines. A state that is no tensor is its owner's to check."""
    both = [name for name in saved if isinstance(saved[name], Tensor) and isinstance(learner.get(name), Tensor)]
    found = {
        "only in the checkpoint": [name for name in saved if name not in learner],
        "only in this run": [name for name in learner if name not in saved],
        "other shapes": [
            f"{name} {list(saved[name].shape)} there, {list(learner[name].shape)} here"
            for name in both
            if saved[name].shape != learner[name].shape
        ],
    }
    return [
        f"{title}: {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
        for title, names in found.items()
        if names
    ]


def _changes(path: Path, config: RunConfig) -> str:
    """Return the values that differ in the run of the checkpoint, as KEY=VALUE; empty if there are none or no config.yaml."""
    file = path.absolute().parent.parent / "config.yaml"
    if not file.is_file():
        return ""
    there = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(there, dict):
        return ""
    old, new = relevant(flat(there), FREE), relevant(flat(to_plain(config)), FREE)
    changed = [f"{key}={old[key]}" for key in old if key in new and old[key] != new[key]]
    return ", ".join(changed[:SHOWN])
