"""One-line messages, with a suggestion, for the config errors of Hydra, OmegaConf and kdx."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kdx.config import other_words
from kdx.config.errors import ConfigError, explain_omegaconf, nearest
from kdx.config.mounted import MOUNTED, group_at
from kdx.config.options import groups, names
from kdx.config.recipes import in_members

# The option that a message suggests for a group that is `none`; for other groups, the first option.
USUAL = {"teacher": "online", "temperature": "constant", "callbacks": "default", "mixing": "mixup"}


def is_mistake(error: BaseException) -> bool:
    """Return whether the error is in the configuration, as opposed to a failure while running."""
    if isinstance(error, AssertionError):
        return "Unexpected type" in str(error)  # raised by OmegaConf for a key inside None
    if isinstance(error, ValueError) and re.match(r"Config group override must be|invalid literal for int\(\)", str(error)):
        return "group" in str(error) or bool(_set_at(error)[0])  # raised by Hydra for temperature=4, and for tags.a=1
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
    if isinstance(error, MissingConfigException):
        return _missing_option(error, overrides, config_dirs)
    mounted = _mounted_override(error, overrides, config_dirs)
    if mounted is not None:
        return mounted
    if isinstance(error, AssertionError):
        key, members = _set_at(error)
        return in_members(key, members) if members else _inside_none(key, config_dirs)
    if isinstance(error, OverrideParseException):
        return _not_parsed(error)
    omegaconf = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(omegaconf, OmegaConfBaseException):
        return _of_omegaconf(omegaconf, overrides, config_dirs)
    if isinstance(error, ValueError):
        above = _set_at(error)[0].rpartition(".")[0]
        return f"{above} expects a list: {above}=[VALUE]" if above else _number_for_group(overrides)
    return _of_hydra(str(error), config_dirs)


def unknown_option(group: str, option: str, available: Sequence[str], key: str = "network@student") -> str:
    """Return the message for an option that a group does not have; `key` is where a network was to be selected."""
    new = other_words.OPTIONS.get((group, option))
    if new is not None:
        return f"Option '{option}' of config group '{group}' is now '{new}': use {group}={new}"
    hint = nearest(option, list(available))
    if group == "teacher" and not hint:
        hint = f" For a network: teacher=online {network_override('network@teacher.network', option, ())}."
    if group == "network" and not hint.endswith(f"'{option}'?"):
        hint += f" For a timm architecture: {network_override(key, option, ())}."
    return f"Unknown option '{option}' for config group '{group}'.{hint} Available: {', '.join(available)}"


def _selection(group: str, path: str, name: str, config_dirs: Sequence[Path]) -> str:
    """Return the overrides that select `name`, an option of a mounted group or an architecture of timm, at a path."""
    if group == "network":
        return network_override(f"network@{path}", name, config_dirs)
    if group == "recipe" and name in names("teacher", config_dirs):
        return f"teacher={name}, or for the recipe alone {group}@{path}={name}"
    return f"{group}@{path}={name}"


def network_override(key: str, name: str, config_dirs: Sequence[Path]) -> str:
    """Return the overrides that select the network `name` at `key`, such as network@student: an option, or timm's."""
    if name in names("network", config_dirs):
        return f"{key}={name}"
    return f"{key}=timm {key.partition('@')[2] or key}.architecture={name}"


def _mounted_override(error: BaseException, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str | None:
    """Return the message for student=NAME, recipe=NAME and the like; None if the error is about another key."""
    about = f"{error} {getattr(error.__cause__, 'full_key', '')}"
    for override in overrides:
        key, _, name = override.lstrip("+").partition("=")
        group = group_at(key)
        if group is None or not re.fullmatch(r"[\w.:/-]+", name) or not re.search(rf"(?<![\w.@]){key}(?![\w.@/])", about):
            continue
        paths = MOUNTED[group] if key == group else (key,)
        suggested = " or ".join(_selection(group, path, name, config_dirs) for path in paths)
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
    if empty and "." in key and "not in struct" in str(error):
        above = key.rpartition(".")[0]
        return _inside_none(key, config_dirs) if "none" in names(above, config_dirs) else _without_keys(above)
    if "of type 'dict'" in str(error) or "Cannot convert 'dict'" in str(error):
        return _without_keys(key)
    if group == "resolution" and "is not a subclass" in str(error):
        return "Cannot set `resolution` itself: use resolution.student=PX resolution.teacher=PX"
    message = explain_omegaconf(error)
    for override in overrides:
        if override.startswith(f"{key}="):
            message = message.replace("[VALUE]", f"[{override.partition('=')[2]}]")
    return _with_value(ConfigError(message), overrides)


def _without_keys(key: str) -> str:
    return f"{key} is a value and has no keys: use {key}=VALUE"


def _inside_none(key: str, config_dirs: Sequence[Path]) -> str:
    group = key.partition(".")[0] or "NAME"
    choices = [name for name in names(group, config_dirs) if name != "none"]
    example = USUAL.get(group, choices[0] if choices else "OPTION")
    return f"Cannot set `{key}`: config group `{group}` is `none`. Select an option first, e.g. {group}={example}"


def _set_at(error: BaseException) -> tuple[str, list[str]]:
    """Return the key that Hydra was setting when `error` was raised, and the names of the teacher's members, if it has some.

    The key is empty if the traceback does not contain it.
    """
    trace = error.__traceback__
    while trace is not None:
        key, cfg = (trace.tb_frame.f_locals.get(name) for name in ("key", "cfg"))
        if (
            trace.tb_frame.f_code.co_name == "_apply_overrides_to_config"
            and isinstance(key, str)
            and isinstance(cfg, DictConfig)
        ):
            return key, list(OmegaConf.select(cfg, "teacher.members") or []) if key.startswith("teacher.") else []
        trace = trace.tb_next
    return "", []


def _not_parsed(error: OverrideParseException) -> str:
    key, _, value = str(error.override).partition("=")
    if re.search(r",\s*[\]}]", value):
        return f"Invalid override '{error.override}': remove the comma before the bracket"
    if "=" in value and not value.startswith(("[", "{", "'", '"')):
        return f"Invalid override '{error.override}': quote a value that contains '=': '{key}=\"{value}\"'"
    reason = str(error).strip().splitlines()[0]
    return f"Invalid override '{error.override}': expected KEY=VALUE; quote special characters, e.g. 'key=[a,b]' ({reason})"


def _missing_option(error: MissingConfigException, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"Config '{option}' not found: check --config-name and --config-dir"
    if group == "hydra/launcher" and option in other_words.PLUGINS:
        return f"launcher={option} requires additional packages: pip install {other_words.PLUGINS[option]}"
    root = next((name for name in (group, group.partition("/")[0]) if names(name, config_dirs)), None)
    if root is None:
        available = groups(config_dirs)
        return f"Unknown config group '{group}'.{nearest(group, available)} Available: {', '.join(available)}"
    path = str(error.missing_cfg_file)[len(root) :].removeprefix("/")
    if root == "data" and (path.startswith("/") or Path(path).is_dir()):
        return f"'{path}' is a folder, not an option of config group 'data': use data=imagefolder data.root={path}"
    given = (override.lstrip("+").rpartition("=")[0] for override in overrides if override.endswith(f"={path}"))
    key = next((key for key in given if key.partition("@")[0] == "network"), "network@student")
    return unknown_option(root, path, names(root, config_dirs), key)


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
    if "does not support sweep type" in lines[0]:
        return "A sweep (-m) needs a grid of values, such as seed=range(3); for intervals, use kdx-tune, without -m"
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
