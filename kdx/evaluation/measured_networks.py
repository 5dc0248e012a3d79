"""Who is measured: a finished run's networks, a student in a file, a checkpoint, or any of timm's architectures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from kdx.config.check import ConfigError
from kdx.data.source import Source
from kdx.evaluation.request import FINISHED, EvaluationRequest
from kdx.experiment import build
from kdx.experiment.assemble import load_teacher, make_network
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.networks.published import class_names, published
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import Teacher
from kdx.types import Pair
from kdx.views.render import Interpolation

log = logging.getLogger("kdx")


@dataclass
class MeasuredNetworks:
    """Networks to measure, at which resolutions they see, and the names of the classes that their outputs stand for."""

    text: str
    of: dict[str, Any]  # where they come from, as plain data
    student: Network
    resolution: Pair
    names: Sequence[str] | None = None
    teacher: Teacher | None = None
    interpolations: tuple[Interpolation, Interpolation] = ("bilinear", "bilinear")
    other_resolutions: list[int] = field(default_factory=list)

    def to(self, device: torch.device) -> MeasuredNetworks:
        """The same, its networks moved to `device`."""
        self.student.to(device)
        if self.teacher is not None:
            self.teacher.to(device)
        return self


def load_networks(asked: EvaluationRequest, run: DictConfig | None, source: Source) -> MeasuredNetworks:
    """The networks that were asked for, for images of `source`. ConfigError says what is missing, or does not fit."""
    try:
        if run is not None:
            found = _of_run(asked, run)
        elif asked.student is not None:
            found = _of_card(Path(asked.student), _card(Path(asked.student).with_suffix(".json")), {"student": asked.student})
        elif asked.checkpoint is not None:
            found = _of_weights(asked, source)
        else:
            found = _of_timm(asked, source)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if found.student.in_channels != source.channels:
        raise ConfigError(
            f"the network sees images of {found.student.in_channels} channels, and the data set's have {source.channels}: "
            "choose other data"
        )
    if asked.interpolation is not None:
        found.interpolations = (asked.interpolation, asked.interpolation)
    found.student.requires_grad_(False).eval()
    found.of["sha256"] = weights.digest(found.student.model)
    return found


def _of_run(asked: EvaluationRequest, cfg: DictConfig) -> MeasuredNetworks:
    assert asked.folder is not None
    folder, parts = RunFolder(asked.folder), build.unchecked(cfg)
    file = Path(asked.student or asked.checkpoint or folder.student)
    if not file.is_file():
        raise ConfigError(
            f"{folder.path} has no {file.name}: was the run cut off? Give checkpoint={folder.checkpoints / 'last.ckpt'}"
        )
    card_file = file.with_suffix(".json") if asked.checkpoint is None else folder.student.with_suffix(".json")
    if card_file.is_file():
        found = _of_card(file, _card(card_file), {})
    else:  # a checkpoint of a run that was cut off
        network = make_network(cfg, "student", parts, build.count_classes(cfg, parts))
        weights.load(network.model, file)
        side = max(build.student_resolutions(cfg))
        found = MeasuredNetworks("", {}, network, Pair(cfg.resolution.teacher, side))
    found.of = {"run": str(folder.path), "name": cfg.name, "weights": file.name}
    found.text = cfg.name if file == folder.student else f"{cfg.name} · {file.name}"
    found.resolution = Pair(cfg.resolution.teacher, found.resolution.student)
    found.interpolations = (cfg.interpolation.teacher, cfg.interpolation.student)
    if not asked.alone and cfg.teacher is not None:
        found.teacher = _teacher(cfg, parts, found.student.num_classes, folder)
        found.other_resolutions = build.other_resolutions(cfg)
    if found.names is None:
        found.names = _names_of(parts.source)
    return found


def _teacher(cfg: DictConfig, parts: build.Parts, num_classes: int, folder: RunFolder) -> Teacher | None:
    """The teacher with the weights and the calibration that the run had; None, which is said, where it was not written down."""
    if not (folder.path / "teacher.json").is_file():
        log.warning("%s has no teacher.json, as the run was cut off: only the student is measured", folder.path)
        return None
    cards: Mapping[str, Any] = folder.read("teacher.json")["members"]
    files = {name: Path(card["weights"]) if card["weights"] else None for name, card in cards.items()}
    teacher = load_teacher(cfg, parts, num_classes, files)
    assert teacher is not None
    for name, member in teacher.members.items():
        if member.fingerprint != cards[name]["sha256"]:
            raise ConfigError(
                f"{files[name]} is not the teacher that this run was distilled from, for its weights differ: give alone=true"
            )
        member.calibration_temperature = cards[name]["calibration_temperature"]
    return teacher


def _names_of(source: Source) -> Sequence[str] | None:
    """The classes that a run learned, if its data set is still there to tell."""
    try:
        return source.names
    except (ValueError, OSError):
        return None


def _card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted = {"architecture", "resolution"} - set(card) or {"num_classes", "in_chans"} - set(card["model_args"])
        if absent := wanted or {"mean", "std"} - set(card["pretrained_cfg"]):
            raise ValueError(f"no {sorted(absent)[0]}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no card of a student ({error}): {FINISHED}, or copy student.json again") from None
    return card


def _of_card(file: Path, card: Mapping[str, Any], of: dict[str, Any]) -> MeasuredNetworks:
    args, trained = dict(card["model_args"]), card["pretrained_cfg"]
    num_classes, channels = args.pop("num_classes"), args.pop("in_chans")
    network = Network(card["architecture"], num_classes, channels, trained["mean"], trained["std"], args=args)
    weights.load(network.model, file)
    return MeasuredNetworks(str(file), of, network, Pair(card["resolution"], card["resolution"]), card.get("label_names"))


def _of_weights(asked: EvaluationRequest, source: Source) -> MeasuredNetworks:
    """A file of weights in any format, for an architecture that is named."""
    assert asked.checkpoint is not None and asked.network is not None
    file = Path(asked.checkpoint)
    num_classes = weights.head_classes(file) or source.num_classes
    if num_classes is None:
        raise ConfigError(f"nobody knows how many classes {file} tells apart: give data.num_classes=...")
    colors = {"mean": asked.mean or source.mean, "std": asked.std or source.std}
    own = {key: value for key, value in asked.network.items() if key not in ("pretrained", "init")}
    factory = build.make(own, "network")
    network: Network = factory(num_classes=num_classes, in_channels=source.channels, **{**colors, **_colors(own)})
    weights.load(network.model, file)
    name = network.architecture
    of = {"checkpoint": asked.checkpoint, "network": name}
    return MeasuredNetworks(f"{name} · {file.name}", of, network, _own_side(asked, name), class_names(num_classes))


def _colors(node: Mapping[str, Any]) -> dict[str, Any]:
    """Those that an option of conf/network names itself."""
    return {key: node[key] for key in ("mean", "std") if node.get(key) is not None}


def _of_timm(asked: EvaluationRequest, source: Source) -> MeasuredNetworks:
    """An architecture of timm's, with its weights, those in a file, or random ones."""
    assert asked.timm is not None
    known, side = published(asked.timm), _own_side(asked, asked.timm)
    file = Path(asked.weights) if asked.weights else None
    pretrained = file is None and asked.pretrained is not False
    learned = weights.head_classes(file) if file else known.num_classes if pretrained and known else None
    num_classes = learned or source.num_classes
    if num_classes is None:
        raise ConfigError("without labels nobody knows how many classes there are: give data.num_classes=...")
    fallback = (known.mean, known.std) if known else (source.mean, source.std)
    torch.manual_seed(asked.seed)  # of random weights
    network = Network(
        asked.timm, num_classes, source.channels, asked.mean or fallback[0], asked.std or fallback[1], pretrained=pretrained
    )
    if file is not None:
        weights.load(network.model, file)
    elif not pretrained:
        log.warning("%s has random weights: give pretrained=true or weights=FILE for others", asked.timm)
    of = {"timm": asked.timm, "pretrained": pretrained, "weights": asked.weights}
    return MeasuredNetworks(asked.timm, of, network, side, class_names(num_classes) if learned else None)


def _own_side(asked: EvaluationRequest, architecture: str) -> Pair:
    known = published(architecture)
    if asked.sides:
        return Pair(asked.sides[0], asked.sides[0])
    if known is None:
        raise ConfigError(f"nobody knows the resolution that {architecture} was trained for: give resolution=PX")
    return Pair(known.side, known.side)
