"""Provenance of a run: command, code, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from kdx.run.masking import mask, mask_code

VERSION = metadata.version("kdx")
PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "numpy")
MAX_PATCH = 1 << 20  # characters of the patch that are stored


def provenance(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return command, commits of kdx and of the current project, versions, hardware; no environment variables, no secrets."""
    import torch

    cuda = torch.cuda.is_available()
    package, project = _repositories()
    return {
        "command": [Path(sys.argv[0]).name, *map(mask, sys.argv[1:])],
        "overrides": [mask(word) for word in overrides],
        "git_commit": package and _git(package, "rev-parse", "HEAD"),
        "git_dirty": bool(package and _git(package, "status", "--porcelain", "--untracked-files=no")),
        "project_commit": project and _git(project, "rev-parse", "HEAD"),
        "versions": {"kdx": VERSION, "python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "hardware": {
            "platform": platform.platform(),
            "cpu": _cpu(),
            "cpu_cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        },
    }


def difference() -> str:
    """Return the uncommitted changes of kdx and of the current project as a patch, secrets masked; empty without changes."""
    patches = [_git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff") or "" for folder in _repositories() if folder]
    patch = mask_code("\n".join(part for part in patches if part))
    return patch if len(patch) <= MAX_PATCH else f"{patch[:MAX_PATCH]}\n... truncated: the patch has {len(patch)} characters\n"


@cache
def environment() -> str:
    """Return one line NAME==VERSION per installed package, as `pip freeze`, without paths and addresses."""
    versions = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items(), key=lambda item: item[0].lower()))


def _cpu() -> str:
    """CPU model name, or the architecture if unavailable."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


def _repositories() -> tuple[Path | None, Path | None]:
    """Return the repository of kdx and, if it is a different one, the repository of the current folder."""
    here = Path(__file__).resolve()
    tracked = _git(here.parent, "ls-files", "--error-unmatch", "__init__.py")  # False for a .venv inside another repository
    package = _top(here.parent) if tracked else None
    project = _top(Path.cwd())
    return package, project if project != package else None


def _top(folder: Path) -> Path | None:
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
