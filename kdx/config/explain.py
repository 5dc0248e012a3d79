"""One-line messages, with a suggestion, for the config errors of Hydra, OmegaConf and kdx."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kdx.config import other_words
from kdx.config.errors import ConfigError, explain_omegaconf, nearest
from kdx.config.options import groups, names

# The option that a message suggests for a group that is `none`; for other groups, the first option.
USUAL = {"teacher": "online", "temperature": "constant", "callbacks": "default", "mixing": "mixup"}


def is_mistake(error: BaseException) -> bool:
    """Return whether the error is in the configuration, as opposed to a failure while running."""
    if isinstance(error, AssertionError):
        return "Unexpected type" in str(error)  # raised by OmegaConf for a key inside None
    if isinstance(error, ValueError) and "Config group override must be" in str(error):
        return True  # raised by Hydra for temperature=4
    return isinstance(error, (HydraException, OmegaConfBaseException, ConfigError, YAMLError))


def explain(error: BaseException, overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()) -> str:
    """Return a one-line message that ends with the remedy.

    Args:
        error: The exception, for which `is_mistake` is true.
        overrides: The overrides on the command line, such as "lr=0.1"; a suggestion then repeats the value.
        config_dirs: The user's folders of options.
    """
    if isinstance(error, ConfigError):
        return _with_value(error, overrides)
    network = _network_override(overrides, config_dirs)
    if network is not None:
        return network
    if isinstance(error, AssertionError):
        return _inside_none(_key_at(error), config_dirs)
    if isinstance(error, OverrideParseException):
        return _not_parsed(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error, config_dirs)
    omegaconf = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(omegaconf, OmegaConfBaseException):
        return _of_omegaconf(omegaconf, overrides, config_dirs)
    if isinstance(error, ValueError):
        return _number_for_group(overrides)
    return _of_hydra(str(error), config_dirs)


def unknown_option(group: str, option: str, available: Sequence[str]) -> str:
    """Return the message for an option that a group does not have."""
    new = other_words.OPTIONS.get((group, option))
    if new is not None:
        return f"Option '{option}' of config group '{group}' is now '{new}': use {group}={new}"
    hint = nearest(option, list(available))
    if group == "teacher" and not hint:
        hint = f" For a network: teacher=online {network_override('network@teacher.network', option, ())}."
    if group == "network" and not hint.endswith(f"'{option}'?"):
        hint += f" For a timm architecture: network@student=timm student.architecture={option}."
    return f"Unknown option '{option}' for config group '{group}'.{hint} Available: {', '.join(available)}"


def network_override(key: str, name: str, config_dirs: Sequence[Path]) -> str:
    """Return the overrides that select the network `name` at `key`, such as network@student: an option, or timm's."""
    if name in names("network", config_dirs):
        return f"{key}={name}"
    return f"{key}=timm {key.partition('@')[2]}.architecture={name}"


