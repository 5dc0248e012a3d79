"""View policies: which network looks where. `same`, `ind` and `fix` are two classes and no branches."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from kdx.random import uniform
from kdx.scalars import validated
from kdx.types import Draw, View
from kdx.views.crops import Crop


class ViewPolicy(ABC):
    """Hands each network its view of a batch."""

    shared: bool  # both networks always get one and the same view, so images may be mixed
    teacher_fixed: bool  # the teacher's view of an example never changes, so its outputs may be stored

    @abstractmethod
    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        """The teacher's and the student's view of the drawn examples; `flip` lets half of them be mirrored."""


def look(crop: Crop, stream: str, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> View:
    """One view per example, drawn from `stream`. A deterministic crop is never mirrored."""
    mirror = flip and crop.draws > 0
    numbers = uniform(draw.seed, stream, draw.epoch, draw.index, crop.draws + mirror)
    flips = numbers[:, -1] < 0.5 if mirror else np.zeros(len(draw.index), bool)
    return View(crop.boxes(numbers[:, : crop.draws], sizes), flips)


@validated
class SharedView(ViewPolicy):
    """One view for both networks: FunMatch's `same`, a consistent teacher."""

    shared = True

    def __init__(self, crop: Crop) -> None:
        self.crop = crop
        self.teacher_fixed = crop.draws == 0

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        view = look(self.crop, "view", draw, sizes, flip)
        return view, view


@validated
class SeparateViews(ViewPolicy):
    """A view of its own for each network: `ind`, or `fix` when the teacher's crop is deterministic."""

    shared = False

    def __init__(self, teacher_crop: Crop, student_crop: Crop) -> None:
        self.teacher_crop, self.student_crop = teacher_crop, student_crop
        self.teacher_fixed = teacher_crop.draws == 0

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        teacher = look(self.teacher_crop, "teacher view", draw, sizes, flip)
        return teacher, look(self.student_crop, "student view", draw, sizes, flip)
