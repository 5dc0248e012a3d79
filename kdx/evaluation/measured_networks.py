"""Load the networks to evaluate: of a finished run, of an exported file, of a checkpoint, or any architecture of timm."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from kdx.config.cards import read_card
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.data.source import Source
from kdx.evaluation.request import EvaluationRequest
from kdx.experiment import build
from kdx.experiment.assemble import load_teacher, make_network
from kdx.experiment.students import weights_of_card
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.networks.preprocessing import interpolation_of
from kdx.networks.published import class_names, published
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import Teacher
from kdx.types import Pair
from kdx.views.render import DEFAULT, Interpolation, Resizing

log = logging.getLogger("kdx")


@dataclass
class MeasuredNetworks:
    """The networks to evaluate, with their resolutions and class names."""

    text: str  # for titles
    of: dict[str, Any]  # their origin, as plain data
    student: Network
    resolution: Pair  # px
    names: Sequence[str] | None = None  # of the classes of their outputs
    teacher: Teacher | None = None
    resizing: Resizing = DEFAULT
    other_resolutions: list[int] = field(default_factory=list)

    def to(self, device: torch.device) -> MeasuredNetworks:
        """Move the networks to `device` and return self."""
        self.student.to(device)
        if self.teacher is not None:
            self.teacher.to(device)
        return self


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
        if run is not None:
            networks = _of_run(request, run)
        elif request.student is not None:
            file = Path(request.student)
            networks = student_of_card(file, student_card(file.with_suffix(".json")), {"student": request.student})
        elif request.checkpoint is not None:
            networks = _of_weights(request, source)
        else:
            networks = _of_timm(request, source)
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
    networks.of["sha256"] = weights.digest(networks.student.model)
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
        networks = student_of_card(file, student_card(card_file), {})
    else:  # a checkpoint of an interrupted run
        network = make_network(config.student, "student", parts.source, parts.num_classes)
        weights.load(network.model, file)
        networks = MeasuredNetworks("", {}, network, Pair(config.resolution.teacher, config.student_resolution))
    networks.of = {"run": str(folder.path), "name": config.name, "weights": file.name}
    networks.text = config.name if file == folder.student else f"{config.name} · {file.name}"
    networks.resolution = Pair(config.resolution.teacher, networks.resolution.student)
    networks.resizing = Resizing(*config.interpolation.in_evaluation)
    if not request.alone and config.teacher is not None:
        networks.teacher = load_run_teacher(parts, networks.student.num_classes, folder)
        networks.other_resolutions = config.other_resolutions
    if networks.names is None:
        networks.names = _names_of(parts.source)
    return networks


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
        member.calibration_temperature = cards[name]["calibration_temperature"]
    return teacher


def _names_of(source: Source) -> Sequence[str] | None:
    """Return the class names of a run's data set; None if it is no longer available."""
    try:
        return source.names
    except (ValueError, OSError):
        return None


def student_card(path: Path) -> dict[str, Any]:
    """Return the content of a student.json. ConfigError if it does not describe a student."""
    try:
        return read_card(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def student_of_card(file: Path, card: Mapping[str, Any], of: dict[str, Any]) -> MeasuredNetworks:
    """Return the student of a student.json with the weights in `file`."""
    args, trained = dict(card["model_args"]), card["pretrained_cfg"]
    num_classes, channels = args.pop("num_classes"), args.pop("in_chans")
    network = Network(card["architecture"], num_classes, channels, trained["mean"], trained["std"], args=args)
    weights.load(network.model, file)
    name = cast(Interpolation, card.get("interpolation") or interpolation_of(trained) or "bilinear")
    side = Pair(card["resolution"], card["resolution"])
    return MeasuredNetworks(str(file), of, network, side, resizing=Resizing(name, name), names=card.get("label_names"))


def _of_weights(request: EvaluationRequest, source: Source) -> MeasuredNetworks:
    """Return the network of a given architecture with the weights in a file of any format."""
    assert request.checkpoint is not None and request.network is not None
    file = Path(request.checkpoint)
    num_classes = weights.head_classes(file) or source.num_classes
    if num_classes is None:
        raise ConfigError(f"Number of classes of {file} unknown; set data.num_classes=N")
    colors = {"mean": request.mean or source.mean, "std": request.std or source.std}
    option = {key: value for key, value in request.network.items() if key not in ("pretrained", "init")}
    factory = build.make(option, "network")
    network: Network = factory(num_classes=num_classes, in_channels=source.channels, **{**colors, **_colors(option)})
    weights.load(network.model, file)
    name = network.architecture
    of = {"checkpoint": request.checkpoint, "network": name}
    return MeasuredNetworks(f"{name} · {file.name}", of, network, _native_resolution(request, name), class_names(num_classes))


def _colors(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean and std that an option of conf/network sets itself."""
    return {key: node[key] for key in ("mean", "std") if node.get(key) is not None}


def _of_timm(request: EvaluationRequest, source: Source) -> MeasuredNetworks:
    """Return an architecture of timm with pretrained weights, with the weights in a file, or with random weights."""
    assert request.timm is not None
    pretrained_cfg, resolution = published(request.timm), _native_resolution(request, request.timm)
    file = Path(request.weights) if request.weights else None
    pretrained = file is None and request.pretrained is not False
    learned = weights.head_classes(file) if file else pretrained_cfg.num_classes if pretrained and pretrained_cfg else None
    num_classes = learned or source.num_classes
    if num_classes is None:
        raise ConfigError("Number of classes unknown for unlabeled data; set data.num_classes=N")
    mean, std = (pretrained_cfg.mean, pretrained_cfg.std) if pretrained_cfg else (source.mean, source.std)
    torch.manual_seed(request.seed)  # for random weights
    network = Network(
        request.timm, num_classes, source.channels, request.mean or mean, request.std or std, pretrained=pretrained
    )
    if file is not None:
        weights.load(network.model, file)
    elif not pretrained:
        log.warning("%s has random weights; give pretrained=true or weights=FILE to load weights", request.timm)
    of = {"timm": request.timm, "pretrained": pretrained, "weights": request.weights}
    return MeasuredNetworks(request.timm, of, network, resolution, class_names(num_classes) if learned else None)


def _native_resolution(request: EvaluationRequest, architecture: str) -> Pair:
    if request.sides:
        return Pair(request.sides[0], request.sides[0])
    pretrained_cfg = published(architecture)
    if pretrained_cfg is None or pretrained_cfg.side is None:
        raise ConfigError(f"Training resolution of {architecture} unknown; set resolution=PX")
    return Pair(pretrained_cfg.side, pretrained_cfg.side)
