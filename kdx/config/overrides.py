"""Overrides KEY=VALUE, checked word by word before Hydra parses them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kdx.config.errors import ConfigError

NONE = re.compile(r"(?<![\w.\-/'\"])None(?![\w.\-/'\"])")  # a whole value, or a whole element of a list


def checked_overrides(words: Sequence[Any]) -> list[str]:
    """Return the overrides with `null` for Python's None, which W&B agents and scripts write.

    Raises:
        ConfigError: A word is not KEY=VALUE, or its value is empty.
    """
    overrides = []
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise ConfigError(_no_text(word))
        key, equals, value = word.partition("=")
        following = words[i + 1] if i + 1 < len(words) else ""
        if equals and not value.strip():
            raise ConfigError(_empty(key, following))
        if word.startswith("-") or (not equals and not word.startswith("~")):
            raise ConfigError(_no_value(word, following))
        overrides.append(key + equals + (NONE.sub("null", value) if not set("'\"") & set(value) else value))
    return overrides


def without_trust(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of modules in trust=[NAME,...], which counts only as a word of a command, and the other overrides."""
    words = [override for override in overrides if override.lstrip("+").startswith("trust=")]
    names = [name for word in words for name in re.split(r"[,\s]+", word.partition("=")[2].strip("[]\"' ")) if name]
    return names, [override for override in overrides if override not in words]


def _no_text(word: object) -> str:
    pairs = word.items() if isinstance(word, Mapping) and word else [("seed", 1)]
    example = ", ".join(f"'{key}={value}'" for key, value in pairs)
    return f"Expected overrides as strings, got a {type(word).__name__}: write {example}"


def _empty(key: str, following: object) -> str:
    if isinstance(following, str) and following and "=" not in following and not following.startswith("-"):
        return f"Missing value: {key}=. Did you mean {key}={following}? Write KEY=VALUE without spaces"
    return f"Missing value: {key}=. Write {key}=VALUE, or leave it out for the default"


def _no_value(word: str, following: object) -> str:
    if word in ("help", "version"):
        return f"Unexpected word '{word}': did you mean --{word}?"
    if word.startswith(("--config-dir", "-cd")):
        return f"'{word}' is an option of the commands: use config_dir='{word.partition('=')[2] or 'FOLDER'}'"
    if word.startswith("-"):
        return f"'{word}' is an option of the commands, not an override; expected KEY=VALUE"
    if isinstance(following, str) and following.startswith("="):
        return f"Unexpected word '{word}': write KEY=VALUE without spaces, e.g. {word}{following}"
    return f"Unexpected word '{word}': expected KEY=VALUE, without spaces around '='; see --help"
