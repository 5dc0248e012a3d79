"""The nouns of kdx. Shape letters, everywhere in the code:

B examples · K classes · C channels · H W decoded image · R resolution · M members of an ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Temperature = Tensor | tuple[Tensor, Tensor]  # one for both networks, or (teacher's, student's); each [] or [B,1]


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
    """Decoded examples of one batch on one rank, before any view: `images` uint8 [B,C,H,W], `sizes` [B,2] px (H, W).

    The first `halo` examples are there only to be mixed into the others (see `kdx.data.sampler`).
    """

    draw: Draw
    images: Tensor
    sizes: NDArray[np.int64]
    label: Tensor | None
    halo: int = 0

    def to(self, device: torch.device) -> Examples:
        """The same examples on `device`."""
        label = None if self.label is None else self.label.to(device, non_blocking=True)
        return replace(self, images=self.images.to(device, non_blocking=True), label=label)


@dataclass
class Batch:
    """What the networks see: images [B,C,R,R] in [0,1], `label` int64 [B], `target` probabilities [B,K].

    `target` differs from the one-hot label only where images are mixed. `teacher_images` is None without a teacher.
    """

    student_images: Tensor
    teacher_images: Tensor | None
    label: Tensor | None = None
    target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.student_images)


@dataclass
class Outputs:
    """What the networks said of one batch: float32 logits [B,K], the target, and the distillation temperature."""

    student_logits: Tensor
    teacher_logits: Tensor | None = None
    label: Tensor | None = None
    target: Tensor | None = None
    temperature: Temperature | None = None

    def detach(self) -> Outputs:
        """The same outputs without a graph."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.detach() for k, v in values.items() if isinstance(v, Tensor)})
