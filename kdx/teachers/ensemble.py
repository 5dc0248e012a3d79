"""Several teachers as one."""

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
    """One answer [B,K] of the members' logits [M,B,K].

    "logits" is their mean, as in FunMatch (arXiv:2106.05237, section 3.6). "probs" is the logarithm of the mean
    probability; so is "losses", where each member teaches by itself and this one answer is only what is measured.
    """
    return each.mean(0) if how == "logits" else each.log_softmax(-1).logsumexp(0) - math.log(len(each))


def disagreement(each: Tensor) -> Tensor:
    """How often two of the members [M,B,K] would decide differently, [B]: the share of their pairs that do."""
    choice = each.argmax(-1)
    pairs = list(itertools.combinations(range(len(each)), 2))
    return torch.stack([(choice[i] != choice[j]).float() for i, j in pairs]).mean(0)


class Ensemble(Teacher):
    """Members of any kind, each with its own normalization, resolution and calibration; `how` makes one teacher of them.

    ValueError unless all tell the same number of classes apart.
    """

    def __init__(self, members: Mapping[str, Teacher], how: Combine = "logits") -> None:
        classes = {name: member.num_classes for name, member in members.items()}
        if len(members) < 2:
            raise ValueError(f"an ensemble has at least two members, got {len(members)}: use teacher=online for one")
        if len(set(classes.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in classes.items())
            raise ValueError(
                f"the members of the ensemble tell different numbers of classes apart ({said}): choose ones that agree"
            )
        self.parts, self.how = dict(members), how
        self.num_classes = next(iter(classes.values()))
        self.separate = how == "losses"

    @property
    def members(self) -> Mapping[str, Teacher]:
        return self.parts

    def logits(self, images: Tensor) -> Tensor:
        raise NotImplementedError("an ensemble answers through its members")

    def each(self, images: Tensor, others: Others | None = None) -> Tensor:
        return torch.cat([member.each(images, others) for member in self.parts.values()])

    def combine(self, each: Tensor) -> Tensor:
        return combine(each, self.how)

    def to(self, device: torch.device) -> None:
        for member in self.parts.values():
            member.to(device)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("".join(member.fingerprint for member in self.parts.values()).encode()).hexdigest()

    @property
    def num_parameters(self) -> int:
        return sum(member.num_parameters for member in self.parts.values())
