"""The student's view at further resolutions, for the final pass of a student that was trained at several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdx.types import Batch, Examples, Seen
from kdx.views.observer import Observer, unit


@dataclass
class SeenFurther(Seen):
    """Also as the student sees them at `further` resolutions, by side in px."""

    further: Mapping[int, Tensor] = field(default_factory=dict)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Seen:
        further = {side: change(images) for side, images in self.further.items()}
        return replace(super()._each(change), further=further)  # type: ignore[call-arg]  # replace keeps the class


@dataclass
class BatchFurther(Batch):
    """Also the student's images at `further` resolutions, by side in px."""

    further: Mapping[int, Tensor] = field(default_factory=dict)


class FurtherObserver(Observer):
    """What `own` observes, and the student's view at further resolutions beside its own, each from the original pixels."""

    def __init__(self, own: Observer, further: Sequence[int]) -> None:
        super().__init__(
            own.policy,
            own.resolution,
            own.num_classes,
            teacher=own.teacher,
            interpolations=own.interpolations,
            other_resolutions=own.other_resolutions,
        )
        self.further = tuple(further)

    def look(self, examples: Examples) -> Seen:
        seen = super().look(examples)
        assert seen.views is not None
        view, filter_ = seen.views[1], self.interpolations[1]
        device = seen.student.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            further = {side: self._image(examples, view, side, filter_, "student") for side in self.further}
        return SeenFurther(**vars(seen), further=further)

    def finish(self, seen: Seen) -> Batch:
        assert isinstance(seen, SeenFurther)
        further = {side: unit(images) for side, images in seen.further.items()}
        return BatchFurther(**vars(super().finish(seen)), further=further)
