"""Ensemble of several teachers."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from kdx.teachers.teacher import Others, Teacher

Combine = Literal["logits", "probs", "losses"]


def combine(each: Tensor, how: Combine) -> Tensor:
    """Return the ensemble's logits [B,K] from the members' logits [M,B,K].

    "logits" is their mean, as in FunMatch (arXiv:2106.05237, section 3.6). "probs" is the logarithm of the mean
    probability. "losses" gives the same logits as "probs", for metrics only: each member has its own loss in training.
    """
    return each.mean(0) if how == "logits" else each.log_softmax(-1).logsumexp(0) - math.log(len(each))


def disagreement(each: Tensor) -> Tensor:
    """Return the disagreement [B] of members' logits [M,B,K]: the share of pairs of members with different predictions."""
    choice = each.argmax(-1)
    pairs = list(itertools.combinations(range(len(each)), 2))
    return torch.stack([(choice[i] != choice[j]).float() for i, j in pairs]).mean(0)


class Ensemble(Teacher):
    """A teacher that combines members of any kind, each with its own normalization, resolution and calibration.

    Raises ValueError if there are fewer than two members or their numbers of classes differ.
    """

    def __init__(self, members: Mapping[str, Teacher], how: Combine = "logits") -> None:
        classes = {name: member.num_classes for name, member in members.items()}
        if len(members) < 2:
            raise ValueError(f"An ensemble needs at least two members, got {len(members)}: use teacher=online for one")
        if len(set(classes.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in classes.items())
            raise ValueError(
                f"The members of the ensemble have different numbers of classes ({counts}): use members with the same classes"
            )
        self.parts, self.how = dict(members), how
        self.num_classes = next(iter(classes.values()))
        self.separate = how == "losses"

    @property
    def members(self) -> Mapping[str, Teacher]:
        return self.parts

    def logits(self, images: Tensor) -> Tensor:
        raise NotImplementedError("an ensemble has no logits of its own: use raw() or each(), and combine()")

    def raw(self, images: Tensor, others: Others | None = None) -> Tensor:
        return torch.cat([member.raw(images, others) for member in self.parts.values()])

    def combine(self, each: Tensor) -> Tensor:
        return combine(each, self.how)

    def runs_at(self, side: int) -> bool:
        return all(member.runs_at(side) for member in self.parts.values())

    def to(self, device: torch.device) -> None:
        for member in self.parts.values():
            member.to(device)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("".join(member.fingerprint for member in self.parts.values()).encode()).hexdigest()

    @property
    def num_parameters(self) -> int:
        return sum(member.num_parameters for member in self.parts.values())
