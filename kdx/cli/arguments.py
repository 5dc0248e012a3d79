"""Command-line arguments, separated into options and overrides, which may be in any order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdx.config.errors import ConfigError, nearest
from kdx.config.other_words import key_for
from kdx.config.overrides import checked_overrides, without_trust

SHORT = {
    "-h": "--help", "-m": "--multirun", "-r": "--run", "-c": "--cfg", "-p": "--package", "-i": "--info", "-cd": "--config-dir",
    "-cn": "--config-name", "-cp": "--config-path", "-sc": "--shell-completion",
}  # fmt: skip
FLAGS = ("--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion")
EXPECTED = {
    "--cfg": "job, hydra or all",
    "--package": "a part of the config, e.g. losses",
    "--config-dir": "a folder of your own options",
    "--config-name": "the name of a YAML file",
    "--config-path": "a folder",
}
INFO = "--info"
HYDRA_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # --info of Hydra itself


@dataclass(frozen=True)
class Arguments:
    """Options by long name, with None for flags, overrides in the order of the command line, and modules of trust=[...]."""

    options: dict[str, str | None] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()

    @property
    def for_hydra(self) -> list[str]:
        """The arguments in the order that Hydra requires: options first."""
        words = [name if value is None else f"{name}={value}" for name, value in self.options.items()]
        return [*words, *self.overrides]

    @property
    def config_dirs(self) -> list[Path]:
        """The existing folders of options in --config-dir, --config-path and hydra.searchpath."""
        names = [self.options.get(option) or "" for option in ("--config-dir", "--config-path")]
        for override in self.overrides:
            if override.startswith("hydra.searchpath="):
                names += [path.rstrip("/") for path in re.findall(r"file://([^,\]'\"]+)", override)]
        return [Path(name).absolute() for name in names if name and Path(name).is_dir()]

    @property
    def config_name(self) -> str | None:
        """The value of --config-name; None if the command's default config is used."""
        return self.options.get("--config-name")


def parse(words: Sequence[str]) -> Arguments:
    """Return the arguments in `words`. ConfigError for an unknown option, a missing value, or a word that is not KEY=VALUE."""
    options: dict[str, str | None] = {}
    overrides = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        name = SHORT.get(name, name)
        if name in FLAGS:
            options[name] = None
        elif name == INFO:
            if not equals and rest and not rest[0].startswith("-") and "=" not in rest[0]:
                value = rest.pop(0)
            options[name] = value or None
        elif name in EXPECTED:
            if not equals:
                value = rest.pop(0) if rest and not _is_next(rest[0]) else ""
            options[name] = _checked(name, value)
        else:
            raise ConfigError(_unknown(word, rest))
    trust, others = without_trust(checked_overrides(overrides))
    return Arguments(options, tuple(others), tuple(trust))


def _is_next(word: str) -> bool:
    """Return whether a word after an option is the next argument, not the option's value."""
    return word.startswith("-") or ("=" in word and not Path(word).exists())


def _checked(name: str, value: str) -> str:
    if name == "--config-dir" and value and not Path(value).is_dir():
        raise ConfigError(f"--config-dir={value}: folder not found; use an existing folder of options")
    if not value:
        raise ConfigError(f"Missing value for option {name}; expected {EXPECTED[name]}")
    if name == "--cfg" and value not in ("job", "hydra", "all"):
        raise ConfigError(f"Invalid value '{value}' for option {name}; expected {EXPECTED[name]}")
    return value


def _unknown(word: str, rest: Sequence[str]) -> str:
    """Return the message for an unknown option, such as --lr 0.1, which is optimizer.lr=0.1 in kdx."""
    name, equals, value = word.partition("=")
    if not equals and rest and not rest[0].startswith("-") and "=" not in rest[0]:
        value = rest[0]
    key = name.lstrip("-").replace("-", "_")
    suggestion = key_for(key, value or None)
    if suggestion is not None:
        return f"Unknown option {name}. Did you mean {suggestion}? Settings are written KEY=VALUE, without dashes"
    hint = nearest(name, [*FLAGS, INFO, *EXPECTED])
    return f"Unknown option {name}.{hint} Settings are written KEY=VALUE, without dashes; see --help"
