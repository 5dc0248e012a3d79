"""The observer turns decoded examples into the input of the networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.random import uniform
from kdx.types import Batch, Draw, Examples, Pair, RenderedBatch, View
from kdx.views.augmentations import Augmentation
from kdx.views.mixing import Mixing
from kdx.views.policies import ViewPolicy, checked_view
from kdx.views.render import DEFAULT, Interpolation, Resizing, render, render_each

AT_ONCE = 1 << 17  # pixels that are rendered in one call, if they are several batches: as floats, they stay in a cache
MOST_AT_ONCE = 8  # batches


class Observer:
    """Examples -> RenderedBatch -> Batch: views are drawn, each distinct (view, resolution) is rendered once, then mixed.

    Both networks' images are rendered from the original pixels; neither is a resize of the other's, unless `resizing` says so.

    Args:
        policy: the rule that draws the view of each network.
        resolution: side of the images in px, for each network.
        num_classes: K of mixed targets.
        mixing: mixup or cutmix; needs a policy with one view for both networks.
        augmentation: changes of colors and the like, after rendering.
        flip: mirror half of the images, if their crop is random.
        teacher: whether images are rendered for a teacher.
        student_resolutions: one is drawn for each training batch; by default `resolution.student` alone.
        resizing: filters of the teacher's and of the student's images.
        teacher_sees_students: the teacher gets the student's pixels: the baseline that does what CQKD's code did.
        other_resolutions: further ones of the teacher's view, for the members of an ensemble.
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
        resizing: Resizing = DEFAULT,
        teacher_sees_students: bool = False,
        other_resolutions: Sequence[int] = (),
    ) -> None:
        if mixing is not None and not policy.shared:
            raise ValueError("Mixing needs one view for both networks: use views=same, or mixing=none")
        self.policy, self.resolution, self.num_classes = policy, resolution, num_classes
        self.mixing, self.augmentation, self.flip, self.teacher = mixing, augmentation, flip, teacher
        self.student_resolutions = tuple(student_resolutions) or (resolution.student,)
        self.resizing, self.teacher_sees_students = resizing, teacher_sees_students
        self.other_resolutions = () if teacher_sees_students else tuple(other_resolutions)
        self.further_resolutions: tuple[int, ...] = ()
        self.answered: Callable[[int], bool] | None = None  # whether the teacher's logits of an epoch are known without images

    @property
    def halo(self) -> int:
        """Number of examples of the global batch that a rank needs in front of its own."""
        return 0 if self.mixing is None else 1

    @property
    def depends_on_batch(self) -> bool:
        """Whether the teacher's images depend on those before them in their batch, or on its number."""
        return self.mixing is not None or (self.teacher_sees_students and len(self.student_resolutions) > 1)

    def batches_at_once(self, channels: int) -> int:
        """Return how many batches may be rendered in one call, by the number of `channels` of all images of a batch.

        For small images, the calls cost more than the pixels. A resolution that is drawn for each batch needs its own call.
        """
        pixels = sum(side**2 for side in (*self.resolution, *self.other_resolutions, *self.further_resolutions))
        return 1 if len(self.student_resolutions) > 1 else min(max(AT_ONCE // (channels * pixels), 1), MOST_AT_ONCE)

    def order(self, seed: int, epoch: int) -> tuple[int, int]:
        """Return the seed and the epoch of the order of the images: those of the views, if these depend on the order."""
        return self.policy.drawn_from(seed, epoch) if self.depends_on_batch else (seed, epoch)

    def widened(self, further: Sequence[int]) -> Observer:
        """Return an observer that also renders the student's view at `further` resolutions in px."""
        assert self.mixing is None, "students are measured on images that are not mixed"
        wide = copy.copy(self)
        wide.further_resolutions = tuple(further)
        return wide

    def __call__(self, examples: Examples) -> Batch:
        """Return the input of the networks, without the halo."""
        return self.finish(self.look(examples))

    def look(self, examples: Examples) -> RenderedBatch:
        """Draw views and render them, on the examples' device, or in the worker that decoded them.

        Raises:
            ShapeError: the policy or a crop returned boxes that are not [B,4], or flips that are not [B].
        """
        seed, epoch = self.policy.drawn_from(examples.draw.seed, examples.draw.epoch)
        draw = replace(examples.draw, seed=seed, epoch=epoch)
        examples = replace(examples, draw=draw)
        device = torch.device("cpu") if isinstance(examples.images, list) else examples.images.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            teacher_view, student_view = self.policy.views(draw, examples.sizes, self.flip)
            for view in (teacher_view, student_view):
                checked_view(view, f"view policy {type(self.policy).__name__}", len(draw.index))
            resolution = self._resolution(draw)
            teacher_filter, student_filter, _ = self.resizing
            student = self._image(examples, student_view, resolution, student_filter, "student")
            teacher: Tensor | None = None
            others: dict[int, Tensor] = {}
            if self.teacher and (self.answered is None or not self.answered(draw.epoch)):
                side = self.resolution.teacher
                same = teacher_view is student_view and side == resolution and teacher_filter == student_filter
                same = same or self.teacher_sees_students
                teacher = student if same else self._image(examples, teacher_view, side, teacher_filter, "teacher")
                others = {r: self._image(examples, teacher_view, r, teacher_filter, "teacher") for r in self.other_resolutions}
            further = {r: self._image(examples, student_view, r, student_filter, "student") for r in self.further_resolutions}
        views = (teacher_view, student_view)
        return RenderedBatch(draw, student, teacher, examples.label, examples.halo, views, others=others, further=further)

    def _resolution(self, draw: Draw) -> int:
        choice = uniform(draw.seed, "resolution", draw.epoch, np.array([draw.batch]), 1)[0, 0]
        return self.student_resolutions[int(choice * len(self.student_resolutions))]

    def _image(self, examples: Examples, view: View, resolution: int, interpolation: Interpolation, role: str) -> Tensor:
        if role == "student" and self.resizing.student_from_teacher:
            first, side = self.resizing.teacher, self.resolution.teacher
            images = resized(self._rendered(examples, view, side, first), resolution, interpolation)
        else:
            images = self._rendered(examples, view, resolution, interpolation)
        if self.augmentation is None:
            return images
        stream = "augmentation" if self.policy.shared else f"{role} augmentation"
        draw = examples.draw
        numbers = uniform(draw.seed, stream, draw.epoch, draw.index, self.augmentation.draws)
        return self.augmentation.apply(unit(images), numbers)

    @staticmethod
    def _rendered(examples: Examples, view: View, resolution: int, interpolation: Interpolation) -> Tensor:
        if isinstance(examples.images, list):
            return render_each(examples.images, view, resolution, interpolation)
        return render(examples.images, view, resolution, torch.from_numpy(examples.sizes), interpolation)

    def finish(self, rendered: RenderedBatch) -> Batch:
        """Return the batch on the device of the images: floats in [0,1], mixed, without the halo."""
        label, index = rendered.label, torch.from_numpy(rendered.draw.index).to(rendered.student.device, non_blocking=True)
        with torch.no_grad(), torch.autocast(rendered.student.device.type, enabled=False):
            student = unit(rendered.student)
            teacher = (
                student
                if rendered.teacher is rendered.student
                else None
                if rendered.teacher is None
                else unit(rendered.teacher)
            )
            others = {resolution: unit(images) for resolution, images in rendered.others.items()}
            if self.mixing is None:
                assert rendered.halo == 0, "examples with a halo are for an observer that mixes"
                further = {resolution: unit(images) for resolution, images in rendered.further.items()}
                return Batch(student, teacher, label, None, index, others, further, rendered.draw.epoch)
            assert rendered.halo == 1, "mixing needs the partner of the first example"
            blend = self.mixing.draw(rendered.draw)

            def unmixed_if_alone(mixed: Tensor, own: Tensor) -> Tensor:
                if rendered.alone is None:
                    return mixed
                rows = torch.from_numpy(rendered.alone).to(mixed.device).view(-1, *[1] * (mixed.ndim - 1))
                return torch.where(rows, own[1:], mixed)

            def blended(images: Tensor) -> Tensor:
                return unmixed_if_alone(blend.images(images), images)

            target = None if label is None else F.one_hot(label, self.num_classes).to(torch.float32)
            mixed = blended(student)
            return Batch(
                student_images=mixed,
                teacher_images=mixed if teacher is student else None if teacher is None else blended(teacher),
                label=None if label is None else label[1:],
                mixed_target=None if target is None else unmixed_if_alone(blend.target(target), target),
                index=index[1:],
                other_images={resolution: blended(images) for resolution, images in others.items()},
                epoch=rendered.draw.epoch,
            )


def resized(images: Tensor, resolution: int, interpolation: Interpolation) -> Tensor:
    """Return images [B,C,R,R], uint8 or floats in [0,1], resized again, in the same type."""
    whole = View(np.tile([0.0, 0.0, 1.0, 1.0], (len(images), 1)), np.zeros(len(images), np.bool_))
    if images.dtype == torch.uint8:
        return render(images, whole, resolution, interpolation=interpolation).mul_(255).round_().to(torch.uint8)
    return render(images * 255, whole, resolution, interpolation=interpolation)


def unit(images: Tensor) -> Tensor:
    """Images as float32 in [0,1]."""
    return images.to(torch.float32).mul_(1 / 255) if images.dtype == torch.uint8 else images
