"""`check` turns a composed config into a typed one and finds errors before torch is imported or data is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from kdx.config.baselines import Baseline, as_baseline
from kdx.config.errors import ConfigError, explain_omegaconf, invalid, refuse_masked, unknown
from kdx.config.monitor import check_monitors, possible_names
from kdx.config.plugins import check_run_config, check_targets, targets
from kdx.config.recipes import check_ensemble, check_recipes, members
from kdx.config.run_as_teacher import student_of_run
from kdx.config.schema import AUTO, MemberConfig, Node, RunConfig, TeacherConfig, hydra_schema
from kdx.config.selected import check_selected
from kdx.config.signatures import NotFoundError, signature
from kdx.config.trainer import check_callbacks, check_trainer
from kdx.metrics.names import OF_NETWORK, OF_PAIR
from kdx.networks.names import check_architecture, located
from kdx.ranges import explain

REPLACED = [("check_val_every_n_epoch", AUTO)]  # arguments that the constructor gets with another value
MAY_BE_EMPTY = ("losses", "metrics")  # every other empty group is the option `none`


def conf_dir() -> Path:
    """Return the folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def check(cfg: DictConfig) -> RunConfig:
    """Return the typed config of a composed one. Reads no data and does not import torch.

    Raises:
        ConfigError: names the key, the mistake and the remedy.
    """
    return check_plain(resolve(cfg))


def load(file: Path) -> RunConfig:
    """Return the checked config in a run's config.yaml. ConfigError if the file is not a config or is invalid."""
    loaded = OmegaConf.load(file)
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{file} is not a config; expected the config.yaml of a finished run")
    check_run_config(file.parent)
    return check_plain(resolve(loaded), files=False, own=False)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed config as plain data, merged onto the schema, with interpolations resolved. ConfigError if invalid."""
    try:
        typed = OmegaConf.merge(OmegaConf.structured(hydra_schema(RunConfig)), cfg)
        missing = sorted(OmegaConf.missing_keys(typed))
        if missing:
            raise ConfigError(f"Missing required option: {missing[0]}=...")
        container: Any = OmegaConf.to_container(typed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_omegaconf(error)) from None
    return {key: value if value != {} or key in MAY_BE_EMPTY else None for key, value in container.items()}  # none.yaml: {}


def check_plain(config: Mapping[str, Any], *, files: bool = True, own: bool = True) -> RunConfig:
    """Return the typed config of plain data, after checking ranges, targets, their arguments and contradictions.

    Args:
        config: the values by field.
        files: whether the files that it names must exist, and are stored as absolute paths.
        own: whether it is the user's own config, which may name the user's own modules; that of a run may come from anybody.

    Raises:
        ConfigError: names the key, the mistake and the remedy.
    """
    plain = deepcopy(dict(config))
    _check_fields(RunConfig, plain)
    check_selected(plain)
    plain = _as_baseline(plain)
    if plain["speed"] == "max":
        plain["compile"] = plain["compile"] or "both"
    _check_members(plain)
    check_targets(plain, own=own)
    for path, node in targets(plain):
        _check_node(path, node)
    check_trainer(plain["trainer"])
    check_callbacks(plain["callbacks"], plain["trainer"])
    check_monitors(plain, possible_names(plain), {**OF_NETWORK, **OF_PAIR})
    check_recipes(plain)
    if files:
        refuse_masked(plain)
        _check_files(plain)
    _check_selection(plain)
    if plain["teacher"] is None and plain["calibration"] is not None:
        raise ConfigError("Cannot calibrate without a teacher: add calibration=none")
    return _typed(plain)


def _check_fields(schema: type, values: Mapping[str, Any], path: str = "") -> None:
    """Raise ConfigError for keys that the schema lacks, because OmegaConf accepts unknown keys in a group that may be None."""
    hints = get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(unknown(f"{path}{key}", list(hints)))
        nested = next((kind for kind in (hints[key], *get_args(hints[key])) if is_dataclass(kind)), None)
        if isinstance(nested, type) and isinstance(value, dict):
            _check_fields(nested, value, f"{path}{key}.")


def _typed(plain: Mapping[str, Any]) -> RunConfig:
    """Return the dataclass, with every value validated against the range in its annotation."""
    try:
        return TypeAdapter(RunConfig).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        keys: list[str] = []
        value: Any = plain
        for key in first["loc"]:  # ends with the names of a union's alternatives, which are not keys
            if not isinstance(value, Mapping) or key not in value:
                break
            keys, value = [*keys, str(key)], value[key]
        raise ConfigError(invalid(".".join(keys), value, f"{first['msg']}, got {first['input']!r}")) from None


def _validate(path: str, value: Any, annotation: Any) -> None:
    """Raise ConfigError if the value does not match the annotation."""
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ConfigError(invalid(path, value, explain(error))) from None


def _check_node(path: str, node: dict[str, Any]) -> None:
    """Raise ConfigError if the constructor at `_target_` does not exist or does not accept these arguments."""
    target = str(node["_target_"])
    try:
        constructor = signature(target)
    except NotFoundError as error:
        raise ConfigError(f"{path}._target_={target}: {error}") from None
    if constructor is None:  # not known without an import; building the object checks the arguments
        return
    arguments = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    for key, value in arguments.items():
        if key not in constructor.parameters and not constructor.open:
            available = [name for name in constructor.parameters if not name.startswith("_")]
            raise ConfigError(unknown(f"{path}.{key}", available))
        if not any(True for _ in targets(value)):
            annotation = constructor.parameters.get(key, Any)
            if annotation is not Any and (key, value) not in REPLACED:
                _validate(f"{path}.{key}", value, annotation)
    missing = sorted(constructor.required - set(arguments))
    if missing and not node.get("_partial_"):
        raise ConfigError(f"Missing required option: {path}.{missing[0]}=...")
    if "architecture" in arguments:
        try:
            check_architecture(arguments["architecture"])
            node["architecture"] = located(arguments["architecture"])  # the run can be read from any folder
        except ValueError as error:
            raise ConfigError(f"{path}.architecture: {error}") from None


def _as_baseline(plain: dict[str, Any]) -> dict[str, Any]:
    _validate("baseline", plain.get("baseline"), Baseline | None)
    try:
        return as_baseline(plain, _option)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _option(name: str) -> dict[str, Any]:
    """Return the content of conf/NAME.yaml."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    return loaded


