"""Networks of a finished run that take images of any size: crop, resize and normalization included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdx.config.cards import read_card
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.evaluation.exported import read_exported
from kdx.evaluation.loading import load_run_teacher
from kdx.evaluation.measured_networks import network_of_card
from kdx.experiment import build
from kdx.networks.file_network import FileNetwork
from kdx.networks.network import Network
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.types import View
from kdx.views.crops import Crop
from kdx.views.observer import resized
from kdx.views.render import Interpolation, render


class Predictor(nn.Module):
    """A network and what stands before it: the crop and the resize of val and test images, and its normalization.

    Attributes:
        network: the student, or the teacher (calibrated as in the run), which gives logits for images at its resolutions.
        resolution: the side R in px that the network sees.
        class_names: the names of the K classes in order, if they are known.
        via: the side in px and the filter of the image from which the student's is resized, if not from the original.
    """

    def __init__(
        self,
        network: Network | FileNetwork | Teacher,
        crop: Crop,
        resolution: int,
        interpolation: Interpolation,
        other_resolutions: Sequence[int] = (),
        class_names: Sequence[str] | None = None,
        via: tuple[int, Interpolation] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.crop, self.resolution, self.interpolation = network, crop, resolution, interpolation
        self.other_resolutions, self.class_names, self.via = tuple(other_resolutions), class_names, via
        if isinstance(network, Teacher):  # which is no module itself; its networks move to another device with this one
            members = network.members.items()
            self.members = nn.ModuleDict({name: one.network for name, one in members if isinstance(one, OnlineTeacher)})
        self.channels = next(one.in_channels for one in self.modules() if isinstance(one, (Network, FileNetwork)))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits [B,K].

        Args:
            images: [B,C,H,W] of any size, uint8 or floats in [0,1].

        Raises:
            ValueError: if the images have another shape or another range of values.
        """
        pixels = _in_bytes(images)
        if images.shape[1] != self.channels:
            gray = "images.mean(1, keepdim=True)" if self.channels == 1 else "images.expand(-1, 3, -1, -1)"
            how = f"; convert them, e.g. with {gray}" if {self.channels, images.shape[1]} == {1, 3} else ""
            raise ValueError(f"Expected images with {self.channels} channels, got {list(images.shape)}{how}")
        whole = np.array([images.shape[-2:]] * len(images), dtype=np.int64).reshape(-1, 2)
        boxes = self.crop.boxes(np.zeros((len(images), self.crop.draws)), whole)
        view = View(boxes, np.zeros(len(images), dtype=np.bool_))

        def at(side: int) -> Tensor:
            if self.via is None:
                return render(pixels, view, side, interpolation=self.interpolation)
            return resized(render(pixels, view, self.via[0], interpolation=self.via[1]), side, self.interpolation)

        if isinstance(self.network, Teacher):
            others: Mapping[int, Tensor] = {side: at(side) for side in self.other_resolutions}
            return self.network(at(self.resolution), others)
        return self.network(at(self.resolution)).float()


def _in_bytes(images: Tensor) -> Tensor:
    """Return the images as numbers from 0 to 255; ValueError if their range is unknown."""
    if images.ndim != 4:
        raise ValueError(f"Expected images [B,C,H,W], got {list(images.shape)}; add a batch dimension with images[None]")
    if images.dtype == torch.uint8:
        return images
    if not images.dtype.is_floating_point or (images.numel() and not 0 <= images.min() <= images.max() <= 1):
        raise ValueError("Unknown pixel range: expected uint8 or floats in [0, 1]")
    return images.to(torch.float32) * 255


def student_of(config: RunConfig, folder: RunFolder, weights: Path | None = None) -> Predictor:
    """Return the selected student of a finished run, or the one whose weights are in another file of the run."""
    file = weights or folder.student
    if not file.is_file():
        raise ConfigError(f"{folder.path} has no {file.name}: the run is not finished")
    card = read_card(file.with_suffix(".json"))
    network = network_of_card(file, card)
    crop = build.make(config.data.eval_crop, "data.eval_crop")
    first, own, from_teacher = config.interpolation.in_evaluation
    via = (config.resolution.teacher, first) if from_teacher else None
    return Predictor(network, crop, card["resolution"], own, class_names=card.get("label_names"), via=via)


def of_file(file: Path) -> tuple[Predictor, float]:
    """Return the network of an exported file or folder, see `read_exported`, and its T.

    T calibrates the network's logits: 1 if none was fitted, or if the file includes it. ConfigError if the file cannot be
    read, or does not say how images are cropped.
    """
    exported = read_exported(file)
    if exported.crop is None:
        raise ConfigError(f"{file} does not say how images are cropped: give run=FOLDER, the run that it was exported from")
    predictor = Predictor(
        exported.network, exported.crop, exported.resolution, exported.interpolation, class_names=exported.names
    )
    return predictor, exported.temperature or 1.0


def teacher_of(config: RunConfig, folder: RunFolder) -> Predictor:
    """Return the teacher of a finished run, calibrated as in the run. ConfigError if it had none."""
    if config.teacher is None:
        raise ConfigError(f"{folder.path} has no teacher: it was trained with teacher=none")
    card = read_card(folder.student.with_suffix(".json"))
    parts = build.unchecked(config)
    teacher = load_run_teacher(parts, card["model_args"]["num_classes"], folder)
    if teacher is None:
        raise ConfigError(f"{folder.path} has no teacher.json: the run is not finished")
    return Predictor(
        teacher,
        parts.eval_crop,
        config.resolution.teacher,
        config.interpolation.in_evaluation[0],
        config.other_resolutions,
        card.get("label_names"),
    )
