"""Where a number comes from: command, code, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

VERSION = metadata.version("kdx")
PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "numpy")
MOST = 1 << 20  # characters of a difference that are kept


def provenance(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Plain data: the command, commits of kdx and of the project one is in, versions, hardware. No environment variables."""
    import torch

    cuda = torch.cuda.is_available()
    own, project = _repositories()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": list(overrides),
        "git_commit": own and _git(own, "rev-parse", "HEAD"),
        "git_dirty": bool(own and _git(own, "status", "--porcelain", "--untracked-files=no")),
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
    """What stands in the work trees of kdx and of the project and not in their commits, as a patch; empty if nothing does."""
    patches = [_git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff") or "" for folder in _repositories() if folder]
    patch = "\n".join(part for part in patches if part)
    return patch if len(patch) <= MOST else f"{patch[:MOST]}\n... cut here: the difference has {len(patch)} characters\n"


@cache
def environment() -> str:
    """Every installed package with its version, a line each, as `pip freeze` would; without where it came from."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items(), key=lambda item: item[0].lower()))


def _cpu() -> str:
    """CPU model name, or the architecture if unavailable."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), platform.processor() or platform.machine())


def _repositories() -> tuple[Path | None, Path | None]:
    """The repository that holds kdx's code, and the one of the current folder if that is another."""
    here = Path(__file__).resolve()
    tracked = _git(here.parent, "ls-files", "--error-unmatch", "__init__.py")  # not in a .venv inside of someone's repository
    own = _top(here.parent) if tracked else None
    project = _top(Path.cwd())
    return own, project if project != own else None


def _top(folder: Path) -> Path | None:
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
