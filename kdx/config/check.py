"""The typed spine of a run, and `check`, which finds mistakes before torch is imported, data read or weights touched."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from kdx.config.baselines import as_baseline
from kdx.config.other_words import key_for, target_for
from kdx.config.plugins import refusal
from kdx.config.run_as_teacher import adopted
from kdx.config.schema import NESTED, MemberConfig, Node, RunConfig
from kdx.config.signatures import NotFoundError, signature
from kdx.networks.names import check_architecture
from kdx.ranges import explain


class ConfigError(ValueError):
    """A configuration that cannot run. The message ends with the remedy."""


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def check(cfg: DictConfig) -> DictConfig:
    """The config, typed and resolved; reads no data, imports no torch. ConfigError names the key, the mistake, the remedy."""
    try:
        typed = OmegaConf.merge(OmegaConf.structured(RunConfig), cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_omegaconf(error)) from None
    missing = sorted(OmegaConf.missing_keys(typed))
    if missing:
        raise ConfigError(f"Missing required option: {missing[0]}=...")
    try:
        container: Any = OmegaConf.to_container(typed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_omegaconf(error)) from None
    plain: Node = {
        key: value if value != {} or key == "losses" else None for key, value in container.items()
    }  # none.yaml is empty
    _check_ranges(RunConfig, plain)
    _check_groups(plain)
    plain = _as_baseline(plain)
    _check_members(plain)
    for path, node in targets(plain):
        _check_node(path, node)
    _check_recipe(plain)
    _check_files(plain)
    _check_selection(plain)
    if plain["teacher"] is None and plain["calibration"] is not None:
        raise ConfigError("Cannot calibrate without a teacher: add calibration=none")
    resolved = OmegaConf.create(plain)
    assert isinstance(resolved, DictConfig)
    return resolved


def nearest(word: str, known: list[str]) -> str:
    """A sentence that names the most similar known word; empty if none is similar."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(path: str, known: list[str]) -> str:
    """What to say of a key that does not exist: the nearest one, else all there are."""
    word = path.split(".")[-1]
    available = [key for key in known if key != "hydra" and not key.startswith("_")]
    other = key_for(path) if "." in path or "trainer" in known else None  # at the root, only where these are keys of a run
    if other is None or word in available:
        hint = nearest(word, available) or (f" Available: {', '.join(available)}" if available else "")
    else:
        hint = f" Did you mean {other}?"
    return f"Unknown key '{path}'.{hint}"


def explain_omegaconf(error: OmegaConfBaseException) -> str:
    """One line for an unknown key, a wrong type or a broken interpolation."""
    key = error.full_key or str(error.key or "")
    parent = error.parent_node
    if "not in" in str(error) or "Key '" in str(error):
        known = [str(k) for k in parent] if isinstance(parent, DictConfig) and not parent._is_none() else []
        known = known or ([f.name for f in fields(error.object_type)] if is_dataclass(error.object_type) else [])
        return unknown(key, known)
    return f"{key + ': ' if key else ''}{(str(error).strip().splitlines() or [''])[0]}"


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Node]]:
    """(path, node) of every node with a `_target_`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, f"{path}[{i}]")


def _check_ranges(schema: type, values: Node, path: str = "") -> None:
    known = [item.name for item in fields(schema)]
    for key in values:
        if key not in known:  # OmegaConf lets unknown keys into a group that may be None
            raise ConfigError(unknown(f"{path}{key}", known))
    for item in fields(schema):
        value = values.get(item.name)
        where = f"{path}{item.name}"
        if "range" in item.metadata:
            _fit(where, value, item.metadata["range"])
        nested = NESTED.get(item.name)
        if nested is not None and isinstance(value, dict):
            _check_ranges(nested, value, f"{where}.")


def _check_groups(plain: Node) -> None:
    """No key was added to a group that is none."""
    for group in ("mixing", "augmentation", "calibration", "temperature"):
        node = plain[group]
        if isinstance(node, dict) and "_target_" not in node and all(not isinstance(value, dict) for value in node.values()):
            key = f"{group}.{next(iter(node))}"
            raise ConfigError(f"Cannot set `{key}`: config group `{group}` is `none`. Select an option first: {group}=OPTION")


def _fit(path: str, value: Any, annotation: Any) -> None:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{path}={value}: {explain(error)}") from None


def renamed(target: str) -> str | None:
    """What to say of a class of an earlier version; None for others."""
    new = target_for(target)
    return None if new is None else f"this name is from kdx 0.1; use {new}"


def _check_node(path: str, node: Node) -> None:
    """The constructor at `_target_` exists and takes these arguments."""
    target = str(node["_target_"])
    reason = renamed(target) or refusal(target)
    if reason is not None:
        raise ConfigError(f"{path}._target_={target}: {reason}")
    try:
        found = signature(target)
    except NotFoundError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    if found is None:  # only importing would tell; building the object will
        return
    arguments = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    for key, value in arguments.items():
        if key not in found.parameters and not found.open:
            known = [name for name in found.parameters if not name.startswith("_")]
            raise ConfigError(unknown(f"{path}.{key}", known))
        if not any(True for _ in targets(value)):
            annotation = found.parameters.get(key, Any)
            if annotation is not Any:
                _fit(f"{path}.{key}", value, annotation)
    absent = sorted(found.required - set(arguments))
    if absent and not node.get("_partial_"):
        raise ConfigError(f"Missing required option: {path}.{absent[0]}=...")
    if "architecture" in arguments:
        try:
            check_architecture(arguments["architecture"])
        except ValueError as error:
            raise ConfigError(f"{path}.architecture: {error}") from None


def members(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's members by their path in the config: one at "teacher", or those of an ensemble; none without a teacher."""
    teacher = plain["teacher"]
    if teacher is None:
        return {}
    if teacher["members"] is None:
        return {"teacher": teacher}
    return {f"teacher.members.{name}": member for name, member in teacher["members"].items()}


