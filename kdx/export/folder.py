"""Write the folder of an export: in a temporary folder first, moved to its place after all checks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from kdx.export import formats
from kdx.export.card import model_card
from kdx.export.ready import ready
from kdx.export.request import LEDGER, ExportRequest, check_target
from kdx.export.student import registered_by

PACKAGES = ("kdx", "torch", "timm", "safetensors", "onnx", "onnxscript", "onnxruntime", "executorch", "torchao")


def export(request: ExportRequest) -> Path:
    """Write the files of each format, README.md and export.json, and return the folder. After a failure, nothing is written.

    Raises:
        ExportError: If a format cannot be written, or if the logits of a file differ from those of the student.
    """
    student = ready(request)
    request.to.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{request.to.name}.", dir=request.to.parent))
    try:
        reports = {name: formats.WRITERS[name](student, draft) for name in request.formats}
        importing = registered_by(student.network.architecture)
        (draft / "README.md").write_text(model_card(request, reports, importing), encoding="utf-8")
        ledger = json.dumps(_ledger(request, reports, draft), indent=2)
        (draft / LEDGER).write_text(ledger + "\n", encoding="utf-8")
        draft.chmod(0o755)  # a temporary folder is readable only by its owner
        for path in draft.iterdir():
            path.chmod(0o644)
        _place(draft, request.to)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return request.to


def _ledger(request: ExportRequest, reports: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    run = request.run
    channels, side, _ = run.shape
    return {
        "run": run.path.resolve().name,
        "architecture": run.card["architecture"],
        "input": {"shape": ["batch", channels, side, side], "range": [0, 1]},
        "output": "logits",
        "calibration_temperature": run.calibration_temperature,
        "calibration_temperature_folded": request.temperature,
        "parity": "difference to the trained student's logits (divided by the folded temperature, if any) on uniform noise",
        "formats": reports,
        "files": {path.name: _file(path) for path in sorted(folder.iterdir())},
        "versions": {name: _version(name) for name in PACKAGES},
        "git_commit": run.result.get("provenance", {}).get("git_commit"),
    }


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _place(draft: Path, to: Path) -> None:
    """Move `draft` to `to`; an earlier export there is replaced."""
    check_target(to)  # once more, because files may have been added since the first check
    if to.is_dir():
        old = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
        os.replace(to, old)
        os.replace(draft, to)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(draft, to)
