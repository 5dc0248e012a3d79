"""Store of trained teachers: one folder per fingerprint of all settings that determine the weights."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from kdx.run.sweep_folder import status_of

HEARTBEAT, PATIENCE = 60.0, 3600.0  # seconds between two messages while waiting, and without an epoch until it is given up
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
            self._wait(partial(_acquired, lock), key, say)
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

    def arrival(self, key: str, say: Callable[[str], None]) -> None:
        """Wait until another rank has put the teacher in its place. TimeoutError if it makes no progress."""

        def arrived(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while not self.has(key) and time.monotonic() < until:
                time.sleep(0.1)
            return self.has(key)

        self._wait(arrived, key, say)

    def _wait(self, done: Callable[[float], bool], key: str, say: Callable[[str], None]) -> None:
        """Wait until `done`, which takes at most the given seconds; tell now and then how far the teacher is.

        Raises:
            TimeoutError: If it makes no progress.
        """
        draft, seen, since = self.root / f"{key}.part", "", time.monotonic()
        while not done(HEARTBEAT):
            status = status_of(draft)
            who = str(status.attempts[-1]) if status.attempts else "another process"
            if status.epoch != seen:
                seen, since = status.epoch, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                minutes = f"{PATIENCE / 60:.0f} min"
                raise TimeoutError(
                    f"{who} has made no progress with teacher {key} in {draft} for {minutes}: end it and repeat the command"
                )
            say(f"Still waiting for teacher {key}, epoch {seen or 'not known'}: {who}")


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True
