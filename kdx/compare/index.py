"""A cache of run records in SQLite, so that thousands of runs are listed without opening their files."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

FILE = ".kdx-index.sqlite"
VERSION = 3  # of the table and of the records; an index of another version is replaced
Stamp = str  # modification times and sizes of a folder's files; a record is valid while they are unchanged


class Index:
    """The records of the runs under one root, by folder. Use it in a `with` statement.

    An index that cannot be read counts as empty; an index that cannot be written stays unchanged. It only repeats the content
    of existing files, so it may be deleted at any time.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._stored: dict[str, tuple[Stamp, bytes]] = {}
        self._new: dict[str, tuple[Stamp, bytes]] = {}

    def __enter__(self) -> Index:
        if self.path.is_file():
            try:
                self._stored = self._read()
            except sqlite3.OperationalError:  # locked or not readable: continue without it
                pass
            except (sqlite3.Error, ValueError):  # not an index, or a damaged one
                self._remove()
        return self

    def get(self, folder: str, stamp: Stamp) -> dict[str, Any] | None:
        """Return the record of a folder; None if there is none, or if the files have changed since."""
        entry = self._stored.get(folder)
        if entry is None or entry[0] != stamp:
            return None
        try:
            record = json.loads(zlib.decompress(entry[1]))
        except (zlib.error, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def put(self, folder: str, stamp: Stamp, record: Mapping[str, Any]) -> None:
        """Add a record; it is written on exit. A record that JSON cannot represent (e.g. a YAML date) is not stored."""
        with suppress(TypeError, ValueError):
            self._new[folder] = stamp, zlib.compress(json.dumps(record).encode(), 1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._new:
            with suppress(sqlite3.Error, OSError):  # a read-only root, a full disk, or a lock of another process
                self._write()

    def keep_only(self, folders: set[str]) -> int:
        """Delete the records of all other folders; return how many were deleted."""
        gone = [folder for folder in self._stored if folder not in folders]
        if gone:
            try:
                with closing(sqlite3.connect(self.path, timeout=2)) as base, base:
                    base.executemany("DELETE FROM records WHERE folder = ?", [(folder,) for folder in gone])
            except sqlite3.Error:
                return 0
        return len(gone)

    def _read(self) -> dict[str, tuple[Stamp, bytes]]:
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as base:
            if base.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                return {}
            rows = base.execute("SELECT folder, stamp, record FROM records")
            return {folder: (stamp, record) for folder, stamp, record in rows}

    def _write(self) -> None:
        with closing(sqlite3.connect(self.path, timeout=2)) as base, base:
            if base.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                base.execute("DROP TABLE IF EXISTS records")
                base.execute(f"PRAGMA user_version = {VERSION}")
            base.execute("CREATE TABLE IF NOT EXISTS records (folder TEXT PRIMARY KEY, stamp TEXT, record BLOB)")
            rows = [(folder, stamp, record) for folder, (stamp, record) in self._new.items()]
            base.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()