def _network_override(overrides: Sequence[str], config_dirs: Sequence[Path]) -> str | None:
    """Return the message for student=NAME, network=NAME and teacher.network=NAME; None if there is no such override."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key not in ("student", "network", "teacher.network") or not re.fullmatch(r"[\w.:/-]+", value):
            continue
        paths = ("student", "teacher.network") if key == "network" else (key,)
        suggested = " or ".join(network_override(f"network@{path}", value, config_dirs) for path in paths)
        return f"Cannot set `{key}` to a name. Did you mean {suggested}?"
    return None


def _with_value(error: ConfigError, overrides: Sequence[str]) -> str:
    """Return the message of a ConfigError; a suggested KEY=... repeats the value on the command line."""
    text = str(error)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        suggested = other_words.key_for(key)
        if suggested is not None and text.startswith(f"Unknown key '{key}'"):
            return text.replace(suggested, str(other_words.key_for(key, value)))
    return text


def _of_omegaconf(error: OmegaConfBaseException, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    key = error.full_key or str(error.key or "")
    group = key.partition(".")[0]
    parent = error.parent_node
    empty = isinstance(parent, DictConfig) and (parent._is_none() or not len(parent))
    if empty and "." in key and "not in struct" in str(error) and "none" in names(group, config_dirs):
        return _inside_none(key, config_dirs)
    if group == "resolution" and "is not a subclass" in str(error):
        return "Cannot set `resolution` itself: use resolution.student=PX resolution.teacher=PX"
    message = explain_omegaconf(error)
    for override in overrides:
        if override.startswith(f"{key}="):
            message = message.replace("[VALUE]", f"[{override.partition('=')[2]}]")
    return _with_value(ConfigError(message), overrides)


def _inside_none(key: str, config_dirs: Sequence[Path]) -> str:
    group = key.partition(".")[0] or "NAME"
    choices = [name for name in names(group, config_dirs) if name != "none"]
    example = USUAL.get(group, choices[0] if choices else "OPTION")
    return f"Cannot set `{key}`: config group `{group}` is `none`. Select an option first, e.g. {group}={example}"


def _key_at(error: BaseException) -> str:
    """Return the key that Hydra was setting when `error` was raised; empty if the traceback does not contain it."""
    trace = error.__traceback__
    while trace is not None:
        key = trace.tb_frame.f_locals.get("key")
        if trace.tb_frame.f_code.co_name == "_apply_overrides_to_config" and isinstance(key, str):
            return key
        trace = trace.tb_next
    return ""


def _not_parsed(error: OverrideParseException) -> str:
    key, _, value = str(error.override).partition("=")
    if re.search(r",\s*[\]}]", value):
        return f"Invalid override '{error.override}': remove the comma before the bracket"
    if "=" in value and not value.startswith(("[", "{", "'", '"')):
        return f"Invalid override '{error.override}': quote a value that contains '=': '{key}=\"{value}\"'"
    reason = str(error).strip().splitlines()[0]
    return f"Invalid override '{error.override}': expected KEY=VALUE; quote special characters, e.g. 'key=[a,b]' ({reason})"


def _missing_option(error: MissingConfigException, config_dirs: Sequence[Path]) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"Config '{option}' not found: check --config-name and --config-dir"
    root = next((name for name in (group, group.partition("/")[0]) if names(name, config_dirs)), None)
    if root is None:
        available = groups(config_dirs)
        return f"Unknown config group '{group}'.{nearest(group, available)} Available: {', '.join(available)}"
    path = str(error.missing_cfg_file)[len(root) :].removeprefix("/")
    if root == "data" and (path.startswith("/") or Path(path).is_dir()):
        return f"'{path}' is a folder, not an option of config group 'data': use data=imagefolder data.root={path}"
    return unknown_option(root, path, names(root, config_dirs))


def _number_for_group(overrides: Sequence[str]) -> str:
    for override in overrides:
        group, _, value = override.partition("=")
        if value == "null" and "none" in names(group):
            return f"Config group '{group}' expects the name of an option. Did you mean {group}=none?"
        if group in other_words.NUMBERS and value.replace(".", "", 1).isdigit():
            return f"Config group '{group}' expects the name of an option. Did you mean {other_words.NUMBERS[group]}={value}?"
    return "A config group expects the name of an option, or a list of names: see --info GROUP"


def _of_hydra(text: str, config_dirs: Sequence[Path]) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or ["Invalid configuration: see --cfg job"]
    if "Ambiguous value for argument '" in lines[0]:
        override = lines[0].split("argument '")[1].rstrip("'")
        key, _, values = override.partition("=")
        return f"{override} has several values: add -m for one run per value, or write {key}=[{values}] for a list"
    numeric = re.search(r"Key (\S+) \((int|float|bool)\) is incompatible", " ".join(lines))
    if numeric:
        where = lines[0].partition(":")[0]
        return f"{where}: YAML reads a key as {numeric[1]} ({numeric[2]}); put it in quotes, or use another name"
    match = re.search(r"Could not override '([^']+)'", lines[0])
    if match:
        key = match[1]
        group = key.partition("@")[0]
        if "@teacher." in key:
            setter = "The experiment" if lines[0].startswith("In 'experiment/") else "The command"
            return (
                f"{setter} sets `{key}`, which the selected teacher does not have. Use teacher=online, or an "
                "experiment without a teacher, such as its supervised baseline"
            )
        if group in groups(config_dirs):
            return f"Config group '{key}' is not part of this run: add it with +{key}=OPTION (see --info {group})"
    return " ".join(lines[:3])
