"""Where the results of an evaluation are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kdx.config.identity import digest
from kdx.evaluation.request import EvaluationRequest
from kdx.run.folder import RunFolder


def results_path(request: EvaluationRequest, data_name: str, split: str, shifts: Sequence[str]) -> tuple[Path, str]:
    """Return the folder of the results, which is created if it does not exist, and their name without suffix."""
    assert request.to is not None or request.folder is not None
    folder = Path(request.to) if request.to is not None else request.folder / "evaluations"  # type: ignore[operator]  # asserted
    folder.mkdir(parents=True, exist_ok=True)
    file = request.student or request.checkpoint
    named = request.timm or request.file
    parts = [
        Path(file).stem if file else Path(named).name if named else None,
        data_name,
        split,
        "+".join(shifts),
        "+".join(f"{r}px" for r in request.sides),
    ]
    return folder, re.sub(r"[^\w.+-]+", "-", request.name or "-".join(part for part in parts if part))


def distinct(folder: Path, name: str, network: str, data: str) -> str:
    """Return `name`, with a suffix if it is that of results of another network or other data, given by their fingerprints."""
    try:
        there = RunFolder(folder).read(f"{name}.json")
        same = (there["of"]["sha256"], there["data"]["fingerprint"]) == (network, data)
    except (ValueError, KeyError, TypeError):  # none, or not of an evaluation
        same = True
    return name if same else f"{name}-{digest([network, data])[:8]}"
