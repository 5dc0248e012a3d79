"""Load the networks to evaluate: of a finished run, of an exported file, of a checkpoint, or any architecture of timm."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kdx.config.cards import read_card
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.data.source import Source
from kdx.evaluation.exported import read_exported
from kdx.evaluation.measured_networks import MeasuredNetworks, network_of_card, student_of_card
from kdx.evaluation.request import EvaluationRequest
from kdx.experiment import build
from kdx.experiment.assemble import load_teacher
from kdx.experiment.networks import channels_last, make_network, normalizations
from kdx.experiment.students import calibration_of_card, weights_of_card
from kdx.networks import grids, metadata, weights
from kdx.networks.arithmetic import laid_out
from kdx.networks.published import class_names, published
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import Teacher
from kdx.types import Pair
from kdx.views.render import Interpolation, Resizing

log = logging.getLogger("kdx")

NETWORK = {"_target_": "kdx.networks.network.Network", "_partial_": True}  # as in conf/network/timm.yaml


def load_networks(request: EvaluationRequest, run: RunConfig | None, source: Source) -> MeasuredNetworks:
    """Return the requested networks, frozen and in eval mode, for images of `source`.

    Args:
        request: The request.
        run: The config of the run that the network belongs to, if any.
        source: The data set.

    Raises:
        ConfigError: If a file is missing, or if the networks do not fit the data.
    """
    try:
        if request.file is not None:
            networks = read_exported(Path(request.file)).measured()
            if run is not None:
                _beside_teacher(networks, request, run, networks.resizing.student)
            elif networks.crop is None:
                raise ConfigError(f"{request.file} does not say how images are cropped: keep it in the folder of its run")
        elif run is not None:
            networks = _of_run(request, run)
        elif request.student is not None:
            file = Path(request.student)
            networks = student_of_card(file, read_card(file.with_suffix(".json")), {"student": request.student})
        else:
            networks = _of_architecture(request, source)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if networks.student.in_channels != source.channels:
        raise ConfigError(
            f"The network expects images with {networks.student.in_channels} channels, but the data set has {source.channels}: "
            f"set data.channels={networks.student.in_channels} for images in folders, or choose other data"
        )
    if request.interpolation is not None:
        networks.resizing = Resizing(request.interpolation, request.interpolation)
    networks.student.requires_grad_(False).eval()
    mean, std = networks.student.colors
    networks.of |= {"sha256": networks.student.fingerprint, "mean": list(mean), "std": list(std)}
    return networks


def _of_run(request: EvaluationRequest, config: RunConfig) -> MeasuredNetworks:
    assert request.folder is not None
    folder, parts = RunFolder(request.folder), build.unchecked(config)
    file = Path(request.student or request.checkpoint or folder.student)
    if not file.is_file():
        raise ConfigError(
            f"{folder.path} has no {file.name}. If the run was interrupted, give checkpoint={folder.checkpoints / 'last.ckpt'}"
        )
    card_file = file.with_suffix(".json") if request.checkpoint is None else folder.student.with_suffix(".json")
    if card_file.is_file():
        card = read_card(card_file)
        network, side, names = network_of_card(file, card, request.key), card["resolution"], card.get("label_names")
    else:  # a checkpoint of an interrupted run
        network = make_network(config.student, "student", parts.source, parts.num_classes)
        side, names = config.student_resolution, None
        weights.load(network.model, file, request.key, "key")
    if channels_last(config):  # as in the run, whose numbers come out again
        laid_out(network, config.student_resolution)
    text = config.name if file == folder.student else f"{config.name} · {file.name}"
    of = {"run": str(folder.path), "name": config.name, "weights": file.name}
    networks = MeasuredNetworks(text, of, network, Pair(side, side), names)
    _beside_teacher(networks, request, config, config.interpolation.in_evaluation[1])
    return networks


def _beside_teacher(networks: MeasuredNetworks, request: EvaluationRequest, config: RunConfig, own: Interpolation) -> None:
    """Add the teacher of the run and its images; `own` is the filter of the student's images."""
    assert request.folder is not None
    folder, parts = RunFolder(request.folder), build.unchecked(config)
    networks.resolution = Pair(config.resolution.teacher, networks.resolution.student)
    of_teacher, _, from_teacher = config.interpolation.in_evaluation
    networks.resizing = Resizing(of_teacher, own, from_teacher)
    if not request.alone and config.teacher is not None:
        networks.teacher = load_run_teacher(parts, networks.student.num_classes, folder)
        networks.other_resolutions = config.other_resolutions
    if networks.names is None:
        networks.names = _names_of(parts.source)


