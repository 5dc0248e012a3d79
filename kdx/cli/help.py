"""What `--help` and `--info` of a command print, from its guide and the comments of the YAML files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdx.cli.yaml_keys import Setting, default_groups, keys
from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError, nearest
from kdx.config.options import SHARED, Option, groups, options

WIDTH, COLUMN = 96, 30
GROUP_OPTIONS = """\
  --info [GROUP]      list the groups, or the options of one, your own included
  --config-dir DIR    add your own options, DIR/GROUP/OPTION.yaml; classes in DIR/*.py"""
OPTIONS = """\
  --cfg job           print the composed config and check it, without running
  -m, --multirun      run every combination of comma-separated values; -m --cfg job lists them
  --hydra-help        options of Hydra"""
MOUNTED = {  # how an option is chosen where it is not GROUP=OPTION
    "losses": "losses=[OPTION,OPTION]",
    "network": "network@student=OPTION",
    "crop": "crop@views.crop=OPTION",
    "shift": "shift=[OPTION,OPTION]",
}


@dataclass(frozen=True)
class Guide:
    """What the help of a command says.

    Args:
        name: The command is kdx-NAME.
        config: Its keys and groups are those of conf/CONFIG.yaml.
        purpose: What it does, in a sentence.
        result: What it leaves behind.
        examples: Commands, each with a comment.
        usage: What follows the command's name in its usage line.
        data_keys: Whether data.KEY=VALUE is taken as well.
        more_groups: Groups that are not in the defaults list: name and how to use it.
        groups: Only these groups of the defaults list are shown; None shows all.
        keys: Only these keys, and those below them, are shown; None shows all.
        note: A last sentence.
    """

    name: str
    config: str
    purpose: str
    result: str
    examples: tuple[tuple[str, str], ...]
    usage: str = "[GROUP=OPTION ...] [KEY=VALUE ...]"
    data_keys: bool = False
    more_groups: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    note: str = ""


def help_text(guide: Guide) -> str:
    """The answer to --help."""
    file = conf_dir() / f"{guide.config}.yaml"
    shown = [key for key in keys(file) if guide.keys is None or key.name.partition(".")[0] in guide.keys]
    parts = [
        f"usage: kdx-{guide.name} {guide.usage}",
        *_wrapped(guide.purpose),
        *_wrapped(f"Result: {guide.result}"),
        "",
        "examples:",
        *_table((command, text) for command, text in guide.examples),
        "",
        "keys, with their defaults:",
        *_settings(shown),
    ]
    if guide.data_keys:
        parts += ["", "keys of the data set; one such as data=digits may have other defaults:", *_settings(_data_keys())]
    listed = _group_lines(guide, file)
    parts += [*listed, "", "options:", *([GROUP_OPTIONS] if listed else []), OPTIONS, "", *_wrapped(_where(guide))]
    return "\n".join(parts)


def info_text(guide: Guide, group: str | None, config_dirs: Sequence[Path]) -> str:
    """The answer to --info, or to --info GROUP."""
    taken = _taken(guide, config_dirs)
    if not taken:
        return f"kdx-{guide.name} has no groups of options; its keys: kdx-{guide.name} --help"
    if group is None:
        lines = (
            (f"{name} ({len(options(name, config_dirs))})", ", ".join(option.name for option in options(name, config_dirs)))
            for name in taken
        )
        more = f"kdx-{guide.name} --info GROUP tells what each option does. {_where(guide)}"
        return "\n".join(["groups and their options:", *_table(lines, column=22), "", *_wrapped(more)])
    name = group.partition("@")[0]
    if name not in taken:
        raise ConfigError(f"Unknown config group '{group}'.{nearest(name, taken)} Available: {', '.join(taken)}")
    return "\n".join(_option_lines(name, options(name, config_dirs)))


def _taken(guide: Guide, config_dirs: Sequence[Path]) -> list[str]:
    """The groups that a command takes."""
    defaults = {setting.name.partition("@")[0] for setting in _groups(guide)} | set(guide.more_groups)
    return [name for name in groups(config_dirs) if name in defaults]


def _groups(guide: Guide) -> list[Setting]:
    named = default_groups(conf_dir() / f"{guide.config}.yaml")
    return [setting for setting in named if guide.groups is None or setting.name in guide.groups]


def _group_lines(guide: Guide, file: Path) -> list[str]:
    chosen = _groups(guide)
    if not chosen:
        return []
    rows = []
    for setting in chosen:
        count = len(options(setting.name.partition("@")[0]))
        rows.append((setting.text, f"{count} options{f': {setting.comment}' if setting.comment else ''}"))
    lines = ["", f"groups, with the default option; kdx-{guide.name} --info GROUP lists the others:", *_table(rows)]
    return [*lines, *_table((f"{name}", text) for name, text in guide.more_groups.items())]


def _option_lines(group: str, available: Sequence[Option]) -> list[str]:
    users = sorted({str(option.folder) for option in available if option.is_users})
    usage = MOUNTED.get(group, f"{group}=OPTION")
    rows = ((f"{option.name}{' *' if option.is_users else ''}", option.comment) for option in available)
    column = min(max(len(option.name) for option in available) + 6, COLUMN)
    lines = [f"{group}: {len(available)} options, chosen by {usage}", *_table(rows, column=column)]
    lines += [f"* from {folder}" for folder in users]
    return [*lines, f"The files: {conf_dir() / group}"]


def _data_keys() -> list[Setting]:
    shared = keys(conf_dir() / "data" / f"{SHARED}.yaml")
    return [Setting(f"data.{key.name}", key.default, key.comment) for key in shared]


def _settings(settings: Iterable[Setting]) -> list[str]:
    lines = []
    for setting in settings:
        if setting.name:
            lines += _table([(setting.text, setting.comment)])
        else:
            lines.append(f"  {setting.comment}")
    return lines


def _table(rows: Iterable[tuple[str, str]], column: int = COLUMN) -> list[str]:
    """Two columns, the second wrapped; a left text that is too long has its line to itself."""
    lines = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, WIDTH - column, break_on_hyphens=False, break_long_words=False)
        first = f"  {left}"
        if len(first) < column and wrapped:
            first = f"{first:<{column}}{wrapped.pop(0)}"
        lines += [first, *(f"{'':<{column}}{line}" for line in wrapped)]
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def _where(guide: Guide) -> str:
    """Where to read on."""
    note = f"{guide.note} " if guide.note else ""
    explained = ", explained in README.md there" if (conf_dir() / "README.md").is_file() else ""
    return f"{note}All options are YAML files in {conf_dir()}{explained}."
