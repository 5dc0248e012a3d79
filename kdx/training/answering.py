"""The teacher in training: its answers to a view are read from files if a run has kept them, else given and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdx.config.errors import ConfigError
from kdx.metrics.gathering import everywhere
from kdx.teachers.answers import Answers, apart, placed, rows
from kdx.teachers.teacher import Teacher
from kdx.training.ranks import rank
from kdx.types import Batch

log = logging.getLogger("kdx")

CHECKED = 32  # images of which the kept answers are compared with the teacher's


class TeacherAnswers(Protocol):
    """Gives the calibrated logits [M,B,K] of all members of the teacher for a training batch; `finish` ends an epoch.

    `asked` is the number of batches for which this run has run the teacher, of those for which answers were `given`.
    """

    given: int

    @property
    def asked(self) -> int: ...

    def __call__(self, batch: Batch) -> Tensor: ...

    def finish(self) -> None: ...


class Answering:
    """Gives the calibrated logits [M,B,K] of all members for a training batch, rounded as they are kept.

    So a run computes the same whether it is the first or reads what another has kept. An epoch that has been kept is read,
    after which the teacher does not run; of another, the answers are kept at its end, if this run has seen all of it. A full
    disk ends the keeping, not the training.

    Args:
        answers: the files.
        teacher: the teacher, calibrated.
        size: the number of training images.
        batches: the number of batches of an epoch.
        device: that of this rank.
        choose: Returns the images of an index [B] with their views of an epoch: those that the last, incomplete batch has left
            out, which runs with another order need. None if a view depends on its batch, so that no run has another order.
    """

    def __init__(
        self,
        answers: Answers,
        teacher: Teacher,
        size: int,
        batches: int,
        device: torch.device,
        choose: Callable[[int, NDArray[np.int64]], Batch] | None = None,
    ) -> None:
        self.choose = choose
        self.answers, self.teacher, self.size, self.batches, self.device = answers, teacher, size, batches, device
        self._epoch: int | None = None
        self._table: Tensor | None = None
        self._index: list[Tensor] = []
        self._logits: list[Tensor] = []  # uncalibrated, [B,M,K]
        self._keeps = True
        self.given = self._asked = 0

    @property
    def asked(self) -> int:
        return self._asked

    def kept(self, epochs: Sequence[int]) -> list[int]:
        """Return the epochs whose answers are there for all ranks, also while another run writes files."""
        here = torch.tensor([[self.answers.has(epoch) for epoch in epochs]], device=self.device)
        everywhere_here = everywhere([here]).all(0).tolist()
        return [epoch for epoch, found in zip(epochs, everywhere_here, strict=True) if found]

    def knows(self, epoch: int) -> bool:
        """Return whether the answers to this epoch are kept and sound, on all ranks; it becomes the epoch of the next calls."""
        if epoch != self._epoch:
            self._epoch, self._index, self._logits = epoch, [], []
            table = self.answers.open(epoch)
            sound = everywhere([torch.tensor([table is not None], device=self.device)]).all()
            self._table = placed(table, self.device) if sound and table is not None else None
        return self._table is not None

    def __call__(self, batch: Batch) -> Tensor:
        """Return the calibrated logits [M,B,K] of a batch. ConfigError if 16 bits cannot hold them."""
        assert batch.index is not None
        self.given += 1
        if self.knows(batch.epoch):
            assert self._table is not None
            return self.teacher.calibrated(rows(self._table, batch.index))
        self._asked += 1
        raw = self._live(batch, len(batch)).to(self.answers.dtype)
        if not self._index and not raw.isfinite().all():  # once an epoch: reading it makes the host wait
            raise ConfigError(
                "The teacher's logits are too large for 16 bits: use teacher_cache_bits=32, or teacher_cache=null"
            )
        self._index.append(batch.index)
        self._logits.append(raw.transpose(0, 1))
        return self.teacher.calibrated(raw.float())

    def _live(self, batch: Batch, count: int) -> Tensor:
        """Return the teacher's own uncalibrated logits [M,count,K] of the first images of a batch."""
        assert batch.teacher_images is not None
        others = {side: images[:count] for side, images in batch.other_images.items()}
        return self.teacher.raw(batch.teacher_images[:count], others)

    def finish(self) -> None:
        """Keep the answers of the epoch that ends."""
        if len(self._index) == self.batches and self._epoch is not None:
            index, logits = everywhere(self._index), everywhere(self._logits)  # what follows concerns the first rank alone
            if rank() == 0 and self._keeps and not self.answers.has(self._epoch):  # else another run has kept them meanwhile
                self._keep(self._epoch, index, logits)
        self._index, self._logits, self._epoch = [], [], None

    def _keep(self, epoch: int, index: Tensor, logits: Tensor) -> None:
        left_out = np.setdiff1d(np.arange(self.size), index.cpu().numpy())
        if self.choose is not None and len(left_out):
            batch = self.choose(epoch, left_out)
            assert batch.index is not None
            rest = self._live(batch, len(batch)).to(logits.dtype).transpose(0, 1)
            index, logits = torch.cat([index, batch.index]), torch.cat([logits, rest])
        try:
            self.answers.write(epoch, self.size, index, logits)
        except OSError as error:
            self._keeps = False
            log.warning("The teacher's answers are not kept in %s (%s); the training goes on", self.answers.folder, error)

    def differs(self, batch: Batch) -> float:
        """Return by how much kept answers to a batch differ from the teacher's own, in units of what rounding explains."""
        assert batch.index is not None
        if not self.knows(batch.epoch):
            return 0.0
        assert self._table is not None
        return apart(rows(self._table, batch.index[:CHECKED]), self._live(batch, CHECKED), self.answers.bits)
