"""The options of config groups and their comments, read from the YAML files of kdx and of the user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdx.config.check import conf_dir

INTERNAL = ("hydra", "local")  # folders of conf that are not config groups
SHARED = "base"  # base.yaml holds the keys that all options of a group share


@dataclass(frozen=True)
class Option:
    """An option of a group: its name, the first sentence of its comment, the folder of options it comes from, and its file."""

    name: str
    comment: str
    folder: Path
    path: Path

    @property
    def is_users(self) -> bool:
        """Whether the option comes from a folder of the user."""
        return self.folder != conf_dir()


def groups(config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the names of all groups, in alphabetical order."""
    folders = [path for root in (conf_dir(), *config_dirs) for path in root.iterdir() if path.is_dir()]
    return sorted({path.name for path in folders if path.name not in INTERNAL and next(path.rglob("*.yaml"), None)})


def options(group: str, config_dirs: Sequence[Path] = ()) -> list[Option]:
    """Return the options of a group in kdx and in the user's folders, by name. Of equal names, Hydra uses the one in kdx."""
    named: dict[str, Option] = {}
    for root in (conf_dir(), *config_dirs):
        for path in sorted((root / group).rglob("*.yaml")):
            name = str(path.relative_to(root / group).with_suffix(""))
            if name != SHARED:
                named.setdefault(name, Option(name, comment(path), root, path))
    return sorted(named.values(), key=lambda option: ("/" in option.name, option.name))


def names(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the names of a group's options."""
    return [option.name for option in options(group, config_dirs)]


def comment(path: Path) -> str:
    """Return the first sentence of the comment at the head of a YAML file; empty without a comment."""
    text = " ".join(_head(path.read_text(encoding="utf-8").splitlines()))
    return re.split(r"(?<=[\w)\]%])\.\s+(?=[A-Z])", text, maxsplit=1)[0].rstrip(".")


def _head(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if not line.startswith("#"):
            return
        if not line.startswith("# @package"):
            yield line.lstrip("# ").strip()
