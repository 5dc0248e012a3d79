"""The metadata at the top of a model card, which the Hugging Face hub reads: library, data set, and metrics (`model-index`)."""

from __future__ import annotations

import math
from typing import Any

import yaml

from kdx.export.finished import FinishedRun
from kdx.export.request import ExportRequest

HUB = "kdx.data.hub.HubDataset"
WHAT = {
    "accuracy": "Accuracy",
    "top5": "Top-5 accuracy",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "ECE (15 bins)",
    "entropy": "Entropy (nats)",
}
NETWORKS = {"student": "", "student_scaled": " after temperature scaling"}


def front_matter(request: ExportRequest) -> str:
    """Return the metadata as YAML between two lines of dashes."""
    run = request.run
    name = run.config.get("name", "student")
    title = request.push or f"{name}/{run.path.resolve().name}"
    data = _source(run)
    on_hub = str(data["repository"]).partition("@")[0] if data.get("_target_") == HUB and data.get("repository") else None
    stated: dict[str, Any] = {"library_name": "timm"} if "timm" in request.formats else {}
    stated |= {"pipeline_tag": "image-classification", "tags": ["image-classification", "knowledge-distillation", "kdx"]}
    stated |= {"datasets": [on_hub]} if on_hub else {}
    split, metrics = _metrics(run)
    if metrics:
        kind = on_hub or str(data.get("_target_", "unknown")).rpartition(".")[2].lower()
        revision = (run.result.get("data") or {}).get("revision")
        described = {"type": kind, "name": kind, "split": split, **({"revision": revision} if revision else {})}
        task = {"type": "image-classification", "name": "Image classification"}
        stated["model-index"] = [{"name": title, "results": [{"task": task, "dataset": described, "metrics": metrics}]}]
    return f"---\n{yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)}---\n"


def _source(run: FinishedRun) -> dict[str, Any]:
    return dict((run.config.get("data") or {}).get("source") or {})


def _metrics(run: FinishedRun) -> tuple[str, list[dict[str, Any]]]:
    """Return the split that was tested, val without a test, and the student's metrics on it."""
    found = run.metrics
    split = "test" if any(name.startswith("test/student/") for name in found) else "val"
    metrics = [
        {"type": what, "value": value, "name": f"{words}{suffix}"}
        for network, suffix in NETWORKS.items()
        for what, words in WHAT.items()
        if (value := found.get(f"{split}/{network}/{what}")) is not None and math.isfinite(value)
    ]
    return split, metrics