def _as_baseline(plain: Node) -> Node:
    try:
        return as_baseline(plain, _option)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _option(name: str) -> Node:
    """What `conf/NAME.yaml` says."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    return loaded


def _check_members(plain: Node) -> None:
    """Every member knows its network; the student of a finished run brings network, weights and resolution with it."""
    for path, member in members(plain).items():
        _check_ranges(MemberConfig if path != "teacher" else NESTED["teacher"], member, f"{path}.")
        if member["run"] is not None:
            try:
                member.update(adopted(member["run"]))
            except ValueError as error:
                raise ConfigError(f"{path}.run: {error}") from None
            if path == "teacher":  # its pixels are what resolution.teacher means
                plain["resolution"]["teacher"] = member["resolution"]
        if member["network"] is None:
            raise ConfigError(f"Missing required option: {path}.run=FOLDER (a finished run), or use teacher=online")
        member["recipe"] = member["recipe"] or {}
    if plain["teacher"] is not None and plain["peers"] is not None:
        raise ConfigError("Peers learn without a teacher: use teacher=none with peers=…, or peers=none")


def _check_selection(plain: Node) -> None:
    """What is to be selected is kept while training."""
    targets_of = [str(node.get("_target_", "")) for node in (plain["callbacks"] or {}).values() if isinstance(node, dict)]
    if plain["selection"] == "ema" and not any(target.endswith(".EMA") for target in targets_of):
        raise ConfigError("selection=ema needs the moving average of the weights: add callbacks=ema")


def _check_recipe(plain: Node) -> None:
    known = [f.name for f in fields(RunConfig)]
    for path, member in members(plain).items():
        for key in member["recipe"]:
            if key not in known:
                raise ConfigError(unknown(f"{path}.recipe.{key}", known))


def _check_files(plain: Node) -> None:
    named = {"ckpt_path": plain["ckpt_path"]}
    named |= {f"{path}.checkpoint": member["checkpoint"] for path, member in members(plain).items()}
    named |= {f"{path}.init": node.get("init") for path, node in targets(plain) if "architecture" in node}
    for key, value in named.items():
        if value is not None and not Path(value).is_file():
            raise ConfigError(f"{key}={value}: file not found; give a path that exists, or null")
    devices, accelerator = plain["trainer"].get("devices"), plain["trainer"].get("accelerator")
    cores = os.cpu_count() or 1
    if accelerator == "cpu" and isinstance(devices, int) and not 1 <= devices <= cores:
        raise ConfigError(f"trainer.devices={devices}, but this machine has {cores} CPU cores: give 1 to {cores}")
