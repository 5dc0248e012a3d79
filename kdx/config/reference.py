"""The reference of the configuration, as Markdown: every group, option and key with its comment from the YAML files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdx.config import options
from kdx.config.check import conf_dir
from kdx.config.mounted import MOUNTED, usage

MARK = "<!-- Everything below is written by scripts/conf_readme.py from the comments of the YAML files. -->"
COMMANDS = {"train": "kdx-train", "tune": "kdx-tune", "evaluate": "kdx-evaluate", "export": "kdx-export"}
COMMANDS |= {"prepare": "kdx-prepare", "evidence": "kdx-evidence", "benchmark": "kdx-benchmark"}
LINE = re.compile(r"^(?P<indent> *)(?P<name>\w+):(?P<value>(?: [^#]*?)?)(?: *# (?P<comment>.*))?$")
FURTHER = re.compile(r"^  - (?:/?(?P<group>[\w@.]+)): .*?# (?P<comment>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Key:
    """A key by its path, its default as YAML and the comment that explains it."""

    path: str
    default: str
    comment: str


def page(current: str) -> str:
    """Return the text of conf/README.md: the part of `current` above MARK, then the generated reference."""
    parts = [current.partition(MARK)[0].rstrip(), MARK, *map(_command, COMMANDS), *map(_group, options.groups())]
    return "\n\n".join(parts) + "\n"


def keys(path: Path, prefix: str = "") -> list[Key]:
    """Return the keys of a YAML file, in the order of the file, with `prefix` before their paths.

    Keys of Hydra are omitted, and so are keys without a comment whose value spans several lines, is an inline mapping or
    repeats another key.
    """
    settable = [key for key in _all_keys(path, prefix) if not key.path.endswith(("_partial_", "_target_"))]
    return [key for key in settable if key.comment or not (key.default == "" or key.default.strip('"').startswith(("{", "$")))]


def prefix_of(path: Path, group: str) -> str:
    """Return the path prefix of an option file's keys in a run's config: the group's path, or the file's `@package`.

    Empty for a file that changes keys of other groups, and for the claims, which cannot be set on the command line.
    """
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    package = re.fullmatch(r"# @package (\S+)", first)
    name = MOUNTED.get(group, (group,))[0] if package is None else package[1]
    return "" if name in ("_global_", "evidence") else f"{name}."


def _all_keys(path: Path, prefix: str) -> Iterator[Key]:
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        indent, name = len(match["indent"]), match["name"]
        parents = [(depth, parent) for depth, parent in parents if depth < indent] + [(indent, name)]
        dotted = ".".join(parent for _, parent in parents)
        if not dotted.startswith(("hydra", "defaults")):
            yield Key(prefix + dotted, match["value"].strip(), match["comment"] or "")


def _command(name: str) -> str:
    path = conf_dir() / f"{name}.yaml"
    rows = [f"| `{key.path}` | {_code(key.default)} | {_cell(key.comment)} |" for key in keys(path)]
    table = "\n".join(["| key | default | what it is |", "|---|---|---|", *rows])
    return f"## Keys of {COMMANDS[name]}\n\n{_comment(path)}\n\n{table}"


def _group(name: str) -> str:
    folder = conf_dir() / name
    paths = [folder / f"{option}.yaml" for option in options.names(name)]
    listed = [f"| `{path.relative_to(folder).with_suffix('')}` | {_cell(_comment(path))} |" for path in paths]
    sections = [f"## Group {name}", *_introduction(name), "\n".join(["| option | what it is |", "|---|---|", *listed])]
    rows = []
    for path, key in option_keys(name, [path for path in (folder / f"{options.SHARED}.yaml", *paths) if path.is_file()]):
        option = "all" if path.stem == options.SHARED else f"`{path.stem}`"
        rows.append(f"| {option} | `{key.path}` | {_code(key.default)} | {_cell(key.comment)} |")
    table = "\n".join(["| option | key | default | what it is |", "|---|---|---|---|", *rows])
    return "\n\n".join([*sections, *([table] if rows else [])])


def option_keys(group: str, paths: Sequence[Path]) -> list[tuple[Path, Key]]:
    """Return the keys of option files; a key without a comment has the comment of the same key in another option."""
    prefixes = {path: prefix_of(path, group) for path in paths}
    shown = [(path, key) for path, prefix in prefixes.items() if prefix for key in keys(path, prefix)]
    comments = {key.path: key.comment for _, key in reversed(shown) if key.comment}
    return [(path, replace(key, comment=key.comment or comments.get(key.path, ""))) for path, key in shown]


def _introduction(group: str) -> list[str]:
    """Return how a mounted group is selected, or the comment on a group in the defaults list of a command; else nothing."""
    mounted = [f"Selected with `{usage(group)}`."] if group in MOUNTED else []
    for name in COMMANDS:
        for match in FURTHER.finditer((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8")):
            if match["group"].partition("@")[0] == group:
                return [" ".join([f"`{match['group']}`: {match['comment']}.", *mounted])]
    return mounted


def _comment(path: Path) -> str:
    """Return the whole comment at the head of a YAML file, as one paragraph."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if not line.startswith("# @package")]
    end = next((i for i, line in enumerate(head) if not line.startswith("#")), len(head))
    return " ".join(line[2:] for line in head[:end])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