def _check_members(plain: dict[str, Any]) -> None:
    """Fill in network, weights and resolution of members that are finished runs; ConfigError if a member has no network."""
    check_ensemble(plain)
    for path, member in members(plain).items():
        _check_fields(TeacherConfig if path == "teacher" else MemberConfig, member, f"{path}.")
        if member.get("run") is not None:
            try:
                student = student_of_run(member["run"])
            except ValueError as error:
                raise ConfigError(f"{path}.run: {error}") from None
            if member.get("resolution") not in (None, student["resolution"]):
                raise ConfigError(
                    f"{path}.resolution={member['resolution']}, but the student of {path}.run was trained at "
                    f"{student['resolution']} px: use {path}.resolution=null"
                )
            member.update(student)
        if path == "teacher" and member.get("resolution") is not None:  # of a single network, both are one setting
            plain["resolution"]["teacher"] = member["resolution"]
        if member.get("network") is None:
            raise ConfigError(f"Missing required option: {path}.run=FOLDER (a finished run), or use teacher=online")
        member["recipe"] = member.get("recipe") or {}
        if member.get("finetune") and member.get("checkpoint") is not None:
            raise ConfigError(
                f"{path}.checkpoint and {path}.finetune=true exclude each other: use "
                f"{path}.network.init={member['checkpoint']} to train these weights further"
            )
        if member.get("finetune") and not (member["network"].get("pretrained") or member["network"].get("init")):
            raise ConfigError(
                f"{path}.finetune=true needs weights to start from: add {path}.network.init=FILE, or, for timm's, "
                f"{path}.network.pretrained=true"
            )
    if plain["teacher"] is not None and plain["peers"] is not None:
        raise ConfigError("Peers learn without a teacher: use teacher=none with peers=…, or peers=none")


def _check_selection(plain: Node) -> None:
    """Raise ConfigError if training does not keep the weights that `selection` names."""
    targets_of = [str(node.get("_target_", "")) for node in (plain["callbacks"] or {}).values() if isinstance(node, dict)]
    if plain["selection"] == "ema" and not any(target.endswith(".EMA") for target in targets_of):
        raise ConfigError("selection=ema needs the moving average of the weights: add callbacks=ema")


def _check_files(plain: dict[str, Any]) -> None:
    """Make paths absolute. ConfigError if a file does not exist or has no effect, or for more CPU cores than there are."""
    for path, member in members(plain).items():
        here, trained = member.get("checkpoint"), member.get("finetune") or not member["network"].get("pretrained")
        if member.get("key") is not None and here is None:
            raise ConfigError(
                f"{path}.key={member['key']} has no effect without {path}.checkpoint=FILE: set it, or {path}.key=null"
            )
        if member.get("class_map") is not None and here is None and trained:
            raise ConfigError(
                f"{path}.class_map={member['class_map']} has no effect on a teacher that is trained on the data first: "
                f"use trained weights, {path}.checkpoint=FILE, or {path}.class_map=null"
            )
        if member.get("run") is not None:
            member["run"] = str(Path(member["run"]).absolute())
    files = [("ckpt_path", plain, "ckpt_path")] if plain["ckpt_path"] != AUTO else []
    files += [(f"{path}.{key}", member, key) for path, member in members(plain).items() for key in ("checkpoint", "class_map")]
    files += [(f"{path}.init", node, "init") for path, node in targets(plain) if "architecture" in node]
    for name, node, key in files:
        if node.get(key) is not None:
            if not Path(node[key]).is_file():
                raise ConfigError(f"{name}={node[key]}: file not found; use an existing path, or null")
            node[key] = str(Path(node[key]).absolute())  # the run can be read from any folder
    devices, accelerator = plain["trainer"].get("devices"), plain["trainer"].get("accelerator")
    cores = os.cpu_count() or 1
    if accelerator == "cpu" and isinstance(devices, int) and not 1 <= devices <= cores:
        raise ConfigError(f"trainer.devices={devices}, but this machine has {cores} CPU cores; expected 1 to {cores}")
