"""The keys and groups of a YAML file of conf, with the comments that explain them."""

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
    """A key or group, its default as typed on a command line, and its comment; a heading has neither key nor default."""

    name: str
    default: str
    comment: str

    @property
    def text(self) -> str:
        """As on a command line; only the name where a value is required."""
        return f"{self.name}=..." if self.default in ("???", "") else f"{self.name}={self.default}"


def default_groups(path: Path) -> list[Setting]:
    """The groups of the defaults list, each with the option that is chosen."""
    found = []
    for line in _section(path, inside=True):
        match = DEFAULT.match(line)
        if match and match["option"] and match["group"] not in HYDRA and not match["group"].startswith("override "):
            found.append(Setting(match["group"].lstrip("/"), match["option"].strip(), match["comment"] or ""))
    return found


def keys(path: Path) -> list[Setting]:
    """The keys below the defaults list, nested ones by their path; a comment on lines of its own is a heading."""
    found: list[Setting] = []
    parent, noted = "", ""
    for line in _section(path, inside=False):
        match = LINE.match(line)
        if line.startswith("# "):
            found.append(Setting("", "", line[2:].strip()))
        elif line.lstrip().startswith("- ") and found and found[-1].name == parent.rstrip("."):
            continue
        elif match and match["value"] is None and not match["indent"]:
            parent, noted = f"{match['name']}.", match["comment"] or ""
        elif match and len(match["indent"]) in (0, 2):
            parent = parent if match["indent"] else ""
            comments = dict.fromkeys(filter(None, [noted if parent else "", match["comment"] or ""]))
            found.append(Setting(f"{parent}{match['name']}", _plain(match["value"] or ""), "; ".join(comments)))
    return found


def _plain(value: str) -> str:
    """The default that an interpolation of an environment variable has: ${oc.env:KDX_OUTPUTS,outputs} is outputs."""
    match = re.fullmatch(r"\$\{oc\.env:\w+,(.*)\}", value.strip())
    return match[1] if match else value.strip()


def _section(path: Path, inside: bool) -> Iterator[str]:
    """The lines of the defaults list, or those below it without what belongs to Hydra; without the file's first comment."""
    where = "head"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("defaults:"):
            where = "defaults"
        elif line.startswith("hydra:"):
            where = "hydra"
        elif (line and not line.startswith((" ", "#"))) or (line.startswith("#") and where != "head"):
            where = "keys"
        if where == ("defaults" if inside else "keys"):
            yield line
