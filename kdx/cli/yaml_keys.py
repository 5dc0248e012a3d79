"""The keys and groups of a YAML file of conf, with their comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HYDRA = ("schema", "folders", "_self_", "base", "optional local", "config")
LINE = re.compile(r"^(?P<indent> *)(?P<name>[\w@./ ]+):(?: +(?P<value>[^#]*?))?(?: +# (?P<comment>.*))?$")
DEFAULT = re.compile(r"^  - (?P<group>[\w@./ ]+)(?:: *(?P<option>[^#]*?))?(?: +# (?P<comment>.*))?$")


@dataclass(frozen=True)
class Setting:
    """A key or group, its default in command-line syntax, and its comment.

    A heading has only a comment; one that is the comment of a parent key has the path of its keys, such as "resolution.".
    """

    name: str
    default: str
    comment: str

    @property
    def is_heading(self) -> bool:
        """Whether this is a heading."""
        return not self.name or self.name.endswith(".")

    @property
    def text(self) -> str:
        """NAME=DEFAULT; NAME=... if a value is required."""
        return f"{self.name}=..." if self.default in ("???", "") else f"{self.name}={self.default}"


def default_groups(path: Path) -> list[Setting]:
    """Return the groups of the defaults list, each with its default option."""
    settings = []
    for line in _section(path, inside=True):
        match = DEFAULT.match(line)
        if match and match["option"] and match["group"] not in HYDRA and not match["group"].startswith("override "):
            settings.append(Setting(match["group"].lstrip("/"), match["option"].strip(), match["comment"] or ""))
    return settings


def keys(path: Path) -> list[Setting]:
    """Return the keys below the defaults list, nested ones by path.

    A comment on its own line is a heading, and so is that of a key with keys below it.
    """
    settings: list[Setting] = []
    parent, heading = "", ""
    for line in _section(path, inside=False):
        match = LINE.match(line)
        if line.startswith("# "):
            settings.append(Setting("", "", line[2:].strip()))
        elif line.lstrip().startswith("- ") and settings and settings[-1].name == parent.rstrip("."):
            continue
        elif match and match["value"] is None and not match["indent"]:
            parent, heading = f"{match['name']}.", match["comment"] or ""
        elif match and len(match["indent"]) in (0, 2):
            parent = parent if match["indent"] else ""
            if parent and heading:
                settings.append(Setting(parent, "", f"{parent.rstrip('.')}: {heading}"))
                heading = ""
            settings.append(Setting(f"{parent}{match['name']}", _plain(match["value"] or ""), match["comment"] or ""))
    return settings


def _plain(value: str) -> str:
    """Return the default of an environment interpolation: ${oc.env:KDX_OUTPUTS,outputs} gives outputs."""
    match = re.fullmatch(r"\$\{oc\.env:\w+,(.*)\}", value.strip())
    return match[1] if match else value.strip()


def _section(path: Path, inside: bool) -> Iterator[str]:
    """Yield the lines of the defaults list, or those below it without the `hydra` node; without the file's first comment."""
    section = "head"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("defaults:"):
            section = "defaults"
        elif line.startswith("hydra:"):
            section = "hydra"
        elif (line and not line.startswith((" ", "#"))) or (line.startswith("#") and section != "head"):
            section = "keys"
        if section == ("defaults" if inside else "keys"):
            yield line
