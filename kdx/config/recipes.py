"""The members of a teacher in a config, and the recipes that train them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from kdx.config.errors import ConfigError, unknown
from kdx.config.schema import MemberConfig, Node, RunConfig
from kdx.config.trainer import check_trainer

# What a teacher's recipe may take from the run that needs the teacher.
TAKES = (
    "data",
    "views",
    "augmentation",
    "interpolation",
    "mixing",
    "optimizer",
    "lr_batch_size",
    "lr_schedule",
    "losses",
    "decay",
)


def members(plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the same as `RunConfig.members`, for plain data."""
    teacher = plain["teacher"]
    if teacher is None:
        return {}
    if teacher.get("members") is None:
        return {"teacher": teacher}
    return {f"teacher.members.{name}": member for name, member in teacher["members"].items()}


def in_members(key: str, names: Iterable[str]) -> str:
    """Return the message for a key of one network, such as teacher.checkpoint, that was set for an ensemble of `names`."""
    of_members = " ".join(f"teacher.members.{name}.{key.removeprefix('teacher.')}=..." for name in names)
    return f"Cannot set `{key}`: in an ensemble each member has its own: {of_members}"


def check_ensemble(plain: Mapping[str, Any]) -> None:
    """Raise ConfigError if an ensemble has a key of a single network, which would have no effect."""
    teacher = plain["teacher"] or {}
    for key in (item.name for item in fields(MemberConfig)):
        if teacher.get("members") is not None and teacher.get(key):
            raise ConfigError(in_members(f"teacher.{key}", teacher["members"]))


def check_recipes(plain: Node) -> None:
    """Raise ConfigError if a recipe has a key that is not one of a run, or a trainer that cannot train."""
    available = [f.name for f in fields(RunConfig)]
    for path, member in members(plain).items():
        for key in member["recipe"]:
            if key not in [*available, "takes"]:
                raise ConfigError(unknown(f"{path}.recipe.{key}", available))
        for key in member["recipe"].get("takes", []):
            if key not in TAKES:
                raise ConfigError(unknown(f"{path}.recipe.takes.{key}", list(TAKES)))
        if isinstance(member["recipe"].get("trainer"), dict):
            check_trainer(member["recipe"]["trainer"], f"{path}.recipe.trainer")
