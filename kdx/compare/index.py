"""Records of runs, kept beside them in SQLite, so that thousands are looked through without opening their files."""

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
VERSION = 2  # of the table and of what a record holds: an index of another version is written anew
Stamp = str  # of a folder's files; a record counts only while it is the same


class Index:
    """The records under one root, by folder. Where it cannot be read or written, it is simply empty or stays as it was.

    Every record comes from files that still exist, so an index may be deleted at any time.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._known: dict[str, tuple[Stamp, bytes]] = {}
        self._new: dict[str, tuple[Stamp, bytes]] = {}

    def __enter__(self) -> Index:
        if self.path.is_file():
            try:
                self._known = self._read()
            except sqlite3.OperationalError:  # locked, or not readable: another time
                pass
            except (sqlite3.Error, ValueError):  # not an index at all, or a torn one
                self._remove()
        return self

    def get(self, folder: str, stamp: Stamp) -> dict[str, Any] | None:
        """The record of a folder; None if there is none, or if the folder's files have changed since."""
        known = self._known.get(folder)
        if known is None or known[0] != stamp:
            return None
        try:
            record = json.loads(zlib.decompress(known[1]))
        except (zlib.error, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def put(self, folder: str, stamp: Stamp, record: Mapping[str, Any]) -> None:
        """Remember a record, to be written at the end. One that JSON cannot hold, such as a date of YAML, is left out."""
        with suppress(TypeError, ValueError):
            self._new[folder] = stamp, zlib.compress(json.dumps(record).encode(), 1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._new:
            with suppress(sqlite3.Error, OSError):  # a root that cannot be written, a full disk, another process
                self._write()

    def forget(self, folders: set[str]) -> int:
        """Drop the records of all other folders; gives how many that were."""
        gone = [folder for folder in self._known if folder not in folders]
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
