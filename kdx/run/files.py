"""Files that are whole or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

from filelock import FileLock

T = TypeVar("T")
FULL = 2**16  # bytes that may be free on a disk onto which a file did not fit


@contextmanager
def replacing(path: Path, *, several: bool = False) -> Iterator[Path]:
    """Yield the path of a draft beside `path`, which takes the place of `path` at the end; nothing is left after an exception.

    The draft is on the disk before it is renamed, so neither a killed process nor a crash leaves half a file. With `several`,
    processes that write the same file at the same time have drafts of their own; the last one stays.

    Raises:
        OSError: With ENOSPC if the disk is full, also if a library says it in another way.
    """
    draft = path.with_name(f".{path.name}{f'.{uuid.uuid4().hex[:8]}' if several else ''}.part")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except Exception as error:
        if not isinstance(error, OSError) and shutil.disk_usage(path.parent).free < FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def remembered(file: Path, make: Callable[[], T], read: Callable[[Path], T], write: Callable[[T, Path], object]) -> T:
    """Return what `make` returned when `file` was written, or now, and keep it there; one process makes, others wait.

    If the folder cannot be written, it is made each time. `read` raises OSError, ValueError, KeyError or TypeError for content
    of another form.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"))
        lock.acquire()
    except OSError:  # the folder is read-only
        return make()
    try:
        try:
            return read(file)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile):
            made = make()
        with replacing(file) as draft:
            write(made, draft)
        return made
    finally:
        lock.release()


def remembered_json(file: Path, make: Callable[[], T], load: Callable[[Any], T], dump: Callable[[T], Any]) -> T:
    """Return the same, kept as JSON: `dump` returns plain data, from which `load` returns it again."""
    return remembered(
        file,
        make,
        lambda path: load(json.loads(path.read_text(encoding="utf-8"))),
        lambda made, draft: draft.write_text(json.dumps(dump(made), indent=1) + "\n", encoding="utf-8"),
    )
