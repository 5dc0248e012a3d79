"""Contrastive representation distillation (CRD, arXiv:1910.10699)."""

from __future__ import annotations

import math
from abc import ABC
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.losses.bank import Bank, Draws
from kdx.losses.features import FeatureLoss, Paths
from kdx.losses.geometry import unit
from kdx.losses.projectors import flat
from kdx.ranges import Count, Fraction, Positive, validated
from kdx.types import LossContext, Outputs


def nce(scores: Tensor, log_noise: float) -> Tensor:
    """Noise-contrastive loss -log D(positive) - Σ log(1 - D(negative)) in nats, [B].

    D = e^score / (e^score + K/N) is the probability that a score belongs to a positive pair and not to one of K negatives
    among N examples.

    Args:
        scores: normalized scores [B,1+K], the positive first.
        log_noise: log(K/N).

    Reference: arXiv:1910.10699, eq. 18.
    """
    return F.softplus(log_noise - scores[:, 0]) + F.softplus(scores[:, 1:] - log_noise).sum(-1)


def info_nce(scores: Tensor, excluded: Tensor) -> Tensor:
    """InfoNCE loss in nats, [B]: the sum of both directions, student to teacher and teacher to student.

    Args:
        scores: similarities [B,B] of the student's (rows) with the teacher's embeddings (columns).
        excluded: pairs [B,B] that are not used as negatives.
    """
    scores = scores.masked_fill(excluded, -math.inf)
    return -(scores.log_softmax(1).diagonal() + scores.log_softmax(0).diagonal())


class _Contrast(FeatureLoss, ABC):
    """Learned linear embeddings of both networks' features, [B,width] of length 1, compared at `temperature`."""

    needs_one_label = True  # a mixed image has neither one index nor one class

    def __init__(self, features: Paths, width: int, temperature: float) -> None:
        super().__init__(features)
        self.require_one_pair()
        self.width, self.temperature = width, temperature

    def connect(self, context: LossContext) -> None:
        ((student, teacher),) = self.shapes(context)
        self.embed_student = nn.Linear(student.numel(), self.width)
        self.embed_teacher = nn.Linear(teacher.numel(), self.width)

    def embeddings(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's embeddings, [B,width] of length 1."""
        ((student, teacher),) = self.pairs(outputs)
        return unit(self.embed_student(flat(student))), unit(self.embed_teacher(flat(teacher)))


@validated
class CRD(_Contrast):
    """CRD with a memory bank of all training examples, per example [B].

    The positive is the other network's stored embedding of the same example (`mode` exact) or of a random example of its class
    (relax). Negatives are the stored embeddings of `negatives` examples of other classes, or of all other examples without
    labels. The bank holds running means with `momentum`.
    """

    def __init__(
        self,
        features: Paths,
        width: Count = 128,
        negatives: Count = 16384,
        temperature: Positive = 0.07,
        momentum: Fraction = 0.5,
        mode: Literal["exact", "relax"] = "exact",
    ) -> None:
        super().__init__(features, width, temperature)
        self.negatives, self.momentum, self.mode = negatives, momentum, mode

    def connect(self, context: LossContext) -> None:
        super().connect(context)
        labels = context.train_labels
        self.draws = Draws(torch.arange(context.train_size) if labels is None else labels)
        self.bank = Bank(context.train_size, self.width, self.momentum)
        self.log_noise = math.log(self.negatives / context.train_size)

    def compare(self, outputs: Outputs) -> Tensor:
        if outputs.index is None:
            raise ValueError("CRD needs the dataset index of each example, missing in this batch: use losses=[crd_batch]")
        student, teacher = self.embeddings(outputs)
        drawn = self.draws(outputs.index, self.negatives, self.mode == "relax")
        scores = self.bank.scores(student, teacher, drawn, self.temperature)
        log_z = self.bank.normalization(*scores)
        loss = torch.stack([nce(side - z, self.log_noise) for side, z in zip(scores, log_z, strict=True)]).sum(0)
        self.bank.update(student, teacher, outputs.index)
        return loss


@validated
class CRDBatch(_Contrast):
    """CRD within the batch of one device, without a memory bank, per example [B] (InfoNCE in both directions).

    Negatives are the batch's examples of other classes, or all other examples without labels.
    """

    def __init__(self, features: Paths, width: Count = 128, temperature: Positive = 0.07) -> None:
        super().__init__(features, width, temperature)

    def compare(self, outputs: Outputs) -> Tensor:
        student, teacher = self.embeddings(outputs)
        positive = torch.eye(len(student), dtype=torch.bool, device=student.device)
        excluded = torch.zeros_like(positive)
        if outputs.label is not None:
            excluded = (outputs.label[:, None] == outputs.label) & ~positive
        return info_nce(student @ teacher.T / self.temperature, excluded)
