"""Checks of weight files and published weights before data is read, so that a mistake costs seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from kdx.config.errors import ConfigError
from kdx.config.schema import Node
from kdx.experiment.build import Parts
from kdx.experiment.networks import make_network
from kdx.experiment.teacher import existing
from kdx.networks import downloads, weights


def check_weights(parts: Parts) -> None:
    """Raise ConfigError if weights are for other classes, do not fit their network, or cannot be downloaded."""
    for path, member in parts.config.members.items():
        own = existing(parts, path)
        if own is not None and member.checkpoint is not None:
            _check(parts, member.architecture, path, "checkpoint", own.count, Path(member.checkpoint), member.key)
    stored = any(Path(parts.config.outputs, "teachers").glob("*"))  # then fine-tuned ones may need no download
    for path, node in _networks(parts):
        if node.get("pretrained") and not (stored and path.startswith("teacher")):
            try:
                downloads.source(node["architecture"])
            except ValueError as error:
                raise ConfigError(f"{path}: {error}") from None
        if node.get("init") is not None:
            _check(parts, node, path, "init", parts.num_classes, Path(node["init"]))


def _networks(parts: Parts) -> Iterator[tuple[str, Node]]:
    """Yield the config nodes of all networks by their path."""
    config = parts.config
    yield "student", config.student
    if config.peers is not None:
        yield from ((f"peers.members.{name}", node) for name, node in config.peers.members.items())
    yield from ((f"{path}.network", member.architecture) for path, member in config.members.items())


def _check(parts: Parts, node: Node, path: str, option: str, num_classes: int, file: Path, key: str | None = None) -> None:
    """Raise ConfigError if the file that `option` at `path` names does not fit the network of `node`."""
    if "architecture" not in node:  # a class from outside kdx, whose options are its own
        return
    try:
        with torch.device("meta"):
            network = make_network({**node, "pretrained": False, "init": None}, path, parts.source, num_classes)
    except (RuntimeError, NotImplementedError):  # it computes with weights when built; checked when the file is loaded
        return
    try:
        weights.fitted(network.model, file, key, f"{path}.key", new_head=option == "init")
    except ValueError as error:
        raise ConfigError(f"{path}.{option}: {error}") from None
