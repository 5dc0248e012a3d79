"""Memory bank of the embeddings of all training examples, and the sampling of positives and negatives from it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdx.losses.geometry import unit

Sides = tuple[Tensor, Tensor]  # of the student and of the teacher


class Bank(nn.Module):
    """Memory bank of N student and N teacher embeddings: running means, normalized to length 1.

    The rows and log Z (see `normalization`) are saved as extra state, not as buffers: DDP would broadcast buffers from rank 0
    at every step. The rows move to the device of the embeddings. The backward pass needs the rows that the scores were
    computed from, so an update is only written at the next access.
    """

    def __init__(self, size: int, width: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        bound = math.sqrt(3 / width)  # rows are of length 1 on average
        self.rows = tuple(torch.empty(size, width).uniform_(-bound, bound) for _ in range(2))
        self.log_z: Tensor | None = None
        self.pending: tuple[Tensor, ...] = ()  # new student rows, new teacher rows, their indices

    def scores(self, student: Tensor, teacher: Tensor, drawn: Tensor, temperature: float) -> Sides:
        """Return scalar products / temperature of embeddings [B,D] with the other network's rows at `drawn` [B,P].

        All N products are computed and P of them selected: this needs less memory than copying P rows of D for each example.

        Returns: the student's and the teacher's scores, [B,P] each.
        """
        self._settle()
        self.rows = tuple(rows.to(student) for rows in self.rows)
        if self.log_z is None and _world() > 1:
            for rows in self.rows:  # ranks may have drawn different ones
                dist.broadcast(rows, 0)
        sides = zip((student, teacher), reversed(self.rows), strict=True)
        of_student, of_teacher = ((embedding @ rows.T).gather(1, drawn) / temperature for embedding, rows in sides)
        return of_student, of_teacher

    def normalization(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return log Z [2], where Z is N times the mean of exp(score) in the first batch of all ranks; constant afterwards."""
        if self.log_z is None:
            means = torch.stack([side.detach().flatten().logsumexp(0) - math.log(side.numel()) for side in (student, teacher)])
            if _world() > 1:
                total = means.exp()
                dist.all_reduce(total)
                means = (total / _world()).log()
            self.log_z = means + math.log(len(self.rows[0]))
        return self.log_z.to(student.device)

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor, index: Tensor) -> None:
        """Move the rows at `index` [B] towards the embeddings [B,D], gathered from all ranks so that the banks stay equal."""
        self._settle()
        student, teacher, index = gathered(student, teacher, index)
        moved = (torch.lerp(new, rows[index], self.momentum) for new, rows in zip((student, teacher), self.rows, strict=True))
        self.pending = (*map(unit, moved), index)

    @torch.no_grad()
    def _settle(self) -> None:
        if self.pending:
            *moved, index = self.pending
            for rows, new in zip(self.rows, moved, strict=True):
                rows[index] = new
            self.pending = ()

    def get_extra_state(self) -> dict[str, Any]:
        self._settle()
        return {"student": self.rows[0], "teacher": self.rows[1], "log_z": self.log_z}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        rows = (state["student"], state["teacher"])
        if rows[0].shape != self.rows[0].shape:
            raise ValueError(
                f"The memory bank in the checkpoint has shape {tuple(rows[0].shape)} (examples, width), expected "
                f"{tuple(self.rows[0].shape)}: resume with the data and the loss width of the original run"
            )
        self.rows = tuple(new.to(old, copy=True) for new, old in zip(rows, self.rows, strict=True))
        self.log_z, self.pending = state["log_z"], ()


class Draws:
    """Samples a positive and negatives for the examples of a training set with `labels` [N].

    Raises ValueError if all examples have the same class.
    """

    def __init__(self, labels: Tensor) -> None:
        _, self.labels = labels.unique(return_inverse=True)
        self.order = self.labels.argsort(stable=True)
        self.counts = self.labels.bincount()
        if len(self.counts) < 2:
            raise ValueError("Contrastive losses need at least two classes, found 1: use losses=[kd]")
        self.starts = self.counts.cumsum(0) - self.counts

    def __call__(self, index: Tensor, negatives: int, relax: bool) -> Tensor:
        """Return indices [B,1+negatives]: the positive first, then the negatives.

        The positive is the example itself, or with `relax` a random example of its class. Negatives are sampled uniformly with
        replacement from the other classes. The authors sample without replacement if enough examples exist; the expected
        loss is the same.
        """
        self.labels, self.order, self.counts, self.starts = (
            tensor.to(index.device) for tensor in (self.labels, self.order, self.counts, self.starts)
        )
        label = self.labels[index]
        count, start = self.counts[label][:, None], self.starts[label][:, None]
        place = _below(len(self.order) - count, negatives)
        others = self.order[place + count * (place >= start)]
        positive = self.order[start + _below(count, 1)] if relax else index[:, None]
        return torch.cat([positive, others], 1)


def _below(bound: Tensor, count: int) -> Tensor:
    """Uniform integers [B,count] in [0, bound) for a bound [B,1]; the modulo bias is below bound / 2^62."""
    return torch.randint(1 << 62, (len(bound), count), device=bound.device) % bound


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of all ranks, in rank order. The tensors have equal length, which may differ between ranks."""
    if _world() == 1:
        return tensors
    length = torch.tensor([len(tensors[0])], device=tensors[0].device)
    lengths = [torch.empty_like(length) for _ in range(_world())]
    dist.all_gather(lengths, length)
    counts = [int(count) for count in lengths]
    return tuple(_gather(tensor, counts) for tensor in tensors)


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    all_ranks = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(all_ranks, padded)
    return torch.cat([rows[:count] for rows, count in zip(all_ranks, counts, strict=True)])
