"""The examples with the largest KL divergence between teacher and student."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from kdx.metrics import functional
from kdx.metrics.base import Prediction
from kdx.types import Outputs

COLUMNS = ("kl", "index", "label", "teacher", "teacher_confidence", "student", "student_confidence")


def furthest(rows: Tensor) -> Tensor:
    """Return the N rows with the largest first column of stacked tables [...,N,C], the largest first; ties by the second."""
    flat = rows.flatten(0, -2)
    flat = flat[flat[:, 1].argsort(stable=True)]
    return flat[flat[:, 0].argsort(descending=True, stable=True)][: rows.shape[-2]]


class Disagreement(Metric):
    """Collects the `most` examples of a split with the largest KL(teacher || student); exact on any number of ranks.

    The state is one table of `most` rows; indices are exact in float64.
    """

    full_state_update = False
    higher_is_better = None
    rows: Tensor

    def __init__(self, most: int = 16) -> None:
        super().__init__()
        self.most = most
        empty = torch.full((most, len(COLUMNS)), -torch.inf, dtype=torch.float64)
        self.add_state("rows", empty, dist_reduce_fx=furthest)

    def update(self, outputs: Outputs) -> None:
        """Add a batch with teacher logits and the index of its examples; a missing label is stored as -1."""
        assert outputs.teacher_logits is not None and outputs.index is not None
        student, teacher = Prediction.of(outputs.student_logits), Prediction.of(outputs.teacher_logits)
        label = torch.full_like(outputs.index, -1) if outputs.label is None else outputs.label
        predictions = [value for each in (teacher, student) for value in (each.likeliest[1], each.likeliest[0].exp())]
        kl = functional.kl(student.log_probs, teacher.log_probs, teacher.probs)
        columns = [kl, outputs.index, label, *predictions]
        new = torch.stack([column.to(torch.float64) for column in columns], -1)
        self.rows = furthest(torch.cat([self.rows, new]))[: self.most]

    def compute(self) -> list[dict[str, Any]]:
        """Return the rows, the largest KL first: kl in nats, index in the split, label, predictions and their confidence."""
        whole = {"index", "label", "teacher", "student"}
        return [
            {name: int(value) if name in whole else value for name, value in zip(COLUMNS, row, strict=True)}
            for row in self.rows.tolist()
            if row[1] >= 0
        ]
