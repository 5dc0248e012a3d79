"""The observer turns decoded examples into what the networks see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.types import Batch, Examples, Pair
from kdx.views.mixing import Mixing
from kdx.views.policies import ViewPolicy
from kdx.views.render import render


class Observer:
    """Examples -> Batch, on the examples' device: views drawn, each distinct (view, resolution) rendered once, then mixed.

    Both networks' images come from the original pixels; neither is a resize of the other's. With `teacher=False` no image
    is rendered for a teacher.
    """

    def __init__(
        self,
        policy: ViewPolicy,
        resolution: Pair,
        num_classes: int,
        *,
        mixing: Mixing | None = None,
        flip: bool = False,
        teacher: bool = True,
    ) -> None:
        if mixing is not None and not policy.shared:
            raise ValueError("mixing needs one view for both networks: use views=same, or mixing=none")
        self.policy, self.resolution, self.num_classes = policy, resolution, num_classes
        self.mixing, self.flip, self.teacher = mixing, flip, teacher

    @property
    def halo(self) -> int:
        """How many examples of the global batch a rank needs in front of its own."""
        return 0 if self.mixing is None else 1

    def __call__(self, examples: Examples) -> Batch:
        """What the networks see of the examples, without the halo. No gradient, no mixed precision."""
        with torch.no_grad(), torch.autocast(examples.images.device.type, enabled=False):
            return self._observe(examples)

    def _observe(self, examples: Examples) -> Batch:
        teacher_view, student_view = self.policy.views(examples.draw, examples.sizes, self.flip)
        sizes = torch.from_numpy(examples.sizes)
        student = render(examples.images, student_view, self.resolution.student, sizes)
        teacher: Tensor | None = None
        if self.teacher:
            one_image = teacher_view is student_view and self.resolution.teacher == self.resolution.student
            teacher = student if one_image else render(examples.images, teacher_view, self.resolution.teacher, sizes)
        label = examples.label
        target = None if label is None else F.one_hot(label, self.num_classes).to(torch.float32)
        if self.mixing is None:
            return Batch(student, teacher, label, target)
        lam = self.mixing.share(examples.draw)
        mixed = self.mixing.mix(student, lam)
        return Batch(
            student_images=mixed,
            teacher_images=mixed if teacher is student else None if teacher is None else self.mixing.mix(teacher, lam),
            label=None if label is None else label[1:],
            target=None if target is None else self.mixing.mix_target(target, lam),
        )
