"""The observer turns decoded examples into what the networks see."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.random import uniform
from kdx.types import Batch, Draw, Examples, Pair, RenderedBatch, View
from kdx.views.augmentations import Augmentation
from kdx.views.mixing import Mixing
from kdx.views.policies import ViewPolicy
from kdx.views.render import Interpolation, render, render_each


class Observer:
    """Examples -> RenderedBatch -> Batch: views are drawn, each distinct (view, resolution) rendered once, then mixed.

    Both networks' images come from the original pixels; neither is a resize of the other's. `student_resolutions` are what
    the student may see in training, one per batch. With `teacher=False` no image is made for a teacher.
    `teacher_sees_students` hands the teacher the student's own pixels: the baseline that shows what CQKD's code did.
    `other_resolutions` are further ones at which the teacher's view is rendered, for the members of an ensemble.
    """

    def __init__(
        self,
        policy: ViewPolicy,
        resolution: Pair,
        num_classes: int,
        *,
        mixing: Mixing | None = None,
        augmentation: Augmentation | None = None,
        flip: bool = False,
        teacher: bool = True,
        student_resolutions: Sequence[int] = (),
        interpolations: tuple[Interpolation, Interpolation] = ("bilinear", "bilinear"),
        teacher_sees_students: bool = False,
        other_resolutions: Sequence[int] = (),
    ) -> None:
        if mixing is not None and not policy.shared:
            raise ValueError("mixing needs one view for both networks: use views=same, or mixing=none")
        self.policy, self.resolution, self.num_classes = policy, resolution, num_classes
        self.mixing, self.augmentation, self.flip, self.teacher = mixing, augmentation, flip, teacher
        self.student_resolutions = tuple(student_resolutions) or (resolution.student,)
        self.interpolations, self.teacher_sees_students = interpolations, teacher_sees_students
        self.other_resolutions = () if teacher_sees_students else tuple(other_resolutions)
        self.further_resolutions: tuple[int, ...] = ()

    @property
    def halo(self) -> int:
        """How many examples of the global batch a rank needs in front of its own."""
        return 0 if self.mixing is None else 1

    def widened(self, further: Sequence[int]) -> Observer:
        """The same, and the student's view at further resolutions too, each from the original pixels."""
        assert self.mixing is None, "students are measured on images that are not mixed"
        wide = copy.copy(self)
        wide.further_resolutions = tuple(further)
        return wide

    def __call__(self, examples: Examples) -> Batch:
        """What the networks see of the examples, without the halo."""
        return self.finish(self.look(examples))

    def look(self, examples: Examples) -> RenderedBatch:
        """The views of the examples as images, on the examples' device, or in the worker that decoded them."""
        draw = examples.draw
        device = torch.device("cpu") if isinstance(examples.images, list) else examples.images.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            teacher_view, student_view = self.policy.views(draw, examples.sizes, self.flip)
            resolution = self._resolution(draw)
            own = self.interpolations
            student = self._image(examples, student_view, resolution, own[1], "student")
            teacher: Tensor | None = None
            others: dict[int, Tensor] = {}
            if self.teacher:
                alike = teacher_view is student_view and self.resolution.teacher == resolution and own[0] == own[1]
                alike = alike or self.teacher_sees_students
                teacher = student if alike else self._image(examples, teacher_view, self.resolution.teacher, own[0], "teacher")
                others = {r: self._image(examples, teacher_view, r, own[0], "teacher") for r in self.other_resolutions}
            further = {r: self._image(examples, student_view, r, own[1], "student") for r in self.further_resolutions}
        views = (teacher_view, student_view)
        return RenderedBatch(draw, student, teacher, examples.label, examples.halo, views, others=others, further=further)

    def _resolution(self, draw: Draw) -> int:
        choice = uniform(draw.seed, "resolution", draw.epoch, np.array([draw.batch]), 1)[0, 0]
        return self.student_resolutions[int(choice * len(self.student_resolutions))]

    def _image(self, examples: Examples, view: View, resolution: int, interpolation: Interpolation, who: str) -> Tensor:
        if isinstance(examples.images, list):
            images = render_each(examples.images, view, resolution, interpolation)
        else:
            images = render(examples.images, view, resolution, torch.from_numpy(examples.sizes), interpolation)
        if self.augmentation is None:
            return images
        stream = "augmentation" if self.policy.shared else f"{who} augmentation"
        draw = examples.draw
        numbers = uniform(draw.seed, stream, draw.epoch, draw.index, self.augmentation.draws)
        return self.augmentation.apply(unit(images), numbers)

    def finish(self, seen: RenderedBatch) -> Batch:
        """The batch, on the device of what was seen: floats in [0,1], mixed, the halo cut off."""
        label, index = seen.label, torch.from_numpy(seen.draw.index).to(seen.student.device, non_blocking=True)
        with torch.no_grad(), torch.autocast(seen.student.device.type, enabled=False):
            student = unit(seen.student)
            teacher = student if seen.teacher is seen.student else None if seen.teacher is None else unit(seen.teacher)
            others = {resolution: unit(images) for resolution, images in seen.others.items()}
            target = None if label is None else F.one_hot(label, self.num_classes).to(torch.float32)
            if self.mixing is None:
                assert seen.halo == 0, "examples with a halo are for an observer that mixes"
                further = {resolution: unit(images) for resolution, images in seen.further.items()}
                return Batch(student, teacher, label, target, index, others, further)
            assert seen.halo == 1, "mixing needs the partner of the first example"
            blend = self.mixing.draw(seen.draw)
            mixed = blend.images(student)
            return Batch(
                student_images=mixed,
                teacher_images=mixed if teacher is student else None if teacher is None else blend.images(teacher),
                label=None if label is None else label[1:],
                target=None if target is None else blend.target(target),
                index=index[1:],
                other_images={resolution: blend.images(images) for resolution, images in others.items()},
            )


def unit(images: Tensor) -> Tensor:
    """Images as float32 in [0,1]."""
    return images.to(torch.float32).mul_(1 / 255) if images.dtype == torch.uint8 else images
