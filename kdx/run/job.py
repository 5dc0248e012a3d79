"""The state of a run's folder: empty, begun or finished; which process works in it; what earlier attempts ended with."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from kdx.run.files import replacing
from kdx.run.masking import mask

State = Literal["empty", "begun", "finished"]
FILE, LOCK = "job.json", ".lock"
KEPT = 20  # attempts that are remembered


@dataclass(frozen=True)
class Attempt:
    """One process that worked on the run. `error` is set if it failed; `ended` only if it was not killed."""

    host: str
    pid: int
    began: str  # UTC, ISO 8601
    ended: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.began}"


class HeldError(Exception):
    """Another process works in the folder. Its text says which one, and since when."""


def state(folder: Path) -> State:
    """Return how far the run in a folder is: `begun` as soon as its config fits its data, `finished` with its numbers."""
    if (folder / "metrics.json").is_file():
        return "finished"
    return "begun" if (folder / "run.json").is_file() else "empty"


def attempts(folder: Path) -> list[Attempt]:
    """Return the attempts so far, oldest first; empty if there are none or the file cannot be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return [Attempt(**entry) for entry in content["attempts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def failures(folder: Path) -> list[Attempt]:
    """Return the attempts that ended with an error. Those that were killed or interrupted are no failures."""
    return [attempt for attempt in attempts(folder) if attempt.error is not None]


def is_held(folder: Path) -> bool:
    """Return whether a process works in the folder."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of another user, or on a file system that cannot be written
        return False


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder, which is created if necessary. The operating system releases it if the process is killed.

    Raises:
        HeldError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        last = attempts(folder)
        raise HeldError(f"{folder} is in use by {last[-1] if last else 'another process'}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def attempt(folder: Path) -> Iterator[None]:
    """Record an attempt at the run in a folder that this process holds, and how it ends."""
    began, failure = _now(), None
    _append(folder, began, None, None)
    try:
        yield
    except Exception as error:
        failure = _told(error)
        raise
    finally:
        with suppress(OSError):  # a full disk must not hide why it ended
            _record(folder, attempts(folder)[:-1])
            _append(folder, began, _now(), failure)


def fail(folder: Path, error: Exception) -> None:
    """Record an attempt that failed before it held the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _append(folder, _now(), _now(), _told(error))


def forget_failures(folder: Path) -> None:
    """Forget the attempts that ended with an error, so that the run is tried again."""
    _record(folder, [attempt for attempt in attempts(folder) if attempt.error is None])


def _told(error: Exception) -> str:
    """Return the first line of an error, with its type if it is not about the config, and with secrets masked."""
    line = (str(error).strip().splitlines() or [""])[0]
    return mask(line if isinstance(error, ValueError) else f"{type(error).__name__}: {line}")


def _append(folder: Path, began: str, ended: str | None, error: str | None) -> None:
    _record(folder, [*attempts(folder), Attempt(socket.gethostname(), os.getpid(), began, ended, error)])


def _record(folder: Path, entries: list[Attempt]) -> None:
    content: Mapping[str, Any] = {"attempts": [asdict(entry) for entry in entries[-KEPT:]]}
    with replacing(folder / FILE) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
