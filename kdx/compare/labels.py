"""Labels of groups: the overrides in which a group differs from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kdx.compare.runs import RunRecord
from kdx.config.baselines import DETERMINED

MOST_PARTS = 4  # in one label
HIDDEN_KEYS = ("_target_", "_partial_")  # the name of the option already names the class
T = TypeVar("T")
Parts = dict[str, str]  # dotted path, as in an override -> value as text


def labels(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]], finished: Sequence[bool]) -> list[str]:
    """Return one unique label per group, such as "temperature.value=1" or "baseline=scratch".

    The name of the run is put in front if the names of the groups differ, and is the whole label if nothing else differs. A
    group without a finished run, such as an aborted trial, adds nothing to the labels of the others.

    Args:
        groups: The first run of each group, and its config by dotted path without the ignored values.
        finished: Whether the group has a finished run.
    """
    texts = _labels(groups)
    if any(finished):
        of_finished = iter(_labels([group for group, is_finished in zip(groups, finished, strict=True) if is_finished]))
        texts = [next(of_finished) if is_finished else text for text, is_finished in zip(texts, finished, strict=True)]
    return _distinct(texts)


def _labels(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]]) -> list[str]:
    texts = [""] * len(groups)
    kinds = _alike([run.baseline for run, _ in groups])
    for baseline, members in kinds.items():
        named = len({groups[i][0].name for i in members}) > 1 or _several_names(groups, baseline)
        for name, same in _alike([groups[i][0].name for i in members] if named else [""] * len(members)).items():
            chosen = [members[i] for i in same]
            fixed = ("baseline", *DETERMINED.get(baseline, ())) if baseline else ("baseline",)
            for i, own in zip(chosen, parts([groups[i] for i in chosen], fixed), strict=True):
                alone = len(members) == 1 and baseline is not None
                words = [name if named and not alone else "", f"baseline={baseline}" if baseline else "", *_listed(own)]
                texts[i] = " ".join(word for word in words if word) or groups[i][0].name
    return texts


def word(value: Any) -> str:
    """Return a config value as it is written in an override."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(word(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _several_names(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]], baseline: str | None) -> bool:
    return baseline is None and len({run.name for run, _ in groups if run.baseline is None}) > 1


def parts(groups: Sequence[tuple[RunRecord, Mapping[str, Any]]], without: tuple[str, ...]) -> list[Parts]:
    """Return the config values in which each group differs from the others, without those below the paths `without`."""
    excluded = tuple(path + "." for path in without)
    trees = []
    for run, flat in groups:  # in the order of the config
        counted = (path for path in run.flat_config if path in flat and not (path + ".").startswith(excluded))
        trees.append(_tree({path: flat[path] for path in counted}))
    typed = [_typed(run) for run, _ in groups]
    return _describe("", trees, typed)


def _describe(path: str, nodes: Sequence[Any], typed: Sequence[Parts]) -> list[Parts]:
    """Return the differing parts at and below `path`; `nodes` has each group's node there (None if it has none)."""
    if all(node == nodes[0] for node in nodes):
        return [{} for _ in nodes]
    nothing = "none" if any(isinstance(node, dict) for node in nodes) else "null"  # the option `none`, or the value null
    kinds = [nothing if node is None else _kind(path, node) for node in nodes]
    options = [words.get(path, "") for words in typed]
    if path and all(options) and len(set(options)) > 1:
        kinds = options
    alike = _alike(kinds)
    values = [option or kind for option, kind in zip(options, kinds, strict=True)]
    differing: list[Parts] = [{path: values[i]} if len(alike) > 1 else {} for i in range(len(nodes))]
    for members in alike.values():
        inner = [nodes[i] for i in members]
        if not all(isinstance(node, dict) for node in inner):
            continue
        keys = dict.fromkeys(key for node in inner for key in node if key not in HIDDEN_KEYS)
        for key in keys:
            below = _describe(f"{path}.{key}" if path else key, [node.get(key) for node in inner], [typed[i] for i in members])
            for i, own in zip(members, below, strict=True):
                differing[i] |= own
    return differing


def _kind(path: str, node: Any) -> str:
    """Return a short text for a node: its class, the terms of the objective, or its value."""
    if not isinstance(node, dict):
        return word(node)
    if "_target_" in node:
        return str(node["_target_"]).rpartition(".")[2]
    return f"[{','.join(node)}]" if path == "losses" else "given"


def _typed(run: RunRecord) -> Parts:
    """Return the overrides of a run as {config path: value as typed}."""
    typed: Parts = {}
    for override in run.provenance.get("overrides", ()):
        key, _, value = str(override).lstrip("+~").partition("=")
        group, _, package = key.partition("@")
        typed[(package or group).replace("/", ".")] = value
    return typed


def _tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.setdefault(parent, {}), dict):  # a key with a dot whose prefix is a key as well
                node[parent] = {}
            node = node[parent]
        node[last] = value
    return tree


def _listed(parts: Parts) -> list[str]:
    words = [f"{path}={value}" for path, value in parts.items()]
    return words if len(words) <= MOST_PARTS else [*words[: MOST_PARTS - 1], f"(+{len(words) - MOST_PARTS + 1})"]


def _alike(keys: Sequence[T]) -> dict[T, list[int]]:
    indices: dict[T, list[int]] = {}
    for i, key in enumerate(keys):
        indices.setdefault(key, []).append(i)
    return indices


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, with a number appended to each name that occurs more than once."""
    distinct = list(names)
    for name, indices in _alike(names).items():
        if len(indices) > 1:
            for number, i in enumerate(indices, 1):
                distinct[i] = f"{name} #{number}"
    return distinct
