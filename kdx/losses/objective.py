"""The objective: a weighted sum of named losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdx.ranges import Count, NonNegative, Number, ShapeError, validated
from kdx.types import LossContext, Outputs, Progress


class Loss(nn.Module, ABC):
    """Outputs -> loss per example [B]; or a scalar [] if it is defined over the batch only.

    `student_features` and `teacher_features` are paths of the modules (see `kdx.networks.features`) whose outputs it needs.
    """

    needs_teacher: bool = False
    needs_temperature: bool = False
    needs_label: bool = False
    needs_one_label: bool = False  # one class per image: refuses mixed images, which have two
    min_classes: int = 2
    too_few_classes: str = "Need at least 2 classes, found 1: add images of another class to the data"  # below `min_classes`
    student_features: tuple[str, ...] = ()
    teacher_features: tuple[str, ...] = ()

    def connect(self, context: LossContext) -> None:
        """Build what depends on the networks and the data, such as projectors; called once, before the optimizer is made."""

    @abstractmethod
    def forward(self, outputs: Outputs) -> Tensor:
        """Return the loss [B] or [], unreduced and unweighted."""


@validated
class Term(nn.Module):
    """A loss and its weight in the objective.

    The weight rises in equal steps over the first `warmup_epochs` (in epoch 0 it is weight/warmup_epochs) and is 0 from the
    0-based epoch `stop_epoch` on.
    """

    def __init__(
        self, loss: Loss, weight: NonNegative = 1.0, warmup_epochs: Number = 0, stop_epoch: Count | None = None
    ) -> None:
        super().__init__()
        self.loss, self.weight, self.warmup_epochs, self.stop_epoch = loss, weight, warmup_epochs, stop_epoch

    def weight_at(self, progress: Progress) -> float:
        """Return the weight in this epoch."""
        if self.stop_epoch is not None and progress.epoch >= self.stop_epoch:
            return 0.0
        return self.weight * (min(1.0, (progress.epoch + 1) / self.warmup_epochs) if self.warmup_epochs else 1.0)


class Scored(NamedTuple):
    """The weighted sum [], and the mean [] of each loss by name: unweighted (`parts`) and `weighted`."""

    loss: Tensor
    parts: dict[str, Tensor]
    weighted: dict[str, Tensor]


class Objective(nn.Module):
    """Σ weight · mean(loss) over named terms."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("No losses to minimize: name at least one, e.g. losses=[ce]")
        self.learned = nn.ModuleDict(terms)  # what losses learn is trained and saved
        self.terms = dict(terms)

    def forward(self, outputs: Outputs) -> Scored:
        """Return the weighted sum and its parts. ShapeError names a loss that returned neither [] nor [B]."""
        parts = {name: _mean(name, term.loss, outputs) for name, term in self.terms.items()}
        weighted = {name: term.weight_at(outputs.progress) * parts[name] for name, term in self.terms.items()}
        return Scored(torch.stack(list(weighted.values())).sum(), parts, weighted)

    def connect(self, context: LossContext) -> None:
        """Build the parts of every loss that depend on the networks and the data."""
        for term in self.terms.values():
            term.loss.connect(context)

    @property
    def student_features(self) -> list[str]:
        """Paths of the student's modules whose outputs some loss needs."""
        return sorted({path for term in self.terms.values() for path in term.loss.student_features})

    @property
    def teacher_features(self) -> list[str]:
        """Paths of the teacher's modules whose outputs some loss needs."""
        return sorted({path for term in self.terms.values() for path in term.loss.teacher_features})

    @property
    def needs_one_label(self) -> list[str]:
        """Names of the terms that need one class per image."""
        return [name for name, term in self.terms.items() if term.loss.needs_one_label]

    @property
    def needs_temperature(self) -> list[str]:
        """Names of the terms that need a distillation temperature."""
        return [name for name, term in self.terms.items() if term.loss.needs_temperature]

    @property
    def needs_teacher(self) -> list[str]:
        """Names of the terms that compare with a teacher."""
        return [name for name, term in self.terms.items() if term.loss.needs_teacher]

    @property
    def needs_label(self) -> list[str]:
        """Names of the terms that need labels."""
        return [name for name, term in self.terms.items() if term.loss.needs_label]


def _mean(name: str, loss: Loss, outputs: Outputs) -> Tensor:
    """Mean [] over the examples; also over the members of an ensemble if each has a loss of its own."""
    if outputs.member_logits is None or not loss.needs_teacher:
        return _checked(name, loss(outputs), outputs).mean()
    members = [replace(outputs, teacher_logits=logits) for logits in outputs.member_logits]
    return torch.stack([_checked(name, loss(member), member).mean() for member in members]).mean()


def _checked(name: str, value: Tensor, outputs: Outputs) -> Tensor:
    """Return `value` if it is [] or [B]; else raise ShapeError."""
    batch_size = len(outputs.student_logits)
    if isinstance(value, Tensor) and value.shape in (torch.Size(()), torch.Size((batch_size,))):
        return value
    returned, remedy = f"a {type(value).__name__}", "return a tensor"
    if isinstance(value, Tensor):
        returned, remedy = f"shape {list(value.shape)}", "average over everything but the examples, e.g. .flatten(1).mean(-1)"
        if value.numel() in (1, batch_size):
            remedy = "drop the dimensions of size 1, e.g. .squeeze()"
        elif value.ndim == 2:
            remedy = "average over classes, e.g. .mean(-1)"
        elif value.ndim == 1:
            remedy = "keep the order and number of examples, or return .mean()"
    raise ShapeError(f"losses.{name} returned {returned}; expected [] or [{batch_size}] (one value per example): {remedy}")
