"""One planned training run. The module has no slow imports, because its objects are sent to worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdx.config.schema import RunConfig


@dataclass(frozen=True)
class PlannedRun:
    """A system with a seed. `config` is checked; `key` is the fingerprint of all values that affect the metrics."""

    family: str
    system: str
    seed: int
    overrides: tuple[str, ...]
    config: RunConfig
    key: str
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the run is finished: metrics.json is its last file and is written atomically."""
        return (self.folder / "metrics.json").is_file()

    @property
    def size(self) -> float:
        """A relative estimate of the training time: the number of epochs."""
        return float(self.config.trainer["max_epochs"])

    @property
    def text(self) -> str:
        """A description for messages."""
        return f"{self.family} {self.system} seed {self.seed}"
