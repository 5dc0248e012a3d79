"""MLflow: a run in a tracking server, or in a database file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger

from kdx.training.loggers.journal import FinalReport, Journal, Row, RunInfo

LONGEST = 500  # characters of a parameter's value that MLflow takes


class Mlflow(Journal, MLFlowLogger):
    """A run in the tracking store at `uri`; None is what MLFLOW_TRACKING_URI says. Needs `pip install kdx[mlflow]`.

    `artifacts` is where a new experiment keeps files; None leaves it to the store, which for a database is the current folder.
    """

    def __init__(self, save_dir: str, experiment: str = "kdx", uri: str | None = None, artifacts: str | None = None) -> None:
        self.called, self.uri = experiment, uri
        self.artifacts = None if artifacts is None else Path(artifacts).resolve().as_uri()

    def begin(self, about: RunInfo) -> None:
        super().__init__(self.called, about.name, tracking_uri=self.uri, artifact_location=self.artifacts)
        client, run = self.experiment, self.run_id
        for key, value in {"job_type": about.job_type, "sweep": about.group or "", "tags": ",".join(about.tags)}.items():
            client.set_tag(run, key, value)
        self.log_hyperparams(about.config)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved config, with dotted names."""
        for key, value in flat(params).items():
            self.experiment.log_param(self.run_id, key.replace("@", "."), str(value)[:LONGEST])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(dict(metrics), step)

    def picture(self, name: str, path: Path) -> None:
        self.experiment.log_artifact(self.run_id, str(path))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.experiment.log_text(self.run_id, "\n".join(_csv_line(row) for row in (columns, *rows)), f"{name}.csv")

    def conclude(self, about: RunInfo, conclusion: FinalReport) -> None:
        super().log_metrics({name: value for name, value in conclusion.metrics.items() if value == value})
        self.experiment.set_tag(self.run_id, "selection", str(conclusion.selection["text"]))
        for kind, text in conclusion.caveats.items():
            self.experiment.set_tag(self.run_id, f"caveat.{kind}", text[:LONGEST])
        for file in ("student.safetensors", "student.json", "config.yaml", "metrics.json"):
            self.experiment.log_artifact(self.run_id, str(about.folder / file))

    def alert(self, title: str, text: str) -> None:
        self.experiment.set_tag(self.run_id, "alert", f"{title}: {text}"[:LONGEST])

    def finalize(self, status: str = "success") -> None:
        super().finalize(status)

    def close(self, failed: bool) -> None:
        self.finalize("failed" if failed else "success")


def flat(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested data as one mapping with dotted names."""
    items: dict[str, Any] = {}
    for key, value in node.items():
        items |= flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return items


def _csv_line(row: Row) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(row)
    return file.getvalue()
