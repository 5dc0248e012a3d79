"""metrics.csv: the curves, a row per logged step."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from kdx.training.loggers.journal import Journal


class _Writer(ExperimentWriter):
    """CSV writer that continues an existing file at the step at which the run is resumed."""

    resumed_at: int | None = None

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        self.before: list[dict[str, Any]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.before = list(csv.DictReader(file))

    def log_metrics(self, metrics_dict: Mapping[str, float], step: int | None = None) -> None:
        if self.before:
            first = (step or 0) if self.resumed_at is None else self.resumed_at + 1
            kept = [row for row in self.before if int(row["step"]) < first]
            Path(self.metrics_file_path).unlink()
            self.metrics, self.before = [{k: v for k, v in row.items() if v != ""} for row in kept], []
        super().log_metrics(dict(metrics_dict), step)


class MetricsFile(Journal, CSVLogger):
    """Writes `folder/metrics.csv`, a row per logged step; a resumed run goes on with the file it finds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), name="", version="")
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def experiment(self) -> Any:
        """The open file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    def resume(self, step: int) -> None:
        """Keep the rows up to the step of the checkpoint."""
        self.experiment.resumed_at = step

    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: config.yaml contains them."""
