"""The output of `--help` and `--info`, from a command's guide and the comments of the YAML files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdx.cli.yaml_keys import Setting, default_groups, keys
from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError, nearest
from kdx.config.mounted import MOUNTED, usage
from kdx.config.options import SHARED, Option, groups, options
from kdx.config.reference import option_keys

WIDTH, COLUMN = 96, 30
GROUP_OPTIONS = """\
  --info [GROUP]      list the groups, or the options of one, your own included
  --config-dir DIR    add your own options, DIR/GROUP/OPTION.yaml; classes in DIR/*.py"""
OPTIONS = """\
  --cfg job           print the composed config and check it, without running
  trust=[NAME]        let the config name classes of this module, for a run with your own loss
  -m, --multirun      run every combination of comma-separated values; -m --cfg job lists them
  --hydra-help        options of Hydra"""
# Groups whose keys --help can list: an option that has the usual ones, and the heading.
KEYS_OF = {
    "data": ("base", "keys of the data set; an option such as data=digits may change these defaults:"),
    "teacher": ("online", "keys of the teacher; those of teacher.network and teacher.recipe: --info network, --info recipe:"),
}


@dataclass(frozen=True)
class Guide:
    """The content of a command's help.

    Args:
        name: NAME of the command kdx-NAME.
        config: The file conf/CONFIG.yaml with the keys and groups of the command.
        purpose: The purpose in one sentence.
        result: The files that the command writes.
        examples: Commands, each with a comment.
        usage: The usage line after the command's name.
        more_keys: The groups of KEYS_OF whose keys are listed as well.
        more_groups: Groups that are not in the defaults list, with their usage.
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
    more_keys: tuple[str, ...] = ()
    more_groups: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    note: str = ""


def help_text(guide: Guide) -> str:
    """Return the output of --help."""
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
    for group in guide.more_keys:
        option, heading = KEYS_OF[group]
        found = [replace(key, name=f"{group}.{key.name}") for key in keys(conf_dir() / group / f"{option}.yaml")]
        parts += ["", heading, *_settings(found)]
    listed = _group_lines(guide, file)
    parts += [*listed, "", "options:", *([GROUP_OPTIONS] if listed else []), OPTIONS, "", *_wrapped(_where(guide))]
    return "\n".join(parts)


def info_text(guide: Guide, group: str | None, config_dirs: Sequence[Path]) -> str:
    """Return the output of --info, or of --info GROUP."""
    available = _available_groups(guide, config_dirs)
    if not available:
        return f"kdx-{guide.name} has no config groups; for its keys: kdx-{guide.name} --help"
    if group is None:
        lines = (
            (f"{name} ({len(options(name, config_dirs))})", ", ".join(option.name for option in options(name, config_dirs)))
            for name in available
        )
        more = f"kdx-{guide.name} --info GROUP describes each option. {_where(guide)}"
        return "\n".join(["groups and their options:", *_table(lines, column=22), "", *_wrapped(more)])
    name = group.partition("@")[0]
    if name not in available:
        raise ConfigError(f"Unknown config group '{group}'.{nearest(name, available)} Available: {', '.join(available)}")
    return "\n".join(_option_lines(guide, name, options(name, config_dirs)))


def _available_groups(guide: Guide, config_dirs: Sequence[Path]) -> list[str]:
    """Return the groups that a command accepts."""
    defaults = {setting.name.partition("@")[0] for setting in _groups(guide)} | set(guide.more_groups)
    return [name for name in groups(config_dirs) if name in defaults]


def _groups(guide: Guide) -> list[Setting]:
    settings = default_groups(conf_dir() / f"{guide.config}.yaml")
    return [setting for setting in settings if guide.groups is None or setting.name in guide.groups]


def _group_lines(guide: Guide, file: Path) -> list[str]:
    settings = _groups(guide)
    if not settings:
        return []
    rows = []
    for setting in settings:
        count = len(options(setting.name.partition("@")[0]))
        rows.append((setting.text, f"{count} options{f': {setting.comment}' if setting.comment else ''}"))
    lines = ["", f"groups, with the default option; kdx-{guide.name} --info GROUP lists the others:", *_table(rows)]
    return [*lines, *_table((f"{name}", text) for name, text in guide.more_groups.items())]


def _option_lines(guide: Guide, group: str, available: Sequence[Option]) -> list[str]:
    users = sorted({str(option.folder) for option in available if option.is_users})
    rows = ((f"{option.name}{' *' if option.is_users else ''}", option.comment) for option in available)
    column = min(max(len(option.name) for option in available) + 6, COLUMN)
    lines = [f"{group}: {len(available)} options, selected with {_usage(guide, group)}", *_table(rows, column=column)]
    lines += [f"* from {folder}" for folder in users]
    base = conf_dir() / group / f"{SHARED}.yaml"
    found: dict[str, Setting] = {}
    for _, key in option_keys(group, [path for path in (base, *(option.path for option in available)) if path.is_file()]):
        if key.comment:
            found.setdefault(key.path, Setting(key.path, key.default, key.comment))
    listed = _settings(found.values())
    heading = ["", "keys of these options, with the default of the first that has them:"] if listed else []
    return [*lines, *heading, *listed, "", f"The files: {conf_dir() / group}"]


def _usage(guide: Guide, group: str) -> str:
    """Return how an option of a group is selected, a list of them if the default is a list."""
    default = {setting.name: setting.default for setting in _groups(guide)}.get(group)
    if default is None and group in MOUNTED:
        return usage(group)
    return f"{group}={'[OPTION,OPTION]' if (default or '').startswith('[') else 'OPTION'}"


def _settings(settings: Iterable[Setting]) -> list[str]:
    lines = []
    for setting in settings:
        if not setting.is_heading:
            lines += _table([(setting.text, setting.comment)])
        else:
            lines += textwrap.wrap(setting.comment, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return lines


def _table(rows: Iterable[tuple[str, str]], column: int = COLUMN) -> list[str]:
    """Return two columns, the second wrapped; a left text that is too long gets its own line."""
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
    """Return the note and the folder of the options."""
    note = f"{guide.note} " if guide.note else ""
    explained = ", documented in README.md there" if (conf_dir() / "README.md").is_file() else ""
    return f"{note}All options are YAML files in {conf_dir()}{explained}."
