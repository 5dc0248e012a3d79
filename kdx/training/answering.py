"""The teacher in training: its answers to a view are read from files if a run has kept them, else given and kept."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdx.metrics.gathering import everywhere
from kdx.teachers.answers import Answers, rows
from kdx.teachers.teacher import Teacher
from kdx.training.ranks import rank
from kdx.types import Batch

log = logging.getLogger("kdx")

CHECKED = 32  # images of which the kept answers are compared with the teacher's
TOLERANCE = {16: 2e-3, 32: 1e-4}  # relative to the largest logit


class Answering:
    """Gives the calibrated logits [M,B,K] of all members for a training batch.

    An epoch that has been kept is read, after which the teacher does not run; of another, the answers are kept at its end, if
    this process has seen all of it. A full disk ends the keeping, not the training.

    Args:
        answers: the files.
        teacher: the teacher.
        size: the number of training images.
        batches: the number of batches of an epoch.
        device: that of this rank.
    """

    def __init__(self, answers: Answers, teacher: Teacher, size: int, batches: int, device: torch.device) -> None:
        self.answers, self.teacher, self.size, self.batches, self.device = answers, teacher, size, batches, device
        self._epoch: int | None = None
        self._table: NDArray[np.floating] | None = None
        self._index: list[Tensor] = []
        self._logits: list[Tensor] = []  # uncalibrated, [B,M,K]
        self._keeps = True

    def knows(self, epoch: int) -> bool:
        """Return whether the answers to this epoch are kept and sound, on all ranks; it becomes the epoch of the next calls."""
        if epoch != self._epoch:
            self._epoch, self._index, self._logits = epoch, [], []
            table = self.answers.open(epoch)
            self._table = table if self.agreed(table is not None) else None
        return self._table is not None

    def agreed(self, here: bool) -> bool:
        """Return whether `here` is true on all ranks, which must do the same, also while another run writes files."""
        return bool(everywhere([torch.tensor([here], device=self.device)]).all())

    def __call__(self, epoch: int, batch: Batch) -> Tensor:
        """Return the calibrated logits [M,B,K] of a batch of this epoch."""
        assert batch.index is not None
        temperatures = self._temperatures()
        if self.knows(epoch):
            assert self._table is not None
            return rows(self._table, batch.index) / temperatures
        assert batch.teacher_images is not None
        each = self.teacher.each(batch.teacher_images, batch.other_images)
        kept = torch.float16 if self.answers.bits == 16 else torch.float32
        self._index.append(batch.index)
        self._logits.append((each * temperatures).transpose(0, 1).to(kept))
        return each

    def finish(self) -> None:
        """Keep the answers of the epoch that ends."""
        index, logits, epoch = self._index, self._logits, self._epoch
        self._index, self._logits, self._epoch = [], [], None
        if len(index) != self.batches or epoch is None:
            return
        whole = everywhere(index), everywhere(logits)  # what follows concerns the first rank alone
        if rank() or not self._keeps or self.answers.has(epoch):  # another run has kept them meanwhile
            return
        try:
            if not whole[1].isfinite().all():
                raise OSError("logits are too large for 16 bits: use teacher_cache_bits=32")
            self.answers.write(epoch, self.size, *whole)
        except OSError as error:
            self._keeps = False
            log.warning("The teacher's answers are not kept in %s (%s); the training goes on", self.answers.folder, error)

    def differs(self, epoch: int, batch: Batch) -> float:
        """Return by how much kept answers differ from the teacher's for images of `batch`, in units of what rounding allows."""
        assert batch.teacher_images is not None and batch.index is not None
        if not self.knows(epoch):
            return 0.0
        assert self._table is not None
        others = {side: images[:CHECKED] for side, images in batch.other_images.items()}
        temperatures = self._temperatures()
        live = self.teacher.each(batch.teacher_images[:CHECKED], others) * temperatures
        apart = (rows(self._table, batch.index[:CHECKED]) - live).abs().max() / live.abs().max().clamp(min=1e-6)
        share = float(apart) / TOLERANCE[self.answers.bits]
        return share if share == share else float("inf")  # NaN: a row that was never written

    def _temperatures(self) -> Tensor:
        values = [member.calibration_temperature for member in self.teacher.members.values()]
        return torch.tensor(values, device=self.device).view(-1, 1, 1)
