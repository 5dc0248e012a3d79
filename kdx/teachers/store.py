"""Store of trained teachers: one folder per fingerprint of all settings that determine the weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

WEIGHTS = "student.safetensors"  # a teacher is trained as the student of its own run


class Store:
    """Folders `<root>/<fingerprint>/` with the weights, the config and the metrics of a trained teacher."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return the folder of the teacher with this fingerprint, existing or not."""
        return self.root / key

    def has(self, key: str) -> bool:
        """Return whether this teacher exists and is complete."""
        return (self.folder(key) / WEIGHTS).is_file()

    def obtain(self, key: str, train: Callable[[Path], None], say: Callable[[str], None]) -> Path:
        """Return the folder of the teacher; if it does not exist, train it first with `train(folder)`.

        If several processes need the same teacher, one trains it and the others wait. The folder is created atomically, so an
        interrupted run never leaves an incomplete teacher; `train` goes on in the folder that it finds.
        """
        folder = self.folder(key)
        if self.has(key):
            return folder
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Waiting for another process that trains teacher {key}")
            lock.acquire()
        try:
            if not self.has(key):
                draft = self.root / f"{key}.part"
                draft.mkdir(exist_ok=True)
                train(draft)
                if not (draft / WEIGHTS).is_file():
                    raise RuntimeError(
                        f"Training of teacher {key} did not write {WEIGHTS} to {draft}; the teacher is not stored"
                    )
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(draft, folder)
        finally:
            lock.release()
        return folder
