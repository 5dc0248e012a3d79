"""Where trained teachers are kept: one folder per fingerprint of everything that determines the weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

WEIGHTS = "student.safetensors"  # a teacher is a student that graduated


def fingerprint(parts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of SHA-256 over `parts`, plain data."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """Folders `<root>/<fingerprint>/` with the weights, the config and the metrics of a trained teacher."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the teacher with this fingerprint is, or will be."""
        return self.root / key

    def has(self, key: str) -> bool:
        """Whether that teacher is there, whole."""
        return (self.folder(key) / WEIGHTS).is_file()

    def obtain(self, key: str, train: Callable[[Path], None], say: Callable[[str], None]) -> Path:
        """The folder of the teacher, trained by `train(folder)` if it is not there yet.

        Processes that ask for the same teacher at once train it once: the others wait. The folder appears whole or not at
        all, so a run that is cut off leaves nothing that could be mistaken for a teacher.
        """
        folder = self.folder(key)
        if self.has(key):
            return folder
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that trains teacher {key}")
            lock.acquire()
        try:
            if not self.has(key):
                draft = self.root / f"{key}.part"
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                train(draft)
                if not (draft / WEIGHTS).is_file():
                    raise RuntimeError(f"training teacher {key} left no {WEIGHTS} in {draft}: nothing is kept")
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(draft, folder)
        finally:
            lock.release()
        return folder
