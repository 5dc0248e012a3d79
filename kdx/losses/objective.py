"""The objective: a weighted sum of losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdx.ranges import Count, NonNegative, Number, validated
from kdx.types import LossContext, Outputs, Progress


class Loss(nn.Module, ABC):
    """Outputs -> loss per example [B]; or a scalar [] where it is defined over a batch and not over an example.

    `student_features` and `teacher_features` are paths of modules (see `kdx.networks.features`) whose outputs it needs.
    """

    needs_teacher: bool = False
    needs_temperature: bool = False
    needs_label: bool = False
    needs_one_label: bool = False  # and so no mixed images, which have two
    min_classes: int = 2
    too_few_classes: str = "there is nothing to tell apart"  # why, and what to do, where there are fewer
    student_features: tuple[str, ...] = ()
    teacher_features: tuple[str, ...] = ()

    def connect(self, context: LossContext) -> None:
        """Build what depends on the networks and the data, such as projectors; called once, before the optimizer is made."""

    @abstractmethod
    def forward(self, outputs: Outputs) -> Tensor:
        """The loss, unreduced and without a weight."""


@validated
class Term(nn.Module):
    """A loss and the weight of its mean in the objective.

    The weight rises in equal steps over the first `warmup_epochs` (epoch 0 has 1/warmup_epochs of it), and is 0 from the
    0-based epoch `stop_epoch` on.
    """

    def __init__(
        self, loss: Loss, weight: NonNegative = 1.0, warmup_epochs: Number = 0, stop_epoch: Count | None = None
    ) -> None:
        super().__init__()
        self.loss, self.weight, self.warmup_epochs, self.stop_epoch = loss, weight, warmup_epochs, stop_epoch

    def weight_at(self, progress: Progress) -> float:
        """The weight in this epoch."""
        if self.stop_epoch is not None and progress.epoch >= self.stop_epoch:
            return 0.0
        return self.weight * (min(1.0, (progress.epoch + 1) / self.warmup_epochs) if self.warmup_epochs else 1.0)


class Scored(NamedTuple):
    """The objective's value [], and the mean of each term's loss [], without its weight and with it."""

    loss: Tensor
    parts: dict[str, Tensor]
    weighted: dict[str, Tensor]


class Objective(nn.Module):
    """Σ weight · mean(loss) over named terms."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("there is nothing to minimize: name at least one loss, for example losses=[ce]")
        self.learned = nn.ModuleDict(terms)  # what losses learn is trained and saved
        self.terms = dict(terms)

    def forward(self, outputs: Outputs) -> Scored:
        """The weighted sum and its parts."""
        parts = {name: _mean(term.loss, outputs) for name, term in self.terms.items()}
        weighted = {name: term.weight_at(outputs.progress) * parts[name] for name, term in self.terms.items()}
        return Scored(torch.stack(list(weighted.values())).sum(), parts, weighted)

    def connect(self, context: LossContext) -> None:
        """Let every loss build what depends on the networks and the data."""
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


def _mean(loss: Loss, outputs: Outputs) -> Tensor:
    """The loss's mean; over the members too where each of an ensemble teaches for itself."""
    if outputs.member_logits is None or not loss.needs_teacher:
        return loss(outputs).mean()
    members = [replace(outputs, teacher_logits=logits) for logits in outputs.member_logits]
    return torch.stack([loss(member).mean() for member in members]).mean()
