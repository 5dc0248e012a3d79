"""One training run: what it is, where its numbers are. Imports nothing that takes time, for it travels to processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdx.config.schema import RunConfig


@dataclass(frozen=True)
class PlannedRun:
    """A system with a seed. `config` is checked; `key` is the fingerprint of all that determines its numbers."""

    family: str
    system: str
    seed: int
    overrides: tuple[str, ...]
    config: RunConfig
    key: str
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its numbers are there, from now or from before: metrics.json is the last it writes, and appears at once."""
        return (self.folder / "metrics.json").is_file()

    @property
    def size(self) -> float:
        """A guess of how long it takes, in no unit: its epochs."""
        return float(self.config.trainer["max_epochs"])

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.family} {self.system} seed {self.seed}"
