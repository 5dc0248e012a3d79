"""One forward of a network without weights: whether it runs at its resolution, and the shapes of its features."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdx.config.errors import ConfigError
from kdx.config.schema import Node
from kdx.experiment.build import Parts
from kdx.experiment.networks import make_network
from kdx.networks import weights
from kdx.networks.features import FeatureTaps
from kdx.networks.network import UNSUITABLE, Network, checked_logits

LARGEST = 1024  # px; larger sides are not tried as a remedy


@dataclass
class Probe:
    """A network that has run once: the shapes of its captured features, without the batch, and the warnings about it."""

    network: Network
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class Probes(NamedTuple):
    """The student and its peers by name, and the members of the teacher by config path."""

    students: dict[str, Probe]
    teachers: dict[str, Probe]


def probe_networks(parts: Parts) -> Probes:
    """Return the networks of a run after one forward at each resolution. ConfigError, with the remedy, if one fails."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not change
        return Probes(_students(parts), _teachers(parts))


def _students(parts: Parts) -> dict[str, Probe]:
    """Return the student, at its largest resolution, and its peers after a run at each of the student's resolutions."""
    config, paths = parts.config, parts.objective.student_features
    nodes = {"student": ("student", config.student)}
    for name, node in config.peers.members.items() if config.peers is not None else ():
        nodes[name] = (f"peers.members.{name}", node)
    probes: dict[str, Probe] = {}
    for name, (path, node) in nodes.items():
        warnings: list[str] = []
        for side in sorted(config.student_resolutions):
            probes[name] = probe(parts, node, path, "resolution.student", side, paths if name == "student" else (), True)
            warnings += probes[name].warnings
        probes[name].warnings = warnings
    return probes


def _teachers(parts: Parts) -> dict[str, Probe]:
    """Return the members of the teacher by config path, each after a run at its resolution."""
    config, probes = parts.config, {}
    for path, member in config.members.items():
        key = "resolution.teacher" if member.resolution is None else f"{path}.resolution"
        side = member.resolution or config.resolution.teacher
        paths = () if config.is_ensemble else parts.objective.teacher_features
        probes[path] = probe(parts, member.architecture, f"{path}.network", key, side, paths, False)
    return probes


def probe(parts: Parts, node: Node, path: str, key: str, side: int, paths: Sequence[str], training: bool) -> Probe:
    """Return a network after one forward on images of `side` px. ConfigError, with the remedy, if it fails."""
    try:
        return _run(parts, node, path, side, paths, training, "meta")
    except Exception:  # some networks read values, which meta tensors lack: only a failure with values counts
        try:
            return _run(parts, node, path, side, paths, training, "cpu")
        except ConfigError:
            raise
        except UNSUITABLE as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            remedy = _remedy(parts, node, path, key, side, training, reason)
            raise ConfigError(f"{path}: {node['architecture']} does not run at {key}={side}: {reason}: {remedy}") from error


def _run(parts: Parts, node: Node, path: str, side: int, paths: Sequence[str], training: bool, device: str) -> Probe:
    channels = parts.source.channels
    size = min(2, parts.config.data.batch_size) if training else 2
    with torch.device(device), torch.no_grad():
        network = _built(parts, node, path)
        if node.get("init") is not None and "architecture" in node:
            weights.take_size(network.model, Path(node["init"]))
        probe = Probe(network.train(training))
        try:
            taps = FeatureTaps(network.model, paths)
        except ValueError as error:
            raise ConfigError(f"features of {path}: {error}") from None
        hooks = [
            module.register_forward_pre_hook(_note_lost_pixels(probe, path, channels, side))
            for module in network.modules()
            if isinstance(module, nn.Conv2d)
        ]
        logits = network(torch.zeros(size, channels, side, side))
        for hook in hooks:
            hook.remove()
    try:
        checked_logits(logits, path, network, (size, parts.num_classes))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    probe.shapes = {name: feature.shape[1:] for name, feature in taps.take().items()}
    return probe


def _note_lost_pixels(probe: Probe, path: str, channels: int, side: int) -> Any:
    """Return a hook that notes the share of the image that a layer of patches omits at the right and lower edge."""

    def hook(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        patch = conv.kernel_size[0]
        takes_image = tuple(inputs[0].shape[1:]) == (channels, side, side)
        if takes_image and patch > 1 and conv.stride == conv.kernel_size == (patch, patch) and conv.padding in (0, (0, 0)):
            lost = 1 - (side // patch * patch / side) ** 2
            if lost > 0:
                probe.warnings.append(
                    f"{path}: patches of {patch} px do not divide images of {side} px, so {lost:.0%} of the pixels are not used"
                    f": use a multiple of {patch} px, e.g. {max(side // patch, 1) * patch} or {(side // patch + 1) * patch}"
                )

    return hook


def _remedy(parts: Parts, node: Node, path: str, key: str, side: int, training: bool, reason: str) -> str:
    """Return what to change so that the network runs, found by trying."""
    if "more than 1 value per channel" in reason:
        return "use data.batch_size=2 or more"
    args = dict(node.get("args") or {})
    try:
        _run(parts, {**node, "args": {**args, "img_size": side}}, path, side, (), training, "meta")
        return f"{'set' if 'img_size' in args else 'add'} {'' if 'img_size' in args else '+'}{path}.args.img_size={side}"
    except Exception:  # the network has no such argument
        pass
    with torch.device("meta"), torch.no_grad():
        network = _built(parts, node, path).train(training)
        listed: Any = getattr(network.model, "pretrained_cfg", None) or {}
        native = int((listed.get("input_size") or (3, 224, 224))[-1])
        doubled = (side << times for times in range(1, (LARGEST // side).bit_length()))
        for px in (*doubled, native):
            with suppress(Exception):
                network(torch.zeros(2, parts.source.channels, px, px))
                return f"use {key}={px}, or another network"
    return f"use another {key}, or another network"


def _built(parts: Parts, node: Node, path: str) -> Network:
    return make_network({**node, "pretrained": False, "init": None}, path, parts.source, parts.num_classes)