def load_run_teacher(parts: build.Parts, num_classes: int, folder: RunFolder) -> Teacher | None:
    """Return the teacher with the weights and calibration of the run; None, with a warning, if they were not recorded."""
    if not (folder.path / "teacher.json").is_file():
        log.warning("%s has no teacher.json because the run was interrupted; evaluating the student only", folder.path)
        return None
    cards: Mapping[str, Any] = folder.read("teacher.json")["members"]
    files = {name: weights_of_card(card, num_classes) for name, card in cards.items()}
    teacher = load_teacher(parts, num_classes, files)
    assert teacher is not None
    for name, member in teacher.members.items():
        if member.fingerprint != cards[name]["sha256"]:
            raise ConfigError(
                f"The weights in {files[name].file} differ from those of this run's teacher: restore the file, or give "
                "alone=true to evaluate the student only"
            )
        member.calibration = calibration_of_card(cards[name])
    return teacher


def _names_of(source: Source) -> Sequence[str] | None:
    """Return the class names of a run's data set; None if it is no longer available."""
    try:
        return source.names
    except (ValueError, OSError):
        return None


def _of_architecture(request: EvaluationRequest, source: Source) -> MeasuredNetworks:
    """Return a network of a given architecture with the weights in a file of any format, with timm's, or with random ones."""
    stated = {name: value for name in ("mean", "std") if (value := getattr(request, name)) is not None}
    given = request.checkpoint or request.weights
    file, pretrained = Path(given) if given else None, given is None and request.pretrained is not False
    option = request.network or {**NETWORK, "architecture": request.timm}
    node = {**option, "pretrained": pretrained, "init": None, **stated}
    name: str = node["architecture"]
    known = metadata.of_file(file, request.key) if file else published(name) if pretrained else None
    num_classes = (known.num_classes if known is not None else None) or source.num_classes
    if num_classes is None:
        raise ConfigError(f"Number of classes{f' of {file}' if file else ''} unknown; set data.num_classes=N")
    resolution = _native_resolution(request, name)
    torch.manual_seed(request.seed)  # for random weights
    expected = normalizations(node, source, file, request.key)[0] if file else None
    network = make_network(node, "timm" if request.timm else "network", source, num_classes, expected)
    if not grids.takes_any_size(network.model):  # before its weights, so that they are resampled once
        grids.resize(network.model, (resolution.student, resolution.student))
    if file is not None:
        weights.load(network.model, file, request.key, "key")
    elif not pretrained:
        log.warning("%s has random weights; give pretrained=true or weights=FILE to load weights", name)
    of = {"timm": request.timm, "pretrained": pretrained, "weights": given, "key": request.key}
    of = of if request.timm else {"network": name, "checkpoint": given, "key": request.key}
    text = f"{name} · {file.name}" if file else name
    names = None if known is None else known.names or class_names(num_classes)
    return MeasuredNetworks(text, of, network, resolution, names)


def _native_resolution(request: EvaluationRequest, architecture: str) -> Pair:
    if request.sides:
        return Pair(request.sides[0], request.sides[0])
    pretrained_cfg = published(architecture)
    if pretrained_cfg is None or pretrained_cfg.side is None:
        raise ConfigError(f"Training resolution of {architecture} unknown; set resolution=PX")
    return Pair(pretrained_cfg.side, pretrained_cfg.side)
