"""The objective: a weighted sum of losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdx.scalars import NonNegative, validated
from kdx.types import Outputs


class Loss(nn.Module, ABC):
    """Outputs -> loss per example [B]; or a scalar [] where it is defined over a batch and not over an example."""

    needs_teacher: bool = False
    needs_label: bool = False

    @abstractmethod
    def forward(self, outputs: Outputs) -> Tensor:
        """The loss, unreduced and without a weight."""


@validated
class Term(nn.Module):
    """A loss and the weight of its mean in the objective."""

    def __init__(self, loss: Loss, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight


class Scored(NamedTuple):
    """The objective's value [] and the mean of each term's loss [], without its weight."""

    loss: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """Σ weight · mean(loss) over named terms."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("there is nothing to minimise: name at least one loss, for example losses=[ce]")
        self.learned = nn.ModuleDict(terms)  # what losses learn is trained and saved
        self.terms = dict(terms)

    def forward(self, outputs: Outputs) -> Scored:
        """The weighted sum and its parts."""
        parts = {name: term.loss(outputs).mean() for name, term in self.terms.items()}
        weighted = [term.weight * parts[name] for name, term in self.terms.items()]
        return Scored(torch.stack(weighted).sum(), parts)

    @property
    def needs_teacher(self) -> list[str]:
        """Names of the terms that compare with a teacher."""
        return [name for name, term in self.terms.items() if term.loss.needs_teacher]

    @property
    def needs_label(self) -> list[str]:
        """Names of the terms that need labels."""
        return [name for name, term in self.terms.items() if term.loss.needs_label]
