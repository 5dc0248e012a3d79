"""Slots of a machine, such as its GPUs: each is had by one process at a time, and is free again when that process has ended."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slot:
    """A slot that is taken. The process that inherits the file descriptor `lock` has it until it ends, however it ends."""

    name: str
    lock: int

    def leave(self) -> None:
        """Let go of the slot in this process; one that has inherited it keeps it."""
        os.close(self.lock)


def take(names: Sequence[str], number: int = 1, per_name: int = 1, folder: Path | None = None) -> list[Slot]:
    """Return `number` slots of different names, each of which has `per_name`; an empty list if there are not so many free ones.

    All commands of a user on a machine share the slots, because the locks are files in the temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"kdx-slots-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    taken: list[Slot] = []
    for place in range(per_name):  # one per name first, so that the GPUs are used evenly
        for name in names:
            if len(taken) == number:
                return taken
            if name not in [slot.name for slot in taken] and (slot := _try(folder, name, place)) is not None:
                taken.append(slot)
    if len(taken) == number:
        return taken
    for slot in taken:
        slot.leave()
    return []


def _try(folder: Path, name: str, place: int) -> Slot | None:
    lock = os.open(folder / f"{name}-{place}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Slot(name, lock)
