"""The nouns of kdx. Shape letters, everywhere in the code:

B examples · K classes · C channels · H W decoded image · R resolution · M members of an ensemble.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
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
    """The inputs of all random numbers: seed, epoch, number of the batch in the epoch, and indices of the examples [B]."""

    seed: int
    epoch: int
    batch: int
    index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class View:
    """One network's view of each example: `box` [B,4] = top, left, height, width in fractions of the image, and `flip` [B]."""

    box: NDArray[np.float64]
    flip: NDArray[np.bool_]

    def part(self, rows: slice) -> View:
        """Return the view of some of the examples."""
        return View(self.box[rows], self.flip[rows])


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
    """Rendered images of a batch, before mixing: [B,C,R,R], uint8 or float32 in [0,1].

    `skipped` maps the index of each example that could not be decoded to the reason. `alone` [B], without the halo, marks
    examples whose partner in mixing could not be decoded; None: no example. `others` holds the teacher's view at further
    resolutions, `further` the student's.
    """

    draw: Draw
    student: Tensor
    teacher: Tensor | None
    label: Tensor | None
    halo: int = 0
    views: tuple[View, View] | None = None
    skipped: dict[int, str] = field(default_factory=dict)
    alone: NDArray[np.bool_] | None = None
    others: Mapping[int, Tensor] = field(default_factory=dict)
    further: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all images."""
        images = (self.student, self.teacher, *self.others.values(), *self.further.values())
        return sum(tensor.nbytes for tensor in images if tensor is not None)

    def parts(self, draws: Sequence[Draw]) -> Iterator[RenderedBatch]:
        """Yield the batches of these draws, of which this one is made, in their order."""
        first = 0
        for draw in draws:
            rows = slice(first, first + len(draw.index))
            views = self.views and (self.views[0].part(rows), self.views[1].part(rows))
            own = replace(self.draw, batch=draw.batch, index=draw.index)  # its seed and epoch are those of the views
            yield replace(self._each(operator.itemgetter(rows)), draw=own, views=views)
            first = rows.stop

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
    """Input of the networks: images [B,C,R,R] in [0,1], and `label` int64 [B].

    `mixed_target`, probabilities [B,K], is there only if images are mixed. `teacher_images` is None without a teacher.
    `other_images` holds the teacher's images at the resolutions of the members of an ensemble, by side in px; `further_images`
    the student's at the further resolutions at which it is measured.
    """

    student_images: Tensor
    teacher_images: Tensor | None
    label: Tensor | None = None
    mixed_target: Tensor | None = None
    index: Tensor | None = None  # of the examples in their split
    other_images: Mapping[int, Tensor] = field(default_factory=dict)
    further_images: Mapping[int, Tensor] = field(default_factory=dict)
    epoch: int = 0  # of the views

    def __len__(self) -> int:
        return len(self.student_images)


@dataclass
class Outputs:
    """All inputs of the losses for one batch: float32 logits [B,K], the label, and the distillation temperature.

    `mixed_target`, probabilities [B,K], is there only if images are mixed; `target` always, if there are labels.
    `member_logits` [M,B,K] is set for an ensemble whose members each have a loss of their own. Features are those that the
    losses ask for, by module path.
    """

    student_logits: Tensor
    teacher_logits: Tensor | None = None
    label: Tensor | None = None
    mixed_target: Tensor | None = None
    temperature: TemperatureValue | None = None
    member_logits: Tensor | None = None
    index: Tensor | None = None  # of the examples in their split
    progress: Progress = Progress(1.0, 0)
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)
    disagreement: Tensor | None = None  # share of the pairs of members or peers that predict different classes [B]
    peers: Mapping[str, Outputs] = field(default_factory=dict)  # of the other students in a cohort

    @property
    def target(self) -> Tensor | None:
        """Target probabilities [B,K]: mixed, or the one-hot label; None without labels."""
        if self.mixed_target is not None or self.label is None:
            return self.mixed_target
        return F.one_hot(self.label, self.student_logits.shape[-1]).to(self.student_logits.dtype)

    @property
    def main_label(self) -> Tensor | None:
        """Labels [B]; of mixed images, the class with the largest share; None without labels."""
        return self.label if self.mixed_target is None else self.mixed_target.argmax(-1)


@dataclass(frozen=True)
class LossContext:
    """Networks' and data's properties that a loss can use before the first step.

    Shapes of features exclude the batch dimension. `train_labels` [N] is None for unlabeled data. `teacher_classifier` is the
    frozen last layer of a single teacher, pooled features [B,F] -> logits [B,K].
    """

    num_classes: int
    train_size: int
    train_labels: Tensor | None = None
    student_features: Mapping[str, torch.Size] = field(default_factory=dict)
    teacher_features: Mapping[str, torch.Size] = field(default_factory=dict)
    teacher_classifier: Callable[[Tensor], Tensor] | None = None
