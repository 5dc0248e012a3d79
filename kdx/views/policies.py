"""View policies: which view the teacher and the student get. Two classes implement `same`, `ind` and `fix`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kdx.random import uniform
from kdx.ranges import Count, Seed, ShapeError, validated
from kdx.types import Draw, View
from kdx.views.crops import Crop

WHICH_EPOCHS = ("seed", "distinct_epochs")  # keys of all views that say which of them are shown, not how they are drawn


class ViewPolicy(ABC):
    """Base class: draws the teacher's and the student's view of a batch.

    With a `seed` of their own, views do not depend on that of the run; with `distinct_epochs` = E, epoch e shows those of
    epoch e modulo E.
    """

    seed: int | None = None  # None: the run's
    distinct_epochs: int | None = None  # None: no epoch repeats another
    shared: bool  # both networks always get the same view; required for mixing
    teacher_fixed: bool  # the teacher's views do not change between epochs, so its outputs can be stored
    teacher_crops: int = 1  # number of views per example of a fixed teacher

    def drawn_from(self, seed: int, epoch: int) -> tuple[int, int]:
        """Return the seed and the epoch that the views of this epoch are drawn from, in a run with this seed."""
        return seed if self.seed is None else self.seed, epoch if self.distinct_epochs is None else epoch % self.distinct_epochs

    @abstractmethod
    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        """Return the teacher's and the student's view of the drawn examples; with `flip`, half of them are mirrored."""

    @abstractmethod
    def stored_teacher_view(self, k: int, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> View:
        """Return view number `k` < `teacher_crops` of a teacher with fixed views; it does not depend on the epoch."""


def look(crop: Crop, stream: str, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> View:
    """Return one view per example, with random numbers from `stream`. A deterministic crop is never mirrored."""
    mirror = flip and crop.draws > 0
    numbers = uniform(draw.seed, stream, draw.epoch, draw.index, crop.draws + mirror)
    flips = numbers[:, -1] < 0.5 if mirror else np.zeros(len(draw.index), bool)
    boxes = crop.boxes(numbers[:, : crop.draws], sizes)
    return checked_view(View(boxes, flips), f"crop {type(crop).__name__}", len(draw.index))


def checked_view(view: View, name: str, batch_size: int) -> View:
    """Return `view` if its boxes are [B,4] and its flips [B]; else raise ShapeError, which names what gave it."""
    boxes, flips = np.shape(view.box), np.shape(view.flip)
    if boxes != (batch_size, 4):
        raise ShapeError(
            f"{name} returned boxes of shape {list(boxes)}; expected [{batch_size}, 4]: "
            "return top, left, height and width of each image, in fractions of it"
        )
    if flips != (batch_size,):
        raise ShapeError(f"{name} returned flips of shape {list(flips)}; expected [{batch_size}]: return one bool per image")
    return view


@validated
class SharedView(ViewPolicy):
    """The same view for both networks: consistent teaching, `same` in FunMatch."""

    shared = True

    def __init__(self, crop: Crop, seed: Seed | None = None, distinct_epochs: Count | None = None) -> None:
        self.crop, self.seed, self.distinct_epochs = crop, seed, distinct_epochs
        self.teacher_fixed = crop.draws == 0

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        view = look(self.crop, "view", draw, sizes, flip)
        return view, view

    def stored_teacher_view(self, k: int, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> View:
        assert self.teacher_fixed and k == 0
        return look(self.crop, "view", draw, sizes, flip)


@validated
class SeparateViews(ViewPolicy):
    """Independent views for the two networks: `ind`, or `fix` if the teacher's crop is deterministic.

    With `teacher_crops` > 1 the teacher has that many random views, drawn once: `fix/ic_ens` in FunMatch, where the target is
    the mean of the probabilities over all of them. Without stored outputs, epoch e uses view e modulo `teacher_crops`.
    """

    shared = False

    def __init__(
        self,
        teacher_crop: Crop,
        student_crop: Crop,
        teacher_crops: Count = 1,
        seed: Seed | None = None,
        distinct_epochs: Count | None = None,
    ) -> None:
        if teacher_crops > 1 and teacher_crop.draws == 0:
            raise ValueError(
                f"SeparateViews: teacher_crops={teacher_crops} requires a random teacher_crop, got a deterministic one: "
                "use teacher_crops=1, or a random teacher_crop"
            )
        self.teacher_crop, self.student_crop, self.teacher_crops = teacher_crop, student_crop, teacher_crops
        self.seed, self.distinct_epochs = seed, distinct_epochs
        self.teacher_fixed = teacher_crop.draws == 0 or teacher_crops > 1

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        number = draw.epoch % self.teacher_crops if self.teacher_fixed else draw.epoch
        teacher = look(self.teacher_crop, "teacher view", replace(draw, epoch=number), sizes, flip)
        return teacher, look(self.student_crop, "student view", draw, sizes, flip)

    def stored_teacher_view(self, k: int, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> View:
        assert self.teacher_fixed and 0 <= k < self.teacher_crops
        return look(self.teacher_crop, "teacher view", replace(draw, epoch=k), sizes, flip)
