"""Stored teacher outputs: a teacher with fixed views runs once over train, and its logits are kept in a table."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdx.teachers.teacher import Teacher
from kdx.types import Batch, Draw, View
from kdx.views.policies import ViewPolicy

PIECE = 4096  # rows


class StoredCrop(ViewPolicy):
    """View policy that gives both networks the teacher's stored view number `crop` of another policy."""

    shared = True
    teacher_fixed = True

    def __init__(self, policy: ViewPolicy, crop: int) -> None:
        self.policy, self.crop = policy, crop
        self.seed = policy.seed

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        view = self.policy.stored_teacher_view(self.crop, draw, sizes, flip)
        return view, view

    def stored_teacher_view(self, k: int, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> View:
        return self.policy.stored_teacher_view(self.crop, draw, sizes, flip)


@torch.no_grad()
def table(teacher: Teacher, passes: Iterable[Iterable[Batch]], size: int, device: torch.device) -> Tensor:
    """Return the teacher's logits [N,K] for all examples of train, one row per index, on all ranks.

    There is one pass per stored crop. With one crop the logits are stored, with several the logarithm of the mean
    probability. Rows of skipped examples stay 0 and are never read.
    """
    stored: Tensor | None = None
    count = 0
    for batches in passes:
        logits = torch.zeros(size, teacher.num_classes, device=device)
        for batch in batches:
            assert batch.teacher_images is not None and batch.index is not None
            logits[batch.index] = teacher(batch.teacher_images, batch.other_images)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(logits)
        count += 1
        if stored is None:
            stored = logits
            continue
        if count == 2:
            _to_log_probs(stored)
        torch.logaddexp(stored, _to_log_probs(logits), out=stored)  # log of the sum of probabilities
    assert stored is not None, "no stored crop"
    return stored if count == 1 else stored.sub_(math.log(count))


def _to_log_probs(logits: Tensor) -> Tensor:
    """Replace logits [N,K] by their log-softmax in place, in pieces: a second table would need as much memory again."""
    for part in logits.split(PIECE):
        part.copy_(part.log_softmax(-1))
    return logits
