"""The teacher on val and test: its logits on a whole split are read if a run has kept them, else given and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kdx.data.source import SplitName
from kdx.metrics.gathering import everywhere
from kdx.teachers.answers import Answers, apart, placed, rows
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training.logit_store import LogitStore
from kdx.training.ranks import rank
from kdx.types import Batch

log = logging.getLogger("kdx")

Shown = str  # OWN, STUDENT, or a member's name: its images, normalized otherwise
OWN, STUDENT = "teacher's images", "student's images"
CHECKED = 32  # images of which the kept answers are compared with the teacher's
LARGEST = 2**30  # bytes of a table; larger ones are not kept


class SplitAnswers:
    """Uncalibrated logits [M,B,K] of one pass over a split of `size` images, equal to the last bit whether kept or live.

    Kept logits are compared with the teacher's own for the first images. If they differ, those of this rank are the teacher's
    own, and the file is deleted. What was not kept is written at the end, if all ranks have seen the whole split.
    """

    def __init__(self, answers: Answers, size: int, device: torch.device) -> None:
        self.answers, self.size, self.device = answers, size, device
        table = answers.open(0)
        self._table = None if table is None else placed(table, device)
        self._compared = False
        self._index: list[Tensor] = []
        self._logits = LogitStore()  # [B,M,K]

    def __call__(self, index: Tensor, live: Callable[[int], Tensor]) -> Tensor:
        """Return the logits of the images `index` [B]; `live(n)` gives the teacher's own of the first n of them."""
        if self._table is not None and not self._compared:
            self._compare(index[:CHECKED], live(CHECKED))
        if self._table is not None:
            return rows(self._table, index)
        logits = live(len(index))
        if self.size * logits[:, 0].nbytes <= LARGEST:
            self._index.append(index)
            self._logits.append(logits.transpose(0, 1))
        return logits

    def _compare(self, index: Tensor, live: Tensor) -> None:
        assert self._table is not None
        self._compared = True
        difference = apart(rows(self._table, index), live, self.answers.bits)
        if difference > 1:
            log.warning(
                "The answers in %s are not those of this teacher (%.0f times what rounding explains): it answers again",
                *(self.answers.folder, difference),
            )
            self._table = None
            self.answers.forget(0)

    def finish(self) -> None:
        """Keep the logits. A full disk is said, and costs nothing else."""
        seen = sum(map(len, self._index))
        if everywhere([torch.tensor([seen], device=self.device)]).sum() != self.size:
            return
        whole = everywhere(self._index), everywhere(self._logits)  # what follows concerns the first rank alone
        if rank():
            return
        try:
            self.answers.write(0, self.size, *whole)
        except OSError as error:
            log.warning("The teacher's answers are not kept in %s (%s)", self.answers.folder, error)


class Examination:
    """Asks the teacher about val and test.

    `open_answers` returns the SplitAnswers of a split for what the teacher is shown; without it, the teacher always runs.
    """

    def __init__(
        self, teacher: Teacher, open_answers: Callable[[SplitName, Shown, torch.device], SplitAnswers] | None = None
    ) -> None:
        self.teacher, self.open_answers = teacher, open_answers
        self._passes: dict[tuple[SplitName, Shown], SplitAnswers] = {}

    def _ask(self, split: SplitName, shown: Shown, batch: Batch, live: Callable[[int], Tensor]) -> Tensor:
        if self.open_answers is None or batch.index is None:
            return live(len(batch))
        if (split, shown) not in self._passes:
            self._passes[split, shown] = self.open_answers(split, shown, batch.index.device)
        return self._passes[split, shown](batch.index, live)

    def raw(self, split: SplitName, batch: Batch) -> Tensor:
        """Return the uncalibrated logits [M,B,K] of a batch of a split."""
        images, others = batch.teacher_images, batch.other_images
        assert images is not None
        return self._ask(split, OWN, batch, lambda n: self.teacher.raw(images[:n], _first(others, n)))

    def raw_at_student(self, split: SplitName, batch: Batch) -> Tensor:
        """Return the same for the student's images."""
        return self._ask(split, STUDENT, batch, lambda n: self.teacher.raw(batch.student_images[:n]))

    def normalized_otherwise(self, split: SplitName, batch: Batch, name: str) -> Tensor:
        """Return the logits [A,B,K] of a member under each of its other normalizations."""
        member, images, others = self.teacher.members[name], batch.teacher_images, batch.other_images
        assert isinstance(member, OnlineTeacher) and images is not None
        return self._ask(
            split, name, batch, lambda n: member.normalized_otherwise(images[:n], _first(others, n)).transpose(0, 1)
        )

    def of_batch(self, split: SplitName, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the calibrated logits [M,B,K] of a batch of a split; of a single teacher, also those before it [B,K]."""
        raw = self.raw(split, batch)
        return self.teacher.calibrated(raw), raw[0] if len(raw) == 1 else None

    def at_student(self, split: SplitName, batch: Batch) -> Tensor:
        """Return the calibrated logits [B,K] for the student's images."""
        return self.teacher.combine(self.teacher.calibrated(self.raw_at_student(split, batch)))

    def finish(self) -> None:
        """Keep what was not kept yet, at the end of a pass."""
        for answers in self._passes.values():
            answers.finish()
        self._passes = {}


def _first(others: Mapping[int, Tensor], count: int) -> dict[int, Tensor]:
    return {side: images[:count] for side, images in others.items()}
