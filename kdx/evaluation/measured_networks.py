"""The networks to evaluate, with all that stands before them, and students of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from kdx.networks import weights
from kdx.networks.file_network import FileNetwork
from kdx.networks.network import Network
from kdx.networks.preprocessing import interpolation_of
from kdx.teachers.teacher import Teacher
from kdx.types import Pair
from kdx.views.crops import Crop
from kdx.views.render import DEFAULT, Interpolation, Resizing


@dataclass
class MeasuredNetworks:
    """The networks to evaluate, with their resolutions and class names."""

    text: str  # for titles
    of: dict[str, Any]  # their origin, as plain data
    student: Network | FileNetwork
    resolution: Pair  # px
    names: Sequence[str] | None = None  # of the classes of their outputs
    teacher: Teacher | None = None
    resizing: Resizing = DEFAULT
    other_resolutions: list[int] = field(default_factory=list)
    crop: Crop | None = None  # None: that of the data set
    temperature: float | None = None  # T that calibrates the student, which is measured with it, too

    def to(self, device: torch.device) -> MeasuredNetworks:
        """Move the networks to `device` and return self."""
        self.student.to(device)
        if self.teacher is not None:
            self.teacher.to(device)
        return self

    @property
    def only_side(self) -> int | None:
        """The only resolution in px that the student takes; None if it takes others."""
        return self.student.side if isinstance(self.student, FileNetwork) else None


def student_of_card(file: Path, card: Mapping[str, Any], of: dict[str, Any], key: str | None = None) -> MeasuredNetworks:
    """Return the student of a student.json with the weights in `file`."""
    side = Pair(card["resolution"], card["resolution"])
    name = filter_of(card)
    network = network_of_card(file, card, key)
    return MeasuredNetworks(str(file), of, network, side, resizing=Resizing(name, name), names=card.get("label_names"))


def network_of_card(file: Path, card: Mapping[str, Any], key: str | None = None) -> Network:
    """Return the network of a student.json with the weights in `file`."""
    args, trained = dict(card["model_args"]), card["pretrained_cfg"]
    num_classes, channels = args.pop("num_classes"), args.pop("in_chans")
    network = Network(card["architecture"], num_classes, channels, trained["mean"], trained["std"], args=args)
    weights.load(network.model, file, key, "key")
    return network


def filter_of(card: Mapping[str, Any]) -> Interpolation:
    """Return the filter of the images on val and test by a card, which may have only the word of timm."""
    return cast(Interpolation, card.get("interpolation") or interpolation_of(card["pretrained_cfg"]) or "bilinear")
