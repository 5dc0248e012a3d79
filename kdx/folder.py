"""What a run leaves behind, in one folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and how it came about. `outputs/<name>/<run id>/`."""

    path: Path
    group: str | None = None  # the sweep it belongs to
    overrides: tuple[str, ...] = field(default_factory=tuple)

    @property
    def checkpoints(self) -> Path:
        """Where `best.ckpt` and `last.ckpt` are."""
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        """The selected student's weights; `student.json` beside it says how to build and feed it."""
        return self.path / "student.safetensors"

    @property
    def peers(self) -> Path:
        """Where the other students of a cohort are, in files like the student's."""
        return self.path / "peers"

    def write(self, name: str, content: Any) -> None:
        """Write JSON, whole or not at all."""
        draft = self.path / f".{name}.part"
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, self.path / name)

    def read(self, name: str) -> Any:
        """Read JSON; ValueError says what to do where the file is missing or broken."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path / name} cannot be read ({error}): is {self.path} a finished run?") from None

    def write_config(self, cfg: DictConfig) -> None:
        """Write `config.yaml`, resolved."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")


def provenance(folder: RunFolder) -> dict[str, Any]:
    """Where a number comes from: command, code, versions, hardware."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": list(folder.overrides),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {"kdx": metadata.version("kdx"), "python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        "hardware": {
            "platform": platform.platform(),
            "cpu_cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        },
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory_mb() -> float:
    """Peak memory so far: of the GPU where there is one, else of this process. MiB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)
