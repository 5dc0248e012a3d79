"""What sets groups of runs apart, in the words of the overrides that make the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kdx.compare.runs import RunRecord
from kdx.config.baselines import DETERMINED

LONGEST = 4  # parts of a label
SILENT = ("_target_", "_partial_")  # said by the name of an option
T = TypeVar("T")
Parts = dict[str, str]  # dotted path, as in an override -> the value in words


def labels(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]]) -> list[str]:
    """A label for every group, given as its first run and its config by dotted path without what does not count.

    "temperature.value=1", "baseline=scratch"; with the run's name in front where names differ, alone where it says enough.
    No two are the same.
    """
    found = [""] * len(groups)
    kinds = _alike([run.baseline for run, _ in groups])
    for baseline, members in kinds.items():
        named = len({groups[i][0].name for i in members}) > 1 or _several_names(groups, baseline)
        for name, same in _alike([groups[i][0].name for i in members] if named else [""] * len(members)).items():
            chosen = [members[i] for i in same]
            own = ("baseline", *DETERMINED.get(baseline, ())) if baseline else ("baseline",)
            for i, parts in zip(chosen, _parts([groups[i] for i in chosen], own), strict=True):
                alone = len(members) == 1 and baseline is not None
                words = [name if named and not alone else "", f"baseline={baseline}" if baseline else "", *_listed(parts)]
                found[i] = " ".join(word for word in words if word) or groups[i][0].name
    return _distinct(found)


def word(value: Any) -> str:
    """A value of a config as it is typed in an override."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(word(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _several_names(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]], baseline: str | None) -> bool:
    return baseline is None and len({run.name for run, _ in groups if run.baseline is None}) > 1


def _parts(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]], without: tuple[str, ...]) -> list[Parts]:
    """What each group differs in from the others, outside of the paths `without`."""
    own = tuple(path + "." for path in without)
    trees = []
    for run, flat in groups:  # in the order of the config, which reads better than any other
        counted = (path for path in run.flat_config if path in flat and not (path + ".").startswith(own))
        trees.append(_tree({path: flat[path] for path in counted}))
    typed = [_typed(run) for run, _ in groups]
    return _describe("", trees, typed)


def _describe(path: str, nodes: Sequence[Any], typed: Sequence[Parts]) -> list[Parts]:
    """The differing parts at and below `path`, where each group has one of `nodes` (None if it has nothing there)."""
    if all(node == nodes[0] for node in nodes):
        return [{} for _ in nodes]
    nothing = "none" if any(isinstance(node, dict) for node in nodes) else "null"  # an option of a group, or a value
    kinds = [nothing if node is None else _kind(path, node) for node in nodes]
    options = [words.get(path, "") for words in typed]
    if path and all(options) and len(set(options)) > 1:
        kinds = options
    alike = _alike(kinds)
    said = [option or kind for option, kind in zip(options, kinds, strict=True)]
    told: list[Parts] = [{path: said[i]} if len(alike) > 1 else {} for i in range(len(nodes))]
    for members in alike.values():
        inner = [nodes[i] for i in members]
        if not all(isinstance(node, dict) for node in inner):
            continue
        keys = dict.fromkeys(key for node in inner for key in node if key not in SILENT)
        for key in keys:
            below = _describe(f"{path}.{key}" if path else key, [node.get(key) for node in inner], [typed[i] for i in members])
            for i, parts in zip(members, below, strict=True):
                told[i] |= parts
    return told


def _kind(path: str, node: Any) -> str:
    """What a node is, in one word: its class, the terms of an objective, or its value."""
    if not isinstance(node, dict):
        return word(node)
    if "_target_" in node:
        return str(node["_target_"]).rpartition(".")[2]
    return f"[{','.join(node)}]" if path == "losses" else "given"


def _typed(run: RunRecord) -> Parts:
    """The overrides of a run: the config path that each sets -> the value that was typed."""
    found: Parts = {}
    for override in run.provenance.get("overrides", ()):
        key, _, value = str(override).lstrip("+~").partition("=")
        group, _, package = key.partition("@")
        found[(package or group).replace("/", ".")] = value
    return found


def _tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.setdefault(parent, {}), dict):  # a key with a dot in it, beside the one that it begins with
                node[parent] = {}
            node = node[parent]
        node[last] = value
    return tree


def _listed(parts: Parts) -> list[str]:
    words = [f"{path}={value}" for path, value in parts.items()]
    return words if len(words) <= LONGEST else [*words[: LONGEST - 1], f"(+{len(words) - LONGEST + 1})"]


def _alike(keys: Sequence[T]) -> dict[T, list[int]]:
    found: dict[T, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return found


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that occur more than once."""
    told = list(names)
    for name, places in _alike(names).items():
        if len(places) > 1:
            for number, i in enumerate(places, 1):
                told[i] = f"{name} #{number}"
    return told
