"""metrics.csv: the curves, a row per logged step, in the file as soon as it is logged."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from kdx.run.files import replacing
from kdx.training.loggers.journal import Journal

SECONDS = 10.0  # at most, until a row survives the crash of the machine; that of the process it survives at once


class _Rows:
    """Appends rows to a CSV file. It is whole at every moment: what is not appended is written beside it and replaces it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resumed_at: int | None = None  # the step of the checkpoint
        self.columns: list[str] = []
        self.begun = False
        self.synced = time.monotonic()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; an earlier file is cut first, at the step at which the run goes on."""
        if not self.begun or not row.keys() <= set(self.columns):
            kept = _whole_rows(self.path)
            if not self.begun:
                first = int(row["step"]) if self.resumed_at is None else self.resumed_at + 1
                kept = [old for old in kept if int(old["step"]) < first]
            self._write(kept, {*row, *(name for old in kept for name, value in old.items() if value != "")})
            self.begun = True
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)
            if time.monotonic() - self.synced >= SECONDS:
                self._sync(file)

    def sync(self) -> None:
        """Have the operating system write the rows to the disk."""
        if self.begun:
            with self.path.open("a", encoding="utf-8") as file:
                self._sync(file)

    def _sync(self, file: TextIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self.synced = time.monotonic()

    def _write(self, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
        """Write the file anew with these rows and columns."""
        self.columns = sorted(columns)
        with replacing(self.path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def _whole_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of the file, if there is one, without a last one that was cut when the process was killed."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


class MetricsFile(Journal, CSVLogger):
    """Writes `folder/metrics.csv`, a row per logged step; a resumed run goes on with the file it finds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), name="", version="")
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = _Rows(folder / "metrics.csv")

    @property
    def experiment(self) -> Any:
        """The file."""
        return self.rows

    def resume(self, step: int) -> None:
        """Keep the rows up to the step of the checkpoint."""
        self.rows.resumed_at = step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write a row."""
        self.rows.append({**metrics, "step": step or 0})

    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: config.yaml contains them."""

    def save(self) -> None:
        """Do nothing: every row is written when it is logged."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all to the disk."""
        self.rows.sync()
