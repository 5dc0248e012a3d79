"""Keys that were set in a config group without an option that has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdx.config.errors import ConfigError
from kdx.config.mounted import MOUNTED


def check_selected(plain: Mapping[str, Any]) -> None:
    """Raise ConfigError if a key was set in a group that is `none`, or in a loss or callback that is not selected."""
    _check_groups(plain)
    _check_named_nodes(plain)
    _check_mounted(plain)


def _check_groups(plain: Mapping[str, Any]) -> None:
    """Raise ConfigError if a key was set in a group that is `none`."""
    for group in ("mixing", "augmentation", "calibration", "temperature"):
        node = plain.get(group)
        if isinstance(node, dict) and "_target_" not in node and all(not isinstance(value, dict) for value in node.values()):
            key = f"{group}.{next(iter(node))}"
            raise ConfigError(f"Cannot set `{key}`: config group `{group}` is `none`. Select an option first: {group}=OPTION")


def _check_named_nodes(plain: Mapping[str, Any]) -> None:
    """Raise ConfigError if a key was added to a loss, metric, callback or logger that is not selected."""
    groups = {"losses": "losses=[{}]", "metrics": "metrics=[{}]", "callbacks": "callbacks={}", "logger": "logger={}"}
    for group, example in groups.items():
        for name, node in (plain.get(group) or {}).items():
            if not isinstance(node, dict) or "_target_" not in node:
                selected = [other for other, value in plain[group].items() if isinstance(value, dict) and "_target_" in value]
                option = ",".join([*selected, name]) if "[" in example else name
                raise ConfigError(
                    f"{group}.{name} has no _target_: select its option first, such as {example.format(option)}, "
                    "or set its class"
                )


def _check_mounted(plain: Mapping[str, Any]) -> None:
    """Raise ConfigError if the name of an option was set at the path of its group, such as views.crop=pad."""
    for group, paths in MOUNTED.items():
        for path in paths:
            node: Any = plain
            for key in path.split("."):
                node = node.get(key) if isinstance(node, dict) else None
            if isinstance(node, str):
                raise ConfigError(f"Cannot set `{path}` to a name. Did you mean {group}@{path}={node}?")
