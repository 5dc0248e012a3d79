"""A memory of every training example's embeddings, and who is drawn from it, for contrastive losses."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdx.losses.geometry import unit

Sides = tuple[Tensor, Tensor]  # of the student and of the teacher


class Bank(nn.Module):
    """Embeddings of N examples, the student's and the teacher's: running means of length 1.

    They and log Z (see `normalization`) are extra state: saved in a checkpoint, and no buffers, which DDP would send from
    rank 0 to all others at every step. They follow the embeddings to their device. The backward pass still needs the rows that
    the scores were made with, so an update is written when next something is asked of the bank.
    """

    def __init__(self, size: int, width: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        bound = math.sqrt(3 / width)  # rows are of length 1 on average
        self.rows = tuple(torch.empty(size, width).uniform_(-bound, bound) for _ in range(2))
        self.log_z: Tensor | None = None
        self.pending: tuple[Tensor, ...] = ()  # new rows of both, and where they go

    def scores(self, student: Tensor, teacher: Tensor, drawn: Tensor, temperature: float) -> Sides:
        """Scalar products / temperature, [B,P] each, of embeddings [B,D] with the other network's rows at `drawn` [B,P].

        All N products are made and P of them taken: less memory than copying P rows of D for each example.
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
        """Logarithms [2] of N times the mean of exp(score) over the first batch of all ranks; from then on constant."""
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
        """Move the rows at `index` [B] of all ranks towards the embeddings [B,D], so that all ranks hold the same bank."""
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
                f"the checkpoint has a bank of {tuple(rows[0].shape)} (examples, width) and this run one of "
                f"{tuple(self.rows[0].shape)}: go on with the data and the width that it was trained with"
            )
        self.rows = tuple(new.to(old, copy=True) for new, old in zip(rows, self.rows, strict=True))
        self.log_z, self.pending = state["log_z"], ()


class Draws:
    """Draws a positive and negatives for examples of a training set with `labels` [N]; ValueError if all are of one class."""

    def __init__(self, labels: Tensor) -> None:
        _, self.labels = labels.unique(return_inverse=True)
        self.order = self.labels.argsort(stable=True)
        self.counts = self.labels.bincount()
        if len(self.counts) < 2:
            raise ValueError("contrastive losses need training examples of at least two classes")
        self.starts = self.counts.cumsum(0) - self.counts

    def __call__(self, index: Tensor, negatives: int, relax: bool) -> Tensor:
        """Indices [B,1+negatives]: first the example itself, or with `relax` any of its class.

        The rest are independent uniform draws from all examples of other classes. The authors draw them without replacement
        where there are enough; the expected loss is the same.
        """
        self.labels, self.order, self.counts, self.starts = (
            tensor.to(index.device) for tensor in (self.labels, self.order, self.counts, self.starts)
        )
        label = self.labels[index]
        count, start = self.counts[label][:, None], self.starts[label][:, None]
        place = _below(len(self.order) - count, negatives)
        others = self.order[place + count * (place >= start)]
        own = self.order[start + _below(count, 1)] if relax else index[:, None]
        return torch.cat([own, others], 1)


def _below(bound: Tensor, count: int) -> Tensor:
    """Uniform integers [B,count] in [0, bound), bound [B,1]; the modulo's bias is below bound / 2^62."""
    return torch.randint(1 << 62, (len(bound), count), device=bound.device) % bound


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Rows of all ranks, in the order of ranks, for tensors of equal length, which may differ between ranks."""
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
    everyone = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(everyone, padded)
    return torch.cat([rows[:count] for rows, count in zip(everyone, counts, strict=True)])
