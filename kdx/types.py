"""The nouns of kdx. Shape letters, everywhere in the code:

B examples · K classes · C channels · H W decoded image · R resolution · M members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class TemperaturePair(NamedTuple):
    """A temperature for each network, each [] or [B,1], and the `squared` one that keeps the size of the gradient."""

    teacher: Tensor
    student: Tensor
    squared: Tensor


TemperatureValue = Tensor | TemperaturePair  # one for both networks, [] or [B,1], or one for each


class Pair(NamedTuple):
    """One number for the teacher and one for the student, such as resolutions in pixels."""

    teacher: int
    student: int


@dataclass(frozen=True)
class Draw:
    """What a random number may depend on: the seed, the epoch, the example [B], and the batch's number in the epoch."""

    seed: int
    epoch: int
    batch: int
    index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class View:
    """Where a network looks: `box` [B,4] = top, left, height, width in fractions of the image, and `flip` [B]."""

    box: NDArray[np.float64]
    flip: NDArray[np.bool_]


@dataclass(frozen=True)
class Progress:
    """How far training is: `fraction` of all optimizer steps done, in [0,1], and the 0-based `epoch`."""

    fraction: float
    epoch: int


@dataclass
class Examples:
    """Decoded examples of one batch on one rank, before any view.

    `images` is a uint8 canvas [B,C,H,W] in whose top left corners images of `sizes` [B,2] px (H, W) lie, or, in a worker, a
    list of images [C,H,W]. The first `halo` examples are there only to be mixed into the others (see `kdx.data.sampler`).
    """

    draw: Draw
    images: Tensor | list[Tensor]
    sizes: NDArray[np.int64]
    label: Tensor | None
    halo: int = 0


@dataclass
class RenderedBatch:
    """The same examples as the networks look at them, not yet mixed: images [B,C,R,R], uint8 or float32 in [0,1].

    `skipped` names the examples that could not be decoded and are left out: index -> why. `others` are the teacher's view at
    further resolutions, `further` the student's.
    """

    draw: Draw
    student: Tensor
    teacher: Tensor | None
    label: Tensor | None
    halo: int = 0
    views: tuple[View, View] | None = None
    skipped: dict[int, str] = field(default_factory=dict)
    others: Mapping[int, Tensor] = field(default_factory=dict)
    further: Mapping[int, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> RenderedBatch:
        """The same on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> RenderedBatch:
        """The same in pinned memory; DataLoader calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> RenderedBatch:
        student = change(self.student)
        teacher = student if self.teacher is self.student else self.teacher
        if teacher is not None and teacher is not student:
            teacher = change(teacher)
        label = None if self.label is None else change(self.label)
        others = {resolution: change(images) for resolution, images in self.others.items()}
        further = {resolution: change(images) for resolution, images in self.further.items()}
        return replace(self, student=student, teacher=teacher, label=label, others=others, further=further)


@dataclass
class Batch:
    """What the networks see: images [B,C,R,R] in [0,1], `label` int64 [B], `target` probabilities [B,K].

    `target` differs from the one-hot label only where images are mixed. `teacher_images` is None without a teacher;
    `other_images` are the same at resolutions that members of an ensemble ask for, by side in px; `further_images` are the
    student's at resolutions that it is measured at beside its own.
    """

    student_images: Tensor
    teacher_images: Tensor | None
    label: Tensor | None = None
    target: Tensor | None = None
    index: Tensor | None = None  # of the examples in their split
    other_images: Mapping[int, Tensor] = field(default_factory=dict)
    further_images: Mapping[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.student_images)


@dataclass
class Outputs:
    """What the networks said of one batch: float32 logits [B,K], the target, and the distillation temperature.

    `member_logits` [M,B,K] are those of an ensemble whose members each teach with a loss of their own. Features are there where
    a loss asks for them, by the path of the module that gave them.
    """

    student_logits: Tensor
    teacher_logits: Tensor | None = None
    label: Tensor | None = None
    target: Tensor | None = None
    temperature: TemperatureValue | None = None
    member_logits: Tensor | None = None
    index: Tensor | None = None  # of the examples in their split
    progress: Progress = Progress(1.0, 0)
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)
    disagreement: Tensor | None = None  # how often the members of an ensemble or a cohort decide differently [B]
    peers: Mapping[str, Outputs] = field(default_factory=dict)  # of the other students in a cohort


@dataclass(frozen=True)
class LossContext:
    """What a loss may know of the networks and the data before the first step.

    Shapes of features are without the batch. `train_labels` [N] are there where the data set has labels; `teacher_classifier`
    is the teacher's frozen last layer, pooled features [B,F] -> logits [B,K], where there is one teacher.
    """

    num_classes: int
    train_size: int
    train_labels: Tensor | None = None
    student_features: Mapping[str, torch.Size] = field(default_factory=dict)
    teacher_features: Mapping[str, torch.Size] = field(default_factory=dict)
    teacher_classifier: Callable[[Tensor], Tensor] | None = None
