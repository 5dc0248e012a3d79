"""Interface of kdx's loggers, in addition to Lightning's: pictures, tables, final metrics, alerts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger("kdx")
Row = Sequence[Any]
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class RunInfo:
    """Information about a run at its start. `config` is plain data; `monitor` and `mode` define the best epoch."""

    folder: Path
    name: str
    job_type: str
    monitor: str
    mode: str
    config: Mapping[str, Any]
    group: str | None = None  # the sweep
    tags: Sequence[str] = ()
    resumed: Path | None = None  # the folder of the run that is resumed


@dataclass(frozen=True)
class FinalReport:
    """Results of a run: final metrics by flat name, those of the last weights on val, the best monitored value, selection."""

    metrics: Mapping[str, float]
    last: Mapping[str, float]
    best: float | None
    selection: Mapping[str, Any]
    teachers: Mapping[str, str] = field(default_factory=dict)  # name -> SHA-256 of the weights
    caveats: Mapping[str, str] = field(default_factory=dict)  # kind -> what limits the meaning of the numbers


class Journal:
    """Base class of loggers. Methods that a logger does not support do nothing; the run's folder contains everything."""

    broken = False

    def begin(self, about: RunInfo) -> None:
        """Called once when the run starts."""

    def picture(self, name: str, path: Path) -> None:
        """Log an image file."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Log a table."""

    def conclude(self, about: RunInfo, conclusion: FinalReport) -> None:
        """Log the final metrics and the student's weights."""

    def alert(self, title: str, text: str) -> None:
        """Send an alert to the users of the logger."""

    def close(self, failed: bool) -> None:
        """Called once when the run ends."""


def careful(method: Method) -> Method:
    """Decorator: if the method raises, disable the logger and log one warning, so that the run continues."""

    @functools.wraps(method)
    def guarded(self: Journal, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # from a server, a full disk or a library
            self.broken = True
            name = type(self).__name__
            log.warning(
                "%s failed (%s: %s) and is disabled; the run's folder contains all results", name, type(error).__name__, error
            )
            return None

    return guarded  # type: ignore[return-value]  # the same signature
